"""Networks that are trained one after another (group.py, progress.py): each has the bits of the run alone."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import TrainOptions, build_features, train
from modelnet.nets.registry import build_network
from modelnet.runs.folder import RunFolder
from modelnet.runtime.interrupt import Stop
from modelnet.sweep import group
from modelnet.sweep.result import SweepResult
from modelnet.sweep.train import resume_many, train_many
from modelnet.training.loop import TrainingLoop
from pipeline.errors import CheckpointError, OptionsError, OutOfMemory, TrainingDiverged
from tests.support.listener import Listener

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")

SMALL = "shufflenet_v2_x0_5"  # with BatchNorm


def options_of(cache: Path, **more: Any) -> TrainOptions:
    values: dict[str, Any] = {"model": SMALL, "epochs": 2, "batch_size": 4, "lr": 0.01, "threads": 1, "device": "cpu"}
    return TrainOptions(cache, val=cache, **values | more)


def outcome(run: Path) -> list[Any]:
    """Return all that a run ends with, but for times and its name."""
    folder = RunFolder(run)
    rows = [replace(row, images_per_s=0, data_wait_s=0, epoch_s=0) for row in folder.read_metrics()]
    config = folder.read_config()
    config["options"]["name"] = None
    contents = [folder.load_checkpoint(name) for name in ("last.pt", "best.pt")]
    tensors = {
        f"{part}.{name}": values.numpy().tobytes()
        for content in contents
        for part in ("weights", "average")
        for name, values in content[part].items()
    }
    texts = [(run / name).read_bytes() for name in ("predictions.csv", "scores.json")]
    return [rows, config, tensors, contents[0]["rng"].tolist(), texts, sorted(path.name for path in run.iterdir())]


def states(result: SweepResult) -> list[str]:
    """Return the column of states in the table of all networks."""
    with result.table.open(newline="") as file:
        return [line["state"] for line in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("more", "sweep"),
    [
        ({}, {"model": [SMALL, "squeezenet1_1"]}),  # the second has dropout
        pytest.param(
            {"preload": True, "augment": "flip", "model_ema": 0.5}, {"batch_size": [4, 5]}, marks=pytest.mark.long
        ),
        pytest.param(
            {"val": None, "val_fraction": 0.4, "workers": 2},
            {"freeze": [None, "conv1|stage"]},
            marks=pytest.mark.long,
        ),
        ({"model": "modelnet", "amp": True}, {"opt": ["sgd", "adamw"]}),
    ],
)
def test_networks_one_after_another_have_the_bits_of_runs_alone(
    more: dict[str, Any], sweep: dict[str, list[Any]], cache_path: Path
) -> None:
    result = train_many(replace(options_of(cache_path), **more), [3], sweep=sweep)

    assert states(result) == ["finished"] * 2
    extra = {"group.csv", "seeds.png"}
    for own, run in zip(result.members, result.runs, strict=True):
        *expected, files = outcome(train(own).run)
        *found, more_files = outcome(run)
        assert found == expected and set(more_files) - extra == set(files)


@pytest.mark.parametrize("cut", [1, pytest.param(3, marks=pytest.mark.long)])
def test_a_group_that_was_stopped_anywhere_goes_on_to_the_same_bits(cut: int, cache_path: Path) -> None:
    options = options_of(cache_path, epochs=1)
    whole = train_many(options, [0, 1])
    stop = Stop()
    stopped = train_many(options, [0, 1], Listener(stop, cut), stop)
    assert stopped.interrupted and "" in states(stopped)

    resumed = resume_many(stopped.table)

    assert not resumed.interrupted and states(resumed) == ["finished"] * 2
    assert [outcome(run) for run in resumed.runs] == [outcome(run) for run in whole.runs]


def test_networks_of_a_small_and_of_a_large_kind_make_one_group(cache_path: Path) -> None:
    heard = Listener()

    result = train_many(options_of(cache_path, name="g", epochs=1), [0, 1], heard, sweep={"model": ["modelnet", SMALL]})

    said = f"4 networks in 3 passes over the data, in runs/g-model-modelnet-seed-0 to g-model-{SMALL}-seed-1"
    assert f"{said}; the lines show the median" in heard.notes
    parts = [note for note in heard.notes if " of 3: " in note]
    assert parts == [
        "pass 1 of 3: 2 networks, model=modelnet",
        f"network 2 of 3: g-model-{SMALL}-seed-0, model={SMALL} seed=0",
        f"network 3 of 3: g-model-{SMALL}-seed-1, model={SMALL} seed=1",
    ]
    assert str(result).splitlines()[1].startswith("model=modelnet")


def test_a_network_that_diverges_ends_alone_and_is_in_the_table(cache_path: Path) -> None:
    heard = Listener()

    result = train_many(options_of(cache_path, model="modelnet", amp=True), [0], heard, sweep={"lr": [1e12, 0.01]})

    assert states(result) == ["diverged", "finished"] and len(result.rows[1]) == 2
    assert heard.warnings[-1].startswith("training diverged: ")
    with pytest.raises(TrainingDiverged, match="in every network"):
        train_many(options_of(cache_path, model="modelnet"), [0], sweep={"batch_size": [4, 5], "lr": [1e12]})


def test_a_network_that_runs_out_of_memory_ends_alone(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_epoch = TrainingLoop.train_epoch

    def runs_out(training: TrainingLoop) -> None:
        if training.setup.options.seed != 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        train_epoch(training)

    monkeypatch.setattr(TrainingLoop, "train_epoch", runs_out)
    heard = Listener()

    result = train_many(options_of(cache_path, model="modelnet", amp=True), [1, 2, 3], heard)

    assert states(result) == ["out of memory", "finished", "out of memory"]
    assert str(result).splitlines()[-1].endswith("2 ran out of memory, and are in no median")
    assert len([text for text in heard.warnings if "out of memory: cpu: CUDA out of memory" in text]) == 2
    with pytest.raises(OutOfMemory, match="with every network"):
        train_many(options_of(cache_path, model="modelnet", amp=True), [1, 3])


def test_after_the_first_network_it_says_how_long_the_others_take(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 10**6, 600))
    monkeypatch.setattr(group.time, "monotonic", lambda: float(next(seconds)))  # type: ignore[attr-defined]
    heard = Listener()

    train_many(options_of(cache_path, model="modelnet", amp=True), [0], heard, sweep={"epochs": [1, 2, 3]})

    found = [note for note in heard.notes if note.startswith("about ")]
    assert len(found) == 1 and found[0].endswith(" min for the other 2")


def test_what_one_network_of_a_group_refuses_leaves_no_folder(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingLoop, "train_epoch", None)  # nothing is trained
    torch.save(build_network(SMALL, 2, 64).state_dict(), "w.pth")
    options = options_of(cache_path, weights=Path("w.pth"))
    build_features(cache_path, Path("f.h5"), SMALL, Path("w.pth"), "cpu")
    with pytest.raises(CheckpointError, match=r"do not fit: w\.pth"):
        train_many(options, [0, 1], sweep={"model": [SMALL, "squeezenet1_1"]})
    with pytest.raises(OptionsError, match="no such network: 'resnet81'"):
        train_many(replace(options, weights=None), [0, 1], sweep={"model": [SMALL, "resnet81"]})
    with pytest.raises(OptionsError, match="--freeze matches no layer"):
        train_many(options, [0], sweep={"freeze": ["fc", "nothing"]})
    with pytest.raises(OptionsError, match="it holds features, which shufflenet_v2_x0_5 does not take"):
        train_many(replace(options, cache=Path("f.h5"), val=None), [0, 1])
    assert list(Path("runs").glob("*")) == []


def test_linear_layers_of_a_group_are_trained_in_one_pass(cache_path: Path) -> None:
    torch.save(build_network(SMALL, 2, 64).state_dict(), "w.pth")
    build_features(cache_path, Path("f.h5"), SMALL, Path("w.pth"), "cpu")
    features = Path("f.h5")
    options = options_of(features, model="linear", epochs=4, momentum=0.9)

    result = train_many(options, [0, 1], sweep={"lr": [0.01, 0.1], "smoothing": [0.0, 0.1]})

    for own, rows in zip(result.members, result.rows, strict=True):
        alone = train(own).rows
        assert [row.train_loss for row in rows] == pytest.approx([row.train_loss for row in alone], abs=1e-5)
        assert [row.val_loss for row in rows] == pytest.approx([row.val_loss for row in alone], abs=1e-5)


@pytest.mark.parametrize("more", [{}, {"opt": "adamw", "model_ema": 0.5}])
def test_networks_of_a_pass_cut_while_saved_end_with_the_same_bits(
    more: dict[str, Any], cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(cache_path, model="modelnet", epochs=4, **more)
    whole = train_many(options, [0, 1, 2])
    save = TrainingLoop.save

    def cut(training: TrainingLoop) -> None:
        if training.state.epoch == 3 and training.setup.options.seed == 1:
            raise KeyboardInterrupt
        save(training)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingLoop, "save", cut)
        patched.setattr("modelnet.sweep.loop.SECONDS_BETWEEN_SAVES", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train_many(replace(options, name="cut"), [0, 1, 2])
    names = [f"cut-seed-{seed}" for seed in range(3)]
    assert [RunFolder(Path("runs") / name).load_checkpoint()["epoch"] for name in names] == [3, 2, 2]

    resumed = resume_many(Path("runs/cut-seed-0/group.csv"))

    assert [outcome(run) for run in resumed.runs] == [outcome(run) for run in whole.runs]


@pytest.mark.parametrize(("last", "where"), [(0, "predictions"), (1, "predictions"), (1, "scores")])
def test_a_pass_cut_while_its_results_are_written_ends_with_the_same_bytes(
    last: int, where: str, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(cache_path, model="modelnet")
    whole = train_many(options, [0, 1])
    write = getattr(RunFolder, f"write_{where}")

    def cut(run: RunFolder, *of: Any) -> None:
        if run.path.name == f"cut-seed-{last}":
            raise KeyboardInterrupt
        write(run, *of)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, f"write_{where}", cut)
        with pytest.raises(KeyboardInterrupt):
            train_many(replace(options, name="cut"), [0, 1])

    resumed = resume_many(Path("runs/cut-seed-0/group.csv"))

    assert [outcome(run) for run in resumed.runs] == [outcome(run) for run in whole.runs]
    for one, other in zip(resumed.runs, whole.runs, strict=True):
        assert (one / "scores.json").read_bytes() == (other / "scores.json").read_bytes()


def test_a_rate_beyond_all_numbers_ends_its_network_alone(cache_path: Path) -> None:
    heard = Listener()

    result = train_many(options_of(cache_path, model="modelnet"), [0], heard, sweep={"lr": [1e30, 0.01]})

    assert states(result) == ["diverged", "finished"]

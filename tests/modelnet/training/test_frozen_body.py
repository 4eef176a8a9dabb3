"""A frozen body is run once: the same losses as with it in every epoch, whole run folders, and ways to fail.

The network that a run begins with (`start.py`) is tested here and in `test_freeze.py`.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout
from torchvision import models

from modelnet import Trained, TrainOptions, build_features, resume, resume_many, train, train_many
from modelnet.nets.freeze import freeze_layers
from modelnet.nets.weights_file import digest_of
from modelnet.progress import Progress
from modelnet.runs.checkpoint import encode
from modelnet.runs.folder import RunFolder
from modelnet.runtime.interrupt import Stop
from modelnet.training import frozen_body
from modelnet.training.frozen_body import CLOSE, _input_of_head, trains_head_alone
from modelnet.training.setup import Setup
from modelnet.training.step import TrainingStep
from modelnet.training.train import start_run
from pipeline import TensorCache
from pipeline.build.build import build_cache
from tests.support.listener import Listener
from tests.support.photos import make_photos, save_jpeg

SMALL = "shufflenet_v2_x0_5"

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def options_of(cache: Path, file: Path, **more: Any) -> TrainOptions:
    values: dict[str, Any] = {"model": SMALL, "weights": file, "freeze": "all-but-head", "epochs": 2, "lr": 0.1}
    return TrainOptions(cache, val=cache, batch_size=4, threads=1, device="cpu", **values | more)


def losses(rows: list[Any]) -> list[list[float]]:
    return [[row.train_loss, row.val_loss] for row in rows]


def weights_of(run: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = RunFolder(run).load_checkpoint()["weights"]
    return found


def features_of(run: Path) -> Any:
    return RunFolder(run).read_config().get("features")


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_losses_are_those_of_the_whole_network_in_every_epoch(
    cache_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = options_of(cache_path, weights, epochs=10, momentum=0.9)
    heard = Listener()
    with monkeypatch.context() as patched:
        patched.setattr("modelnet.training.setup.trains_head_alone", lambda _: False)
        expected = train(options)

    found = train(options, heard)

    assert features_of(expected.run) is None and features_of(found.run)["length"] == 1024
    assert losses(found.rows) == [pytest.approx(row, abs=1e-6) for row in losses(expected.rows)]
    file = torch.load(weights, weights_only=True)
    assert all(torch.equal(weights_of(found.run)[name], file[name]) for name in file if not name.startswith("fc."))
    once = [note for note in heard.notes if note.startswith("the frozen layers run once")]
    assert len(once) == 1 and "features in data/features/" in once[0]
    alone = Trained.load(found.run).evaluate(cache_path)
    assert alone.loss == pytest.approx(found.rows[-1].val_loss, abs=1e-5)


def test_the_next_run_and_build_features_share_the_file(cache_path: Path, weights: Path) -> None:
    train(options_of(cache_path, weights, epochs=1))
    (path,) = Path("data/features").glob("*.h5")
    before, heard = path.stat(), Listener()
    assert path.name.startswith(f"{cache_path.stem}-{SMALL}-")

    train(options_of(cache_path, weights, epochs=1, preload=True), heard)

    report = build_features(cache_path, Path("f.h5"), SMALL, weights, "cpu")
    assert path.read_bytes() == report.path.read_bytes() and path.stat().st_ino == before.st_ino
    assert f"the frozen layers run once for each image: features in {path} are up to date" in heard.notes


def test_a_last_layer_of_other_classes_may_hold_anything(cache_path: Path, weights: Path) -> None:
    state = torch.load(weights, weights_only=True)
    torch.save(state | {"fc.bias": state["fc.bias"] * torch.nan}, "nan.pth")
    heard = Listener()

    found = train(options_of(cache_path, Path("nan.pth")), heard)

    assert features_of(found.run) is not None
    assert not any(text.startswith("features are not cached") for text in heard.warnings)
    assert losses(found.rows) == losses(train(options_of(cache_path, weights)).rows)


def threads_in_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the numbers of threads of all steps that follow."""
    found: list[int] = []
    real = TrainingStep.__call__

    def counted(self: TrainingStep, *given: Any) -> Any:
        found.append(torch.get_num_threads())
        return real(self, *given)

    monkeypatch.setattr(TrainingStep, "__call__", counted)
    return found


@pytest.mark.parametrize(("typed", "chosen"), [(None, 2), (3, 3), (1, 1)])
def test_a_last_layer_has_the_threads_that_were_typed_or_recorded(
    typed: int | None,
    chosen: int,
    cache_path: Path,
    weights: Path,
    monkeypatch: pytest.MonkeyPatch,
    set_threads: Callable[[int], None],
) -> None:
    set_threads(4)
    monkeypatch.setattr("modelnet.runtime.device.usable_cores", lambda: 3)
    steps, stop = threads_in_steps(monkeypatch), Stop()
    options = replace(options_of(cache_path, weights, epochs=4), threads=typed, batch_size=32)

    run = train(options, Listener(stop, 2), stop).run

    config = RunFolder(run).read_config()
    assert (config["head_threads"], config["threads"]) == (chosen, typed or 3)
    assert config["options"]["threads"] == typed and ("--threads" in config["command"]) == (typed is not None)
    set_threads(1)
    monkeypatch.setattr("modelnet.runtime.device.usable_cores", lambda: 2)
    resume(run)
    assert steps == [chosen] * 4
    assert "parts" not in RunFolder(run).read_config()


@pytest.mark.parametrize("others", [True, False])
def test_caches_of_one_name_have_a_file_of_features_each(others: bool, cache_path: Path, weights: Path) -> None:
    photos, val = make_photos(Path("photos")), Path("val") / cache_path.name
    for number, photo in enumerate(sorted(photos.rglob("*.JPEG"))[: 8 if others else 1]):
        save_jpeg(photo, 70, 90, 50 + number)
    build_cache(photos, val, size=64, workers=1)
    caches = [cache_path, val]
    expected = [build_features(path, Path(f"{i}.h5"), SMALL, weights, "cpu").path for i, path in enumerate(caches)]

    for _ in range(2):  # the second time, all are up to date
        heard = Listener()
        result = train(replace(options_of(cache_path, weights, epochs=1), val=val), heard)
        assert features_of(result.run) is not None
        assert not any(text.startswith("features are not cached") for text in heard.warnings)

    assert sum(note.endswith(" are up to date") for note in heard.notes) == 2
    usual = f"{cache_path.stem}-{SMALL}-{digest_of(weights)[:8]}"
    files = {path.name: path.read_bytes() for path in Path("data/features").glob("*.h5")}
    names = [f"{usual}.h5", f"{usual}-{TensorCache(val).fingerprint[:8]}.h5"]
    assert files == {name: path.read_bytes() for name, path in zip(names, expected, strict=True)}


@pytest.mark.parametrize(
    "more",
    [
        {"augment": "flip"},
        {"crop_size": 60},
        {"thaw_epoch": 2},
        {"norm_stats": "update"},
        {"weights": None},
        {"freeze": "conv1"},
        {"compile": True},
        {"model": "net.py:Net"},
        {"amp": True, "amp_dtype": "float16"},
    ],
)
def test_where_images_or_other_layers_change_nothing_is_cached(more: dict[str, Any]) -> None:
    assert trains_head_alone(options_of(Path("c.h5"), Path("w.pth")))
    assert not trains_head_alone(options_of(Path("c.h5"), Path("w.pth"), **more))


@pytest.mark.parametrize("more", [{}, {"thaw_epoch": 2}, {"freeze": None, "model_ema": 0.5}])
def test_the_best_epoch_is_kept_as_it_was_without_copies_of_frozen_layers(
    more: dict[str, Any], cache_path: Path, weights: Path
) -> None:
    setup = Setup(options_of(cache_path, weights, momentum=0.9, **more), Progress())
    training = start_run(RunFolder.create("r", ""), setup, Progress(), Stop())
    state, own = training.state, (setup.options, setup.cache)
    training.train_epoch()

    kept, whole = state.snapshot(*own), encode(state.to_content(*own))
    state.finish_epoch([0.0])
    training.train_epoch()  # layers thaw in it

    assert encode(kept) == whole != encode(state.to_content(*own))
    now = state.network.state_dict()
    shared = {name for name, values in kept["weights"].items() if values.data_ptr() == now[name].data_ptr()}
    bodies = {name for name, _ in state.network.named_parameters() if not name.startswith("fc.")}
    assert shared == (set() if more else bodies)


class Net(nn.Module):
    """Drops features in training, or changes logits."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.body, self.head = nn.Conv2d(3, 4, 8), nn.Linear(4, 2, bias=kind != "no bias")

    def forward(self, images: Tensor) -> Tensor:
        features = self.body(images).mean((2, 3))
        if self.kind == "dropout":
            features = dropout(features, 0.5, self.training)
        logits = self.head(features)
        changed: Tensor = logits.softmax(1) if self.kind == "softmax" else logits
        return changed


@pytest.mark.parametrize(
    ("kind", "possible"), [("plain", True)] + [(k, False) for k in ("dropout", "softmax", "no bias")]
)
def test_only_a_linear_layer_of_a_fixed_function_is_trained_alone(kind: str, possible: bool) -> None:
    torch.manual_seed(0)
    network = Net(kind)
    freeze_layers(network, "all-but-head", None)
    images = torch.rand(2, 3, 16, 16)

    found = _input_of_head(network, images, nullcontext(), CLOSE["float32"])

    assert (found is not None) == possible
    if found is not None:
        assert found[0] == "head" and torch.equal(found[1], network.body(images).mean((2, 3)))


def test_the_last_convolution_of_a_network_is_trained_with_its_body(cache_path: Path) -> None:
    torch.save(models.get_model("squeezenet1_1", weights=None).state_dict(), "w.pth")
    result = train(options_of(cache_path, Path("w.pth"), model="squeezenet1_1", epochs=1))

    assert features_of(result.run) is None and not Path("data/features").exists()


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({}, marks=pytest.mark.long),
        {"model_ema": 0.5, "opt": "adamw", "accumulate": 2, "zero_grad": "epoch"},
    ],
)
def test_a_run_that_is_cut_anywhere_ends_with_the_same_bits(
    more: dict[str, Any], cache_path: Path, weights: Path
) -> None:
    options = options_of(cache_path, weights, **more)
    whole = train(options)
    for cut in (1, 3, 4):
        stop = Stop()
        run = train(options, Listener(stop, cut), stop).run
        for path in Path("data/features").glob("*"):
            path.unlink()
        resumed = resume(run)
        assert losses(resumed.rows) == losses(whole.rows) and same(weights_of(run), weights_of(whole.run))


def test_a_stop_while_features_are_computed_is_resumed(
    cache_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch, set_threads: Callable[[int], None]
) -> None:
    set_threads(4)  # of the body; the last layer gets fewer
    monkeypatch.setattr("modelnet.runtime.device.usable_cores", lambda: 3)
    options, stop = replace(options_of(cache_path, weights), threads=None, batch_size=32), Stop()
    whole = train(options)
    for path in Path("data/features").glob("*"):
        path.unlink()
    poll = frozen_body._Poll.__call__

    def stopped(self: Any, done: int, total: int) -> None:
        stop.signal = 2
        poll(self, done, total)

    with monkeypatch.context() as patched:
        patched.setattr(frozen_body._Poll, "__call__", stopped)
        cut = train(options, stop=stop)
    assert cut.interrupted and cut.rows == [] and list(Path("data/features").glob("*.h5*")) == []

    assert losses(resume(cut.run).rows) == losses(whole.rows) and same(weights_of(cut.run), weights_of(whole.run))
    assert [RunFolder(result.run).read_config()["head_threads"] for result in (cut, whole)] == [2, 2]


@pytest.mark.parametrize(("here", "there"), [("runs", ""), ("runs/photos-shufflenet_v2_x0_5-002", "../")])
def test_a_run_goes_on_with_its_features_from_any_folder(
    here: str, there: str, cache_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(options_of(cache_path, weights))
    stop = Stop()
    run, heard = train(options_of(cache_path, weights), Listener(stop, 1), stop).run.absolute(), Listener()
    kept = sorted(Path("data/features").absolute().glob("*"))
    for path in kept:
        path.unlink()
    monkeypatch.chdir(here)

    resumed = resume(Path(f"{there}{run.name}"), progress=heard)

    assert losses(resumed.rows) == losses(whole.rows) and same(weights_of(run), weights_of(run.parent / whole.run.name))
    assert not any(text.startswith("features are not cached") for text in heard.warnings)
    assert all(path.exists() for path in kept if path.suffix == ".h5")


def test_where_features_cannot_be_written_the_whole_network_trains(cache_path: Path, weights: Path) -> None:
    Path("data").write_text("in the way")
    heard = Listener()

    result = train(options_of(cache_path, weights, epochs=1), heard)

    assert len(result.rows) == 1 and features_of(result.run) is None
    (said,) = [text for text in heard.warnings if "not cached, and the whole network runs in each epoch" in text]
    assert "--out" not in said
    Path("data").unlink()
    stop = Stop()
    cut = train(options_of(cache_path, weights), Listener(stop, 1), stop).run
    for path in Path("data/features").glob("*"):
        path.unlink()
    weights.unlink()
    assert len(resume(cut, progress=heard).rows) == 2
    assert "the losses will differ by rounding: no weights there" in heard.warnings[-1]


@pytest.mark.long
def test_seeds_and_settings_are_stacked_last_layers_of_one_body(cache_path: Path, weights: Path) -> None:
    options = options_of(cache_path, weights, model_ema=0.5)
    heard, stop = Listener(), Stop()

    result = train_many(options, [0, 1], heard, sweep={"lr": [0.01, 0.1]})

    assert any("4 networks, in runs/" in note and "median" in note for note in heard.notes)
    for own, rows, run in list(zip(result.members, result.rows, result.runs, strict=True))[1::2]:
        alone = train(own)
        assert losses(rows) == [pytest.approx(row, abs=1e-5) for row in losses(alone.rows)]
        assert weights_of(run).keys() == weights_of(alone.run).keys() and features_of(run) == features_of(alone.run)
    outcome = Trained.load(result.runs[3]).evaluate(cache_path)
    assert outcome.loss == pytest.approx(result.rows[3][-1].val_loss, abs=1e-5)
    cut = train_many(options, [0, 1], Listener(stop, 3), stop, sweep={"lr": [0.01, 0.1]})
    resumed = resume_many(cut.table)
    assert [same(weights_of(a), weights_of(b)) for a, b in zip(resumed.runs, result.runs, strict=True)] == [True] * 4


@pytest.mark.long
def test_a_group_without_features_trains_one_after_another(cache_path: Path, weights: Path) -> None:
    Path("data").write_text("in the way")
    options, heard = options_of(cache_path, weights, epochs=1), Listener()

    result = train_many(options, [0, 1], heard)

    assert len([text for text in heard.warnings if text.startswith("features are not cached")]) == 1
    for own, rows in zip(result.members, result.rows, strict=True):
        assert losses(rows) == losses(train(own).rows)


@pytest.mark.long
def test_features_of_a_group_stay_apart_from_images_of_another_network(cache_path: Path, weights: Path) -> None:
    options = options_of(cache_path, weights, epochs=1, preload=True)

    result = train_many(options, [0], sweep={"freeze": ["all-but-head", None, "conv1"]})

    assert [features_of(run) is not None for run in result.runs] == [True, False, False]
    for own, rows in zip(result.members, result.rows, strict=True):
        assert losses(rows) == losses(train(own).rows)
    assert TensorCache(next(Path("data/features").glob("*.h5"))).row_shape == (1024,)

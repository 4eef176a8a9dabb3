"""Runs with a person's own network and augmentation: kept, repeated, resumed to the bit, and used later."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from modelnet import Trained, TrainOptions, export, predict, resume, train
from modelnet.eval.export_weights import export_weights
from modelnet.runs import code as runs_code
from modelnet.runs.folder import RunFolder
from modelnet.runs.kind import facts_of, kind_of
from modelnet.runtime.interrupt import Stop
from modelnet.training.lr_finder import find_learning_rate
from pipeline import TensorCache
from pipeline.errors import CheckpointError, CodeError, OptionsError
from tests.support.command_line import RunCli
from tests.support.listener import Listener
from tests.support.own_code import CHANGE, NETWORK
from tests.support.splits import write_folds

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "files")


@pytest.fixture
def files(in_a_folder_of_its_own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network and a change of images, as a person has them, in a home where nothing is trusted."""
    Path("net.py").write_text(NETWORK)
    Path("changes.py").write_text(CHANGE)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(runs_code, "_allowed", set())


def options_of(cache: Path, **more: Any) -> TrainOptions:
    values: dict[str, Any] = {"model": "net.py:Net", "model_arg": ("width=3",), "augment_code": "changes.py:speckle"}
    values |= {"device": "cpu", "epochs": 3, "batch_size": 3, "lr": 0.05, "val": cache}
    return TrainOptions(cache, **values | more)


def losses(run: Path) -> list[tuple[float, float | None]]:
    return [(row.train_loss, row.val_loss) for row in RunFolder(run).read_metrics()]


def test_only_the_copy_in_the_run_folder_is_used_after_training(cache_path: Path, shared_photos: Path) -> None:
    run = train(options_of(cache_path)).run
    for path in ("net.py", "changes.py"):
        Path(path).write_text("raise SystemExit('executed')")

    trained = Trained.load(run)

    assert (run / "code/model.py").read_text() == NETWORK and (run / "code/augment_code.py").read_text() == CHANGE
    assert trained.network.get_parameter("body.0.weight").shape == (3, 3, 8, 8)
    assert trained.evaluate().loss == pytest.approx(losses(run)[-1][1])
    assert all(answer.classes for answer in predict(trained, [shared_photos / "1"], 1))
    assert export(trained, "torch").difference < 1e-5
    assert export_weights(trained, None).difference == 0
    assert resume(run, epochs=4).rows[-1].epoch == 4


def test_the_digests_of_the_files_are_recorded(cache_path: Path) -> None:
    run = train(options_of(cache_path, epochs=1)).run
    code = RunFolder(run).read_config()["code"]

    assert sorted(code) == ["augment_code", "model"] and all(len(digest) == 64 for digest in code.values())
    assert RunFolder(run).load_checkpoint()["code"] == code
    assert torch.load(run / "checkpoints/last.pt", weights_only=True)["code"] == code


def test_runs_of_other_code_or_arguments_have_other_options(cache_path: Path) -> None:
    def kind(**more: Any) -> str:
        return kind_of(facts_of(RunFolder(train(options_of(cache_path, epochs=1, **more)).run).read_config()))

    first = kind()
    Path("moved").mkdir()
    Path("net.py").rename("moved/other.py")
    assert kind(model="moved/other.py:Net", seed=1) == first
    assert kind(model="moved/other.py:Net", model_arg=("width=5",)) != first
    Path("moved/other.py").write_text(NETWORK.replace("0.1", "0.2"))
    assert kind(model="moved/other.py:Net") != first


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_of_own_code_is_resumed_to_the_bit(workers: int, cache_path: Path) -> None:
    options = options_of(cache_path, augment="flip,randaugment", workers=workers)
    whole = train(options).run
    stop = Stop()
    cut = train(options, Listener(stop, cut=4), stop).run
    assert resume(cut).interrupted is False

    ours, expected = (RunFolder(run).load_checkpoint() for run in (cut, whole))
    assert all(map(torch.equal, ours["weights"].values(), expected["weights"].values()))
    assert losses(cut) == losses(whole)


def test_the_bits_are_the_same_with_workers_and_from_uint8(cache_path: Path, uint8_cache_path: Path) -> None:
    runs = [
        train(options_of(path, epochs=1, workers=workers, threads=1)).run
        for path, workers in ((cache_path, 0), (cache_path, 2), (uint8_cache_path, 0))
    ]
    assert losses(runs[0]) == losses(runs[1]) == losses(runs[2])


def test_code_that_came_from_elsewhere_is_executed_only_with_trust(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train(options_of(cache_path, epochs=1)).run
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another home"))
    monkeypatch.setattr(runs_code, "_allowed", set())

    for use in (lambda: Trained.load(run), lambda: resume(run, epochs=2)):
        with pytest.raises(CodeError, match=r"unknown code: .*/code/model.py: nobody has trained here"):
            use()
    assert Trained.load(run, trust_code=True).evaluate().accuracy >= 0
    monkeypatch.setattr(runs_code, "_allowed", set())
    assert len(resume(run, epochs=2, trust_code=True).rows) == 2


def test_a_run_whose_copy_was_changed_is_refused(cache_path: Path) -> None:
    run = train(options_of(cache_path, epochs=1)).run
    (run / "code/model.py").write_text(NETWORK + "\nx = 1\n")
    for use in (lambda: Trained.load(run, trust_code=True), lambda: resume(run, epochs=2, trust_code=True)):
        with pytest.raises(CheckpointError, match="the code of the run was changed"):
            use()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "net.py:Nothing"}, "defines no Nothing; there is Net, tiny"),
        ({"model_arg": ("wide=1",)}, "unexpected keyword argument 'wide'"),
        ({"model_arg": ("act=gelu",)}, r"line \d+ in __init__: assert act in .*AssertionError: gelu"),
        ({"augment_code": "net.py:tiny"}, "tiny"),
        ({"augment_code": "changes.py:nothing"}, "defines no nothing; there is speckle"),
    ],
)
def test_a_mistake_in_code_shows_before_a_run_folder_is_made(
    options: dict[str, Any], said: str, cache_path: Path
) -> None:
    with pytest.raises(CodeError, match=said):
        train(options_of(cache_path, **options))
    assert not Path("runs").exists()


def test_the_layer_that_is_taken_for_the_last_is_named(cache_path: Path) -> None:
    heard = Listener()
    options = options_of(cache_path, epochs=1, freeze="all-but-head", augment_code=None)

    train(options, heard)
    train(replace(options, freeze="body"), heard)

    notes = [note for note in heard.notes if note.startswith("frozen: ")]
    assert notes[0].startswith("frozen: all but head; ") and "all but" not in notes[1]


def test_a_mistake_that_a_worker_meets_is_told_as_theirs(cache_path: Path) -> None:
    Path("changes.py").write_text(f"import os\ndef f(i, g):\n    return i if os.getpid() == {os.getpid()} else i[0]")
    with pytest.raises(CodeError, match=r"f made \(64, 64\)"):
        train(options_of(cache_path, augment_code="changes.py:f", workers=1))


def test_the_finder_takes_ones_own_code(cache_path: Path) -> None:
    options = options_of(cache_path)
    assert len(find_learning_rate(options, rates=(0.001, 0.01)).losses) == 2


class Small(nn.Module):
    """A network that is in no file that a run could keep."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(192, width), nn.Linear(width, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.layers(images)  # type: ignore[no-any-return]


def test_a_given_module_is_trained_from_its_own_weights(cache_path: Path) -> None:
    network = Small(5)
    before = [parameter.clone() for parameter in network.parameters()]
    run = train(TrainOptions(cache_path, epochs=1, lr=1e-6, val=cache_path), network=network).run

    moved = [(a - b).abs().max().item() for a, b in zip(before, network.parameters(), strict=True)]
    assert 0 < max(moved) < 1e-4
    assert run.name == "photos-Small-001"
    assert RunFolder(run).read_config()["command"] is None


def test_a_run_of_a_given_module_needs_it_again(cache_path: Path) -> None:
    torch.manual_seed(0)
    options = TrainOptions(cache_path, epochs=2, val=cache_path)
    run = train(options, network=(network := Small(5))).run

    with pytest.raises(OptionsError, match=r"as a Small that is kept in no file. Use Trained.load\(run, network=...\)"):
        Trained.load(run)
    with pytest.raises(
        OptionsError, match=r"a Small was given from Python, .*Give it again from Python: resume\(run, network=\.\.\.\)"
    ):
        resume(run, epochs=3)
    with pytest.raises(CheckpointError, match="size mismatch"):
        Trained.load(run, network=Small(6))
    again = Trained.load(run, network=Small(5))
    images = TensorCache(cache_path).read(torch.arange(4))
    assert torch.equal(again.probabilities(images), network.eval()(images).double().softmax(1))
    assert again.evaluate().loss == pytest.approx(losses(run)[-1][1])
    assert export(again, "torch").difference < 1e-5


def test_a_given_module_is_resumed_to_the_bit(cache_path: Path) -> None:
    def fresh() -> Small:
        torch.manual_seed(8)
        return Small(5)

    options = TrainOptions(cache_path, epochs=3, batch_size=3)
    whole = train(options, network=fresh()).run
    stop = Stop()
    cut = train(options, Listener(stop, cut=4), stop, network=fresh()).run
    resume(cut, network=Small(5))
    assert losses(cut) == losses(whole)


def test_a_named_network_takes_no_module_later(cache_path: Path) -> None:
    run = train(TrainOptions(cache_path, epochs=1)).run
    with pytest.raises(OptionsError, match=r"no network is needed: .*: the run trained modelnet"):
        Trained.load(run, network=Small(5))


def test_every_command_that_asks_for_trust_takes_it(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    split = write_folds(TensorCache(cache_path), tmp_path / "split.csv", 2, 2)
    runs = [
        train(options_of(cache_path, epochs=1, split=split, val=None, batch_size=4, seed=seed)).run for seed in (0, 1)
    ]
    Path("e.toml").write_text(
        f'seeds = "0"\n[common]\ncache = "{cache_path}"\nval-fraction = 0.5\nepochs = 1\nthreads = 1\n'
        '[a]\nmodel = "net.py:Net"\n[b]\nmodel = "net.py:tiny"\n'
    )
    assert run_cli("experiment", "e.toml").code == 0
    Path("e.toml").write_text(Path("e.toml").read_text().replace("epochs = 1", "epochs = 2"))
    env = {"XDG_STATE_HOME": str(tmp_path / "another home")}
    for words in (
        ("compare", *runs, "--on", "test"),
        ("lr-find", "--from", runs[0], "--epochs", "1"),
        ("experiment", "e.toml"),
    ):
        refused = run_cli(*words, env=env)
        assert refused.code == CodeError.exit_code and "Read it, then give --trust-code" in refused.stderr
        ended = run_cli(*words, "--trust-code", env=env)
        assert ended.code == 0, ended.stderr
    assert "--trust-code is for --on test" in run_cli("compare", *runs, "--trust-code").stderr
    assert "--trust-code is for --from" in run_cli("lr-find", "--trust-code").stderr

"""Many networks in one pass: each as if it had been alone."""

import csv
import json
import signal
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import ModelNet, Trained, TrainOptions, resume, train
from modelnet.eval.loss import TrainingLoss
from modelnet.progress import Progress
from modelnet.runs.folder import RunFolder
from modelnet.runs.tables import result_row
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.grid import passes
from modelnet.sweep.loop import SweepLoop
from modelnet.sweep.network import StackedLoss, StackedModelNet
from modelnet.sweep.result import SweepResult
from modelnet.sweep.train import resume_many, train_many
from modelnet.training.setup import Setup
from modelnet.training.train import start_run
from pipeline.errors import OptionsError, RunError
from tests.support.command_line import RunCli, start_training, wait_for_epochs
from tests.support.listener import Listener

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def networks(size: int, classes: int, count: int = 3) -> list[ModelNet]:
    torch.manual_seed(1)
    return [ModelNet(classes, size) for _ in range(count)]


@pytest.mark.parametrize(("size", "classes"), [(60, 2), (100, 3), (224, 5)])
def test_stacked_networks_say_what_each_says_and_get_the_same_gradients(size: int, classes: int) -> None:
    alone = networks(size, classes)
    stacked = StackedModelNet(alone)
    images, labels = torch.randn(4, 3, size, size), torch.randint(0, classes, (4,))
    loss_of = TrainingLoss(0.1, torch.rand(classes) + 0.5)
    logits = stacked(images)
    losses = StackedLoss([loss_of] * len(alone))(logits, labels, len(labels))
    losses.sum().backward()
    for k, network in enumerate(alone):
        expected = network(images)
        torch.testing.assert_close(logits[k], expected, atol=1e-6, rtol=1e-5)
        loss = loss_of(expected, labels)
        torch.testing.assert_close(losses[k], loss)
        loss.backward()
        for weights, own in zip(stacked.stacked, network.parameters(), strict=True):
            assert weights.grad is not None
            torch.testing.assert_close(weights.grad[k], own.grad, atol=1e-6, rtol=1e-4)


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


VALUES: dict[str, Any] = {"batch_size": 3, "epochs": 5, "lr": 0.03, "threads": 1, "data_seed": 4}


def assert_each_is_as_alone(result: SweepResult) -> None:
    for options, run, rows in zip(result.members, result.runs, result.rows, strict=True):
        alone = train(options)
        assert len(rows) == len(alone.rows)
        for ours, expected in zip(rows, alone.rows, strict=True):
            assert ours.train_loss == pytest.approx(expected.train_loss, abs=1e-5)
            assert ours.val_loss == pytest.approx(expected.val_loss, abs=1e-5)
            assert ours.lr == expected.lr
        saved = [torch.load(r / "checkpoints/last.pt", weights_only=True) for r in (run, alone.run)]
        for part in ("weights", "average"):
            assert saved[0][part].keys() == saved[1][part].keys()
            for name in saved[0][part]:
                torch.testing.assert_close(saved[0][part][name], saved[1][part][name], atol=1e-4, rtol=1e-3)
        config, theirs = (json.loads((r / "config.json").read_text()) for r in (run, alone.run))
        assert config == theirs
        assert {path.name for path in alone.run.iterdir()} <= {path.name for path in run.iterdir()}


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"sched": "cosine", "warmup_epochs": 1, "init": "xavier", "augment": "flip", "smoothing": 0.1},
        {"val_fraction": 0.4, "class_weights": "balanced", "drop_last": True},
        {"batch_size": 1, "shuffle": False},
        {"accumulate": 2, "clip_grad": 0.5, "model_ema": 0.7, "momentum": 0.0},
        {"zero_grad": "epoch", "lr": 0.003, "sched": "step", "decay_epochs": 2},
        {"sched": "plateau", "plateau_epochs": 1, "lr": 0.1, "patience": 2, "epochs": 8},
        *({"opt": opt, "lr": 0.001} for opt in ("adam", "adamw", "nadam", "radam", "rmsprop")),
    ],
)
def test_each_network_follows_the_run_alone(wanted: dict[str, Any], cache_path: Path) -> None:
    val = {} if "val_fraction" in wanted else {"val": cache_path}
    result = train_many(TrainOptions(cache_path, **(VALUES | val | wanted)), [0, 7])
    assert not result.interrupted and [options.seed for options in result.members] == [0, 7]
    assert_each_is_as_alone(result)
    for run, rows in zip(result.runs, result.rows, strict=True):
        assert read_table(run / "predictions.csv")
        assert Trained.load(run).evaluate().loss == pytest.approx(
            result_row(rows, "best" if "patience" in wanted else "last").val_loss
        )


@pytest.mark.parametrize("cut", [0, 1, 13, 26])
def test_the_losses_of_an_epoch_are_added_one_by_one_wherever_it_is_cut(cut: int, cache_path: Path) -> None:
    made = [Setup(TrainOptions(cache_path, seed=seed, threads=1), Progress()) for seed in (0, 1)]
    trainings = [start_run(RunFolder.create(None, "r"), setup, Progress(), Stop()) for setup in made]
    loop = SweepLoop(trainings, [[], []], Progress(), Stop())
    random = torch.Generator().manual_seed(0)
    sizes = [10.0 ** -(i % 12) for i in range(40)]  # some so small that their sum is rounded
    steps = [(size * torch.rand(2, generator=random), torch.ones(2), 3 + i % 2) for i, size in enumerate(sizes)]

    for part in (steps[:cut], steps[cut:]):
        loop.hand_over(part, 0.0)

    for k, training in enumerate(trainings):
        expected = 0.0
        for losses, _, images in steps:
            expected += losses[k].item() * images
        assert training.state.running.to_dict() == {"loss_sum": expected, "correct": 40, "images": 140}


@pytest.mark.parametrize(
    "sweep",
    [
        {"lr": [0.003, 0.03], "momentum": [0.0, 0.9]},
        {"weight_decay": [0.0, 0.1], "init": ["default", "orthogonal"], "smoothing": [0.0, 0.2]},
        {"opt": ["sgd", "adamw"], "clip_grad": [None, 0.1], "sched": ["none", "cosine"]},
        {"model_ema": [None, 0.5, 0.9], "class_weights": ["none", "balanced"], "epochs": [2, 3]},
        {"batch_size": [2, 5], "augment": ["", "flip"]},
    ],
)
def test_each_network_of_a_sweep_follows_the_run_alone(sweep: dict[str, list[Any]], cache_path: Path) -> None:
    result = train_many(TrainOptions(cache_path, val=cache_path, **VALUES), [1], sweep=sweep)
    assert len(result.runs) == len(list(product(*sweep.values())))
    assert_each_is_as_alone(result)
    table = read_table(result.table)
    assert [line["run"] for line in table] == [run.name for run in result.runs]
    assert sweep.keys() <= table[0].keys()


def test_data_seeds_are_crossed_with_seeds_a_pass_over_the_data_each(cache_path: Path) -> None:
    options = TrainOptions(cache_path, val=cache_path, **VALUES, name="n", augment="flip")
    result = train_many(options, [0, 1], data_seeds=[4, 5])
    assert [(own.data_seed, own.seed) for own in result.members] == [(4, 0), (4, 1), (5, 0), (5, 1)]
    assert [run.name for run in result.runs] == [f"n-data-seed-{d}-seed-{s}" for d in (4, 5) for s in (0, 1)]
    assert passes(result.members) == [[0, 1], [2, 3]]
    assert result.rows[0][0].train_loss != result.rows[2][0].train_loss
    for own, rows in zip(result.members, result.rows, strict=True):
        alone = train(replace(own, name=None)).rows
        assert [row.train_loss for row in rows] == pytest.approx([row.train_loss for row in alone], abs=1e-5)


@pytest.mark.parametrize("cut", [2, 3, 5])
def test_a_stopped_network_of_a_sweep_continues_alone_with_the_same_bits(cut: int, cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=4, lr=0.03, threads=1)
    stop = Stop()
    result = train_many(options, [0, 1], Listener(stop, cut), stop)
    assert result.interrupted
    for seed, run in zip((0, 1), result.runs, strict=True):
        resumed = resume(run)
        alone = train(replace(options, seed=seed))
        assert [row.train_loss for row in resumed.rows] == pytest.approx(
            [row.train_loss for row in alone.rows], abs=1e-5
        )


@pytest.mark.parametrize("cut", [4, 6])
@pytest.mark.parametrize(
    "wanted", [{}, {"opt": "adamw", "model_ema": 0.5}, {"zero_grad": "never", "accumulate": 2, "lr": 0.003}]
)
def test_a_group_that_was_stopped_goes_on_to_the_same_bits(wanted: dict[str, Any], cut: int, cache_path: Path) -> None:
    options = TrainOptions(cache_path, val=cache_path, **({"batch_size": 3, "epochs": 3, "threads": 1} | wanted))
    whole = train_many(options, [0, 1], sweep={"lr": [0.01, 0.03]})
    stop = Stop()
    cut_short = train_many(options, [0, 1], Listener(stop, cut), stop, sweep={"lr": [0.01, 0.03]})
    assert cut_short.interrupted
    resumed = resume_many(cut_short.table)
    assert not resumed.interrupted and resumed.converged == whole.converged
    for run, other in zip(resumed.runs, whole.runs, strict=True):
        contents = [torch.load(r / "checkpoints/last.pt", weights_only=True) for r in (run, other)]
        for part in ("weights", "average", "gradients"):
            for name, value in contents[1][part].items():
                assert torch.equal(contents[0][part][name], value), (part, name)


def test_networks_saved_after_different_epochs_resume_in_separate_passes(cache_path: Path) -> None:
    result = train_many(TrainOptions(cache_path, **VALUES), [0, 1, 2])
    resume(result.runs[1], epochs=7)
    resumed = resume_many(result.table, epochs=8)
    assert [len(rows) for rows in resumed.rows] == [8, 8, 8]
    for seed, rows in enumerate(resumed.rows):
        alone = train(TrainOptions(cache_path, **(VALUES | {"epochs": 8, "seed": seed}))).rows
        assert [row.train_loss for row in rows] == pytest.approx([row.train_loss for row in alone], abs=1e-5)


def test_a_table_of_no_runs_is_refused(tmp_path: Path) -> None:
    for text in ("", "a,b\n1,2\n", "run\n../x\n"):
        (tmp_path / "group.csv").write_text(text)
        with pytest.raises(RunError, match="no group of runs there"):
            resume_many(tmp_path / "group.csv")


def test_a_network_that_diverges_ends_alone(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = StackedModelNet.forward

    def spoilt(self: StackedModelNet, images: torch.Tensor) -> torch.Tensor:
        factor = torch.tensor([1.0, float("nan"), 1.0])[:, None, None]
        return real(self, images) * factor.to(images.device)

    monkeypatch.setattr(StackedModelNet, "forward", spoilt)
    heard = Listener()
    result = train_many(TrainOptions(cache_path, batch_size=4, epochs=2, threads=1), [0, 1, 2], heard)
    assert [len(rows) for rows in result.rows] == [2, 0, 2]
    assert len(heard.warnings) == 1 and "photos-modelnet-002" in heard.warnings[0]


def test_what_many_networks_cannot_do_is_refused_before_anything_is_made(cache_path: Path) -> None:
    options = TrainOptions(cache_path)
    with pytest.raises(OptionsError, match="each would be compiled anew"):
        train_many(replace(options, compile=True), [0, 1])
    with pytest.raises(OptionsError, match="all have to be different"):
        train_many(options, [1, 1])
    with pytest.raises(OptionsError, match="data seeds change nothing without --shuffle or --augment"):
        train_many(replace(options, shuffle=False, name="g"), [1], data_seeds=[0, 1])
    with pytest.raises(OptionsError, match="a group has 2 to 512 of them, not 1"):
        train_many(options, [1])
    with pytest.raises(ValueError, match="momentum is 0 or greater"):
        train_many(options, [1], sweep={"momentum": [0.5, -1.0]})
    assert not Path("runs").exists()


@pytest.mark.parametrize("shuffle", [True, False])
def test_unshuffled_networks_are_evaluated_on_their_training_images(shuffle: bool, cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=1, epochs=2, lr=0.02, threads=1, shuffle=shuffle, device="cpu")
    result = train_many(options, [0, 1])
    if shuffle:
        assert result.trained_accuracy == [None, None]
    else:
        scores = [Trained.load(run, device="cpu").evaluate(cache_path) for run in result.runs]
        assert result.trained_accuracy == [score.accuracy for score in scores]


def test_an_option_that_no_setting_of_a_sweep_uses_is_named(cache_path: Path) -> None:
    heard = Listener()
    options = TrainOptions(cache_path, epochs=1, threads=1, mixup_alpha=0.5, color_jitter=0.1, device="cpu")
    train_many(options, [0], heard, sweep={"augment": ["flip", "mixup"]})
    assert heard.warnings == ["--color-jitter 0.1 changes nothing without --augment color"]


def test_the_command_prints_a_table_and_a_sentence(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    ended = run_cli(
        *("train", "--cache", cache_path, "--seeds", "0-2", "--batch-size", "2", "--epochs", "60", "--lr", "0.05"),
        *("--threads", "1", "--name", "s"),
    )
    assert ended.code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[-3:-1] == ["all networks: runs/s-seed-0/group.csv", "curves: runs/s-seed-0/seeds.png"]
    assert (tmp_path / "runs/s-seed-0/seeds.png").read_bytes()[:4] == b"\x89PNG"
    table = [line.split() for line in lines[-13:-6]]
    assert table[0] == ["seed", "train_loss", "train_acc", "run"]
    assert [row[0] for row in table[1:4]] == ["0", "1", "2"] and table[3][-1] == "s-seed-2"
    losses = sorted(float(row[1]) for row in table[1:4])
    assert table[5][:2] == ["median", f"{losses[1]:.4f}"]
    low = sum(loss < 0.5 * 0.6931 for loss in losses)
    assert lines[-5] == f"converged in {low} of 3 starts"


@pytest.mark.long
def test_a_sweep_that_is_stopped_goes_on_from_its_table(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    wanted = ("train", "--cache", str(cache_path), "--seeds", "0,1", "--sweep", "lr=0.01,0.05", "--sweep", "wd=0,0.1")
    process = start_training(tmp_path, *wanted[1:], "--epochs", "100000", "--threads", "1", "--name", "s")
    wait_for_epochs(process)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    table = "runs/s-lr-0.01-weight-decay-0.0-seed-0/group.csv"
    assert errors.splitlines()[-1] == f"stopped and saved. Continue with: python cli.py train --resume {table}"
    epochs = {line["epochs"] for line in read_table(tmp_path / table)}
    assert len(epochs) == 1
    more = str(int(epochs.pop()) + 2)
    ended = run_cli("train", "--resume", table, "--epochs", more)
    assert ended.code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[-5].startswith("lowest median training loss: ")
    settings = [line.split("   ")[0] for line in lines[-11:-7]]
    assert settings == [f"lr={lr} weight-decay={wd}" for lr in (0.01, 0.05) for wd in (0.0, 0.1)]
    assert all("of 2" in line for line in lines[-11:-7])
    assert {line["epochs"] for line in read_table(tmp_path / table)} == {more}

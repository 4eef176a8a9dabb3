"""Many networks in one pass: each as if it had been alone."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RunCli
from torch import nn

from modelnet import ModelNet, Trained, TrainOptions, resume, train
from modelnet.interrupt import Stop
from modelnet.many import parse_seeds, train_many
from modelnet.progress import Progress
from modelnet.stacked import StackedModelNet, stacked_losses
from pipeline.errors import OptionsError


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelnet.training.loss_curves", lambda rows, title: b"")  # drawing takes longer than training


def networks(size: int, classes: int, count: int = 3) -> list[ModelNet]:
    torch.manual_seed(1)
    return [ModelNet(classes, size) for _ in range(count)]


@pytest.mark.parametrize(("size", "classes"), [(60, 2), (100, 3), (224, 5)])
def test_stacked_networks_say_what_each_says_and_get_the_same_gradients(size: int, classes: int) -> None:
    alone = networks(size, classes)
    stacked = StackedModelNet(alone)
    images, labels = torch.randn(4, 3, size, size), torch.randint(0, classes, (4,))
    loss_of = nn.CrossEntropyLoss(weight=torch.rand(classes) + 0.5, label_smoothing=0.1)
    logits = stacked(images)
    losses = stacked_losses(logits, labels, loss_of)
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


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"sched": "cosine", "warmup_epochs": 1, "init": "xavier", "augment": "flip", "smoothing": 0.1},
        {"val_fraction": 0.4, "class_weights": "balanced", "drop_last": True},
        {"batch_size": 1, "shuffle": False},
    ],
)
def test_each_network_follows_the_run_alone(wanted: dict[str, Any], cache_path: Path) -> None:
    val = {} if "val_fraction" in wanted else {"val": cache_path}
    values: dict[str, Any] = {"batch_size": 3, "epochs": 5, "lr": 0.03, "threads": 1, "data_seed": 4} | val | wanted
    result = train_many(TrainOptions(cache_path, **values), [0, 1, 7])
    assert not result.interrupted
    for seed, run, rows in zip(result.seeds, result.runs, result.rows, strict=True):
        alone = train(TrainOptions(cache_path, seed=seed, **values))
        for ours, expected in zip(rows, alone.rows, strict=True):
            assert ours.train_loss == pytest.approx(expected.train_loss, abs=1e-5)
            assert ours.val_loss == pytest.approx(expected.val_loss, abs=1e-5)
            assert ours.lr == expected.lr
        weights = [torch.load(r / "checkpoints/last.pt", weights_only=True)["weights"] for r in (run, alone.run)]
        for name in weights[0]:
            torch.testing.assert_close(weights[0][name], weights[1][name], atol=1e-4, rtol=1e-3)
        config, theirs = (json.loads((r / "config.json").read_text()) for r in (run, alone.run))
        assert config == theirs
        assert {path.name for path in alone.run.iterdir()} <= {path.name for path in run.iterdir()}
        with (run / "predictions.csv").open() as one, (alone.run / "predictions.csv").open() as other:
            assert [row["file"] for row in csv.DictReader(one)] == [row["file"] for row in csv.DictReader(other)]
        assert Trained.load(run).evaluate().loss == pytest.approx(rows[-1].val_loss)


class CutAfter(Progress):
    def __init__(self, stop: Stop, steps: int) -> None:
        self.stop, self.left = stop, steps

    def step(self, images: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.stop.signal = 2


@pytest.mark.parametrize("cut", [2, 3, 5])
def test_a_network_of_many_that_was_stopped_goes_on_alone_as_if_it_always_had_been(cut: int, cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=4, lr=0.03, threads=1)
    stop = Stop()
    result = train_many(options, [0, 1], CutAfter(stop, cut), stop)
    assert result.interrupted
    for seed, run in zip((0, 1), result.runs, strict=True):
        resumed = resume(run)
        alone = train(TrainOptions(cache_path, batch_size=3, epochs=4, lr=0.03, threads=1, seed=seed))
        assert [row.train_loss for row in resumed.rows] == pytest.approx(
            [row.train_loss for row in alone.rows], abs=1e-5
        )


def test_a_network_that_diverges_ends_alone(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Warned(Progress):
        heard: tuple[str, ...] = ()

        def warn(self, text: str) -> None:
            self.heard += (text,)

    real = StackedModelNet.forward

    def spoilt(self: StackedModelNet, images: torch.Tensor) -> torch.Tensor:
        factor = torch.tensor([1.0, float("nan"), 1.0])[:, None, None]
        return real(self, images) * factor.to(images.device)

    monkeypatch.setattr(StackedModelNet, "forward", spoilt)
    heard = Warned()
    result = train_many(TrainOptions(cache_path, batch_size=4, epochs=2, threads=1), [0, 1, 2], heard)
    assert [len(rows) for rows in result.rows] == [2, 0, 2]
    assert len(heard.heard) == 1 and "photos-modelnet-002" in heard.heard[0]


def test_what_many_networks_cannot_do_is_refused_before_anything_is_made(cache_path: Path) -> None:
    wrong = {
        "--opt adamw": TrainOptions(cache_path, opt="adamw"),
        "--sched plateau": TrainOptions(cache_path, sched="plateau"),
    }
    for shown, options in wrong.items():
        with pytest.raises(OptionsError, match=f"not with {shown}"):
            train_many(options, [0, 1])
    with pytest.raises(OptionsError, match="all different"):
        train_many(TrainOptions(cache_path), [1, 1])
    assert not Path("runs").exists()


def test_seeds_are_ranges_and_lists() -> None:
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("3,5, 8-9") == [3, 5, 8, 9]
    for wrong in ("", "a", "3-1", "-1", "0-5000"):
        with pytest.raises(ValueError, match="seeds"):
            parse_seeds(wrong)


def test_the_command_prints_a_table_and_a_sentence(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    ended = run_cli(
        *("train", "--cache", cache_path, "--seeds", "0-2", "--batch-size", "2", "--epochs", "60", "--lr", "0.05"),
        *("--threads", "1", "--name", "s"),
    )
    assert ended.code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert lines[-1] == "curves: runs/s-seed-0/seeds.png"
    assert (tmp_path / "runs/s-seed-0/seeds.png").read_bytes()[:4] == b"\x89PNG"
    assert lines[-3].startswith("converged in ") and lines[-3].endswith(" of 3 starts")
    table = [line.split() for line in lines[-8:-4]]
    assert table[0] == ["seed", "train_loss", "train_acc", "run"]
    assert [row[0] for row in table[1:]] == ["0", "1", "2"] and table[3][-1] == "s-seed-2"
    low = sum(float(row[1]) < 0.5 * 0.6931 for row in table[1:])
    assert lines[-3] == f"converged in {low} of 3 starts"

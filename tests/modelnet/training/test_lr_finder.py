"""Find a learning rate (lr_finder.py, commands/lr_find.py): each loss is that of a run with the rate."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torchvision.models.shufflenetv2 import ShuffleNetV2

from cli import cli
from modelnet import TrainOptions, train
from modelnet.training.lr_finder import RATES, RateCurve, find_learning_rate
from pipeline.errors import OutputError
from tests.support.listener import Listener

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"opt": "adamw", "smoothing": 0.1, "augment": "flip,color", "val_fraction": 0.3},
        {"accumulate": 2, "zero_grad": "never", "clip_grad": 0.01, "shuffle": False},
    ],
)
def test_each_loss_is_that_of_a_run_with_the_rate(wanted: dict[str, Any], cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=3, seed=2, data_seed=3, threads=1, **wanted)
    tried: list[tuple[int, int]] = []
    rates = (0.003, 0.03, 0.1)
    curve = find_learning_rate(options, rates, done=lambda done, total: tried.append((done, total)))
    assert tried == [(1, 3), (2, 3), (3, 3)]
    assert not Path("runs").exists()
    for rate, loss in zip(rates, curve.losses, strict=True):
        run = train(TrainOptions(cache_path, batch_size=3, epochs=3, seed=2, data_seed=3, threads=1, lr=rate, **wanted))
        assert run.rows[-1].train_loss == loss


@pytest.mark.parametrize("preload", [False, True])
def test_a_last_layer_alone_is_tried_on_the_features_of_its_run(
    preload: bool, cache_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: dict[str, Any] = {
        "model": "shufflenet_v2_x0_5",
        "weights": weights,
        "freeze": "all-but-head",
        "preload": preload,
    }
    options = TrainOptions(cache_path, batch_size=4, epochs=2, threads=1, device="cpu", **frozen)
    rates, heard, passes, real = (0.01, 0.1), Listener(), list[int](), ShuffleNetV2.forward

    def counted(self: ShuffleNetV2, images: torch.Tensor) -> torch.Tensor:
        passes.append(len(images))
        logits: torch.Tensor = real(self, images)
        return logits

    monkeypatch.setattr(ShuffleNetV2, "forward", counted)

    curve = find_learning_rate(options, rates, heard)

    assert not Path("runs").exists() and sum(passes) < 3 * 8 + 2  # each image once, and those that are tried
    assert any(note.startswith("the frozen layers run once") for note in heard.notes)
    assert any("are in the memory of cpu" in note for note in heard.notes) == preload
    for rate, loss in zip(rates, curve.losses, strict=True):
        assert train(replace(options, lr=rate)).rows[-1].train_loss == loss


@pytest.mark.long
def test_what_is_suggested_learns_what_the_default_does_not(cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=4, epochs=25, threads=1)
    curve = find_learning_rate(options)
    assert curve.suggestion is not None
    suggested = curve.losses[RATES.index(curve.suggestion)]
    assert suggested < train(options).rows[-1].train_loss - 0.1


def test_the_rate_below_the_lowest_loss_is_suggested_if_it_learnt() -> None:
    curve = RateCurve(1, (1.0, 2.0, 4.0), [0.6, 0.5, math.inf], 0.7)
    assert curve.suggestion == 1
    assert str(curve).splitlines()[-2:] == [
        "lowest: 0.5000 at 2; a longer run is safer a step below. Try: --lr 1",
        "one training a rate: with another --seed, a neighbouring rate may be the lowest",
    ]
    brink = RateCurve(1, (1.0, 2.0, 4.0), [0.699, 0.5, 0.8], 0.7)
    assert brink.suggestion == 2
    assert str(brink).splitlines()[-2] == "lowest: 0.5000 at 2. Try: --lr 2"
    assert RateCurve(1, (1.0, 2.0), [0.5, 0.6], 0.7).suggestion == 1


def test_rates_that_diverge_are_not_suggested(cache_path: Path) -> None:
    curve = find_learning_rate(TrainOptions(cache_path, batch_size=2, epochs=3, threads=1), (0.001, 1e12))
    assert math.isfinite(curve.losses[0]) and curve.losses[1] == math.inf
    assert curve.blind == pytest.approx(math.log(2))
    diverged = RateCurve(1, (1.0, 2.0), [math.inf, math.inf], 0.7)
    assert diverged.suggestion is None and str(diverged).endswith("every rate diverged")


def test_nothing_is_suggested_where_no_network_has_learnt_anything() -> None:
    curve = RateCurve(2, (1.0, 2.0), [0.6999, 0.71], 0.7)
    assert curve.suggestion is None
    assert str(curve).endswith("none is better than guessing (0.7000) after 2 epochs. Give more --epochs")


def test_the_rates_are_round_numbers_about_a_third_of_a_decade_apart() -> None:
    assert RATES[:4] == (0.0001, 0.0002, 0.0005, 0.001) and RATES[-1] == 1
    assert all(1.9 < b / a < 2.6 for a, b in pairwise(RATES))


def test_the_command_draws_a_picture_and_says_what_to_type(cache_path: Path, tmp_path: Path) -> None:
    words = ["lr-find", "--cache", str(cache_path), "--batch-size", "4", "--threads", "1", "--epochs", "3"]
    ended = CliRunner().invoke(cli, words)
    curve = find_learning_rate(TrainOptions(cache_path, batch_size=4, epochs=3, threads=1))
    assert (ended.exit_code, ended.stderr) == (0, "")
    *lines, picture = ended.stdout.splitlines()
    table, said = lines[: 1 + len(RATES)], lines[1 + len(RATES) :]
    assert [line.split() for line in table] == [
        ["learning", "rate", "loss", "of", "epoch", "3"],
        *([f"{rate:g}", f"{loss:.4f}"] for rate, loss in zip(curve.rates, curve.losses, strict=True)),
    ]
    assert said == str(curve).splitlines()[1 + len(RATES) :] and f"Try: --lr {curve.suggestion:g}" in said[0]
    assert picture == "picture: runs/photos-modelnet-lr.png"
    assert (tmp_path / "runs/photos-modelnet-lr.png").read_bytes()[:4] == b"\x89PNG"


def test_idle_options_and_an_unwritable_picture_are_reported(cache_path: Path, tmp_path: Path) -> None:
    words = ["lr-find", "--cache", str(cache_path), "--threads", "1", "--epochs", "1", "--crop-scale", "0.5"]
    ended = CliRunner().invoke(cli, words)
    assert ended.stderr == "warning: --crop-scale 0.5 changes nothing without --augment crop\n"
    (tmp_path / "file").write_bytes(b"")
    refused = CliRunner().invoke(cli, [*words, "--out", "file/x.png"])
    assert isinstance(refused.exception, OutputError) and refused.stdout == ""

"""What an epoch waits for (modelnet/training/speed.py): measured, not guessed."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions, train
from modelnet.data.batches import Batches
from modelnet.training.speed import measure_speed
from modelnet.training.step import TrainingStep

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "one_thread", "no_pictures")


def slowed(monkeypatch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    real = getattr(kind, name)

    def slow(self: Any, *arguments: Any) -> Any:
        time.sleep(0.02)
        return real(self, *arguments)

    monkeypatch.setattr(kind, name, slow)


def test_slow_steps_are_what_an_epoch_waits_for(uint8_cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slowed(monkeypatch, TrainingStep, "__call__")
    speed = measure_speed(TrainOptions(uint8_cache_path, batch_size=4), seconds=0.1)

    assert (speed.images, speed.waits_for) == (8, "the network")
    assert 0 < speed.training < 4 / 0.02 and speed.computing < 4 / 0.02 < speed.reading
    assert speed.epoch_s == 8 / speed.training
    assert any("--batch-size" in advice for advice in speed.advice)
    assert str(speed).startswith("an epoch of 8 images takes about ") and "it waits for the network" in str(speed)


@pytest.mark.parametrize(("warning", "is_advised"), [("", True), ("no instructions for bfloat16", False)])
def test_half_precision_is_advised_where_the_processor_has_it(
    warning: str, is_advised: bool, uint8_cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slowed(monkeypatch, TrainingStep, "__call__")
    monkeypatch.setattr("modelnet.training.speed.precision_warning", lambda *_: warning)
    options = TrainOptions(uint8_cache_path, batch_size=4, model="shufflenet_v2_x0_5", device="cpu")

    advice = measure_speed(options, seconds=0.01).advice

    assert ("--amp: half precision may be faster here" in advice) is is_advised


def test_slow_reading_is_what_an_epoch_waits_for(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Batches.epoch

    def slow(self: Batches, *arguments: Any) -> Any:
        for batch in real(self, *arguments):
            time.sleep(0.05)
            yield batch

    monkeypatch.setattr(Batches, "epoch", slow)
    speed = measure_speed(TrainOptions(cache_path, batch_size=4), seconds=0.2)

    assert speed.waits_for == "data" and speed.reading < 4 / 0.05
    assert any("build-cache --dtype uint8" in advice for advice in speed.advice)


def test_nothing_is_written(uint8_cache_path: Path, tmp_path: Path) -> None:
    measure_speed(TrainOptions(uint8_cache_path), seconds=0.01)

    assert list(tmp_path.iterdir()) == []


def test_a_last_layer_alone_is_measured_on_its_features_where_they_are(
    cache_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = TrainOptions(
        cache_path, model="shufflenet_v2_x0_5", weights=weights, freeze="all-but-head", epochs=1, device="cpu"
    )

    without = measure_speed(options, seconds=0.05)

    assert without.once and "train runs the frozen layers once for each image" in str(without)
    assert not Path("data").exists()
    run = train(options).run
    kept = {path: path.stat().st_mtime_ns for path in Path("data/features").iterdir()}
    found = measure_speed(options, seconds=0.05)
    assert not found.once and "once" not in str(found) and found.computing > 10 * without.computing
    assert {path: path.stat().st_mtime_ns for path in Path("data/features").iterdir()} == kept
    monkeypatch.chdir(run.parent)
    elsewhere = replace(options, weights=Path("..") / weights)
    assert not measure_speed(elsewhere, seconds=0.01, run=Path(run.name)).once
    for speed in (without, found):
        assert not any("build-features" in advice for advice in speed.advice)

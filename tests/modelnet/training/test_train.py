"""Runs that go on with other options than they began with (`history`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions, compare_runs, resume, train
from tests.support.listener import Listener

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")


def config_of(run: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((run / "config.json").read_text())
    return config


def test_a_cosine_with_more_epochs_is_said_recorded_and_no_repetition(cache_path: Path) -> None:
    options = {"val": cache_path, "batch_size": 4, "sched": "cosine"}
    run = train(TrainOptions(cache_path, epochs=6, **options)).run  # type: ignore[arg-type]
    heard = Listener()
    resume(run, epochs=12, progress=heard)
    straight = train(TrainOptions(cache_path, epochs=12, **options)).run  # type: ignore[arg-type]

    assert any(
        "followed a cosine of 6 epochs, and now follows one of 12: it goes from 6.8e-05 to 0.002" in note
        and "No single command repeats this run" in note
        for note in heard.notes
    ), heard.notes
    config = config_of(run)
    assert config["command"] is None and config["options"]["epochs"] == 12
    assert [(part["epoch"], part["options"]["epochs"]) for part in config["parts"]] == [(0, 6), (6, 12)]
    comparison = compare_runs([run, straight])
    assert comparison.differs["epochs"] == ["6, from epoch 7 on 12", "12"]
    resume(run)
    assert config_of(run)["command"] is None and config_of(run)["parts"] == config["parts"]


def test_more_epochs_at_a_constant_rate_are_repeated_by_one_command(cache_path: Path) -> None:
    options = {"val": cache_path, "batch_size": 4, "sched": "step", "decay_epochs": 2, "warmup_epochs": 1}
    run = train(TrainOptions(cache_path, epochs=2, **options)).run  # type: ignore[arg-type]
    heard = Listener()
    rows = resume(run, epochs=3, progress=heard).rows
    straight = train(TrainOptions(cache_path, epochs=3, **options))  # type: ignore[arg-type]

    assert [row.train_loss for row in rows] == [row.train_loss for row in straight.rows]
    assert config_of(run)["command"] == config_of(straight.run)["command"]
    assert [part["options"]["epochs"] for part in config_of(run)["parts"]] == [2, 3]
    assert not any("learning rate followed" in note for note in heard.notes)


def test_a_run_that_goes_on_as_it_began_has_no_parts(cache_path: Path) -> None:
    run = train(TrainOptions(cache_path, epochs=1)).run
    resume(run)
    assert "parts" not in config_of(run)

"""What TensorBoard reads of a run is what metrics.csv holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from modelnet import TrainOptions, resume, train, train_many
from modelnet.runs.folder import RunFolder
from pipeline.errors import OptionsError, StorageError

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def read(run: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def metrics(run: Path) -> dict[str, list[Any]]:
    columns = {"loss/train": "train_loss", "accuracy/train": "train_acc", "learning rate": "lr"}
    columns |= {"loss/val": "val_loss", "accuracy/val": "val_acc"}
    rows = RunFolder(run).read_metrics()
    values = {tag: [(row.epoch, getattr(row, column)) for row in rows] for tag, column in columns.items()}
    return {tag: pairs for tag, pairs in values.items() if pairs[0][1] is not None}


def same(run: Path) -> bool:
    """Whether both say the same, as far as TensorBoard's float32 can."""
    stored = {tag: [(epoch, float(np.float32(x))) for epoch, x in pairs] for tag, pairs in metrics(run).items()}
    return read(run) == stored


def options(cache: Path, **others: Any) -> TrainOptions:
    return TrainOptions(cache, epochs=3, batch_size=4, threads=1, device="cpu", tensorboard=True, **others)


def test_tensorboard_shows_every_epoch_and_a_resumed_run_goes_on(cache_path: Path) -> None:
    run = train(options(cache_path, val=cache_path, sched="cosine")).run
    assert same(run) and len(read(run)["loss/val"]) == 3
    resume(run, epochs=5)
    assert same(run) and [epoch for epoch, _ in read(run)["learning rate"]] == [1, 2, 3, 4, 5]


def test_epochs_that_are_trained_again_are_shown_once(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(options(cache_path)).run
    (run / "checkpoints/previous.pt").replace(run / "checkpoints/last.pt")  # as if killed before the last was saved
    resume(run, epochs=4)
    assert same(run) and len(read(run)["loss/train"]) == 4


def test_each_network_of_a_group_has_its_own(cache_path: Path) -> None:
    runs = train_many(options(cache_path), [0, 1]).runs
    assert all(same(run) for run in runs) and read(runs[0]) != read(runs[1])


def test_without_the_option_there_is_no_such_folder(cache_path: Path) -> None:
    assert not (train(replace(options(cache_path), tensorboard=False)).run / "tensorboard").exists()


def test_where_the_package_is_missing_it_is_said_what_to_type(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelnet.training.tensorboard.find_spec", lambda name: None)
    with pytest.raises(OptionsError, match=r"type: pip install '\.\[tensorboard\]'"):
        train(options(cache_path))
    assert not Path("runs").exists()


def test_what_cannot_be_written_is_an_error(cache_path: Path) -> None:
    run = train(replace(options(cache_path), tensorboard=False)).run
    (run / "tensorboard").write_bytes(b"in the way")
    config = RunFolder(run).read_config()
    RunFolder(run).write_config(config | {"options": config["options"] | {"tensorboard": True}})
    with pytest.raises(StorageError, match="the run cannot be written"):
        resume(run, epochs=4)

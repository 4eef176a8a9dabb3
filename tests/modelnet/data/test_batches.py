"""Batches on the device, and readers that die."""

import multiprocessing
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet.data.batches import Batches
from modelnet.data.mixup import Mixing, mix_images
from modelnet.data.workers import death_of_a_worker, worker_deaths
from pipeline import TensorCache
from pipeline.errors import CacheDamaged, CacheError, StorageError, WorkerDied
from pipeline.load.augment import Augmentation
from pipeline.system.processes import usable_cores

CPU = torch.device("cpu")

# Torch tells of a dead worker by raising in a signal handler, wherever Python is; in a finalizer that is only printed.
torch_tells_anywhere = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def test_an_epoch_can_begin_at_any_batch(cache_path: Path) -> None:
    batches = Batches(TensorCache(cache_path), CPU, batch_size=3, shuffle=True, seed=4)
    whole = list(batches.epoch(2))
    assert [len(batch.labels) for batch in whole] == [3, 3, 2]
    for start in range(4):
        rest = list(batches.epoch(2, start))
        assert len(rest) == 3 - start
        for batch, expected in zip(rest, whole[start:], strict=True):
            assert torch.equal(batch.images, expected.images) and torch.equal(batch.labels, expected.labels)
            assert torch.equal(batch.rows, expected.rows) and batch.size == expected.size == len(batch.labels)


def test_an_epoch_that_begins_late_reads_nothing_before(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(cache_path)
    batches = Batches(cache, CPU, batch_size=3, shuffle=True, seed=4)
    read: list[int] = []
    real = cache.read

    def remember(rows: torch.Tensor, *augmentation: Any) -> torch.Tensor:
        read.extend(rows.tolist())
        return real(rows, *augmentation)

    monkeypatch.setattr(cache, "read", remember)

    list(batches.epoch(2, start=2))

    assert read == batches.rows(2, 2).tolist()


def test_a_batch_knows_the_names_of_its_images(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    batches = Batches(cache, CPU, batch_size=3, shuffle=True, seed=1)
    for step, (images, labels, *_) in enumerate(batches.epoch(5)):
        for image, label, name in zip(images, labels.tolist(), batches.names(5, step), strict=True):
            class_id, file = name.split("/")
            assert int(class_id) == cache.class_ids[label]
            assert torch.equal(cache[file][int(class_id)], image)


def test_the_waiting_time_counts_reading_and_not_the_work_on_a_batch(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TensorCache(cache_path)
    read = cache.read

    def slow_read(rows: torch.Tensor, *augmentation: Any) -> torch.Tensor:
        time.sleep(0.05)
        return read(rows, *augmentation)

    monkeypatch.setattr(cache, "read", slow_read)
    batches = Batches(cache, CPU, batch_size=4)
    for _ in batches.epoch(0):
        time.sleep(0.2)
    assert 0.05 <= batches.waited < 0.3, "two reads of 0.05 s, of which the second may be done beside the 0.2 s"


@torch_tells_anywhere
@pytest.mark.parametrize("fatal", [signal.SIGKILL, signal.SIGSEGV])
def test_a_worker_that_is_killed_is_noticed_within_ten_seconds(cache_path: Path, fatal: signal.Signals) -> None:
    batches = Batches(TensorCache(cache_path), CPU, batch_size=1, workers=1)
    began = time.perf_counter()
    with pytest.raises(WorkerDied, match="a loader worker died") as caught, worker_deaths(cache_path):
        for epoch in range(10**6):
            for _ in batches.epoch(epoch):
                if epoch == 1:
                    worker = batches.loader._iterator._workers[0]  # type: ignore[union-attr]
                    os.kill(worker.pid, fatal)
    assert time.perf_counter() - began < 10
    assert caught.value.exit_code == 71
    assert caught.value.path == cache_path


@torch_tells_anywhere
def test_a_cache_cut_short_under_a_worker_is_no_lack_of_shared_memory(cache_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    path.write_bytes(cache_path.read_bytes())
    batches = Batches(TensorCache(path), CPU, batch_size=1, workers=1)
    reading = batches.epoch(0)
    next(reading)
    with pytest.raises(StorageError, match="the cache was changed or its disk failed") as caught, worker_deaths(path):
        os.truncate(path, 4096)
        list(reading)
    assert caught.value.exit_code == 74


def test_a_cache_cut_short_before_an_epoch_is_noticed_before_workers_start(cache_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    path.write_bytes(cache_path.read_bytes())
    batches = Batches(TensorCache(path), CPU, batch_size=1, workers=1)
    os.truncate(path, 4096)
    with pytest.raises(CacheError, match=r"damaged|truncated") as caught:
        list(batches.epoch(0))
    assert caught.value.exit_code == 65
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_row_is_named_by_whichever_process_finds_it(cache_path: Path, tmp_path: Path, workers: int) -> None:
    path = tmp_path / "c.h5"
    data = bytearray(cache_path.read_bytes())
    row = TensorCache(cache_path).images[5].numpy().tobytes()
    data[data.index(row) + 100] ^= 1
    path.write_bytes(data)
    batches = Batches(TensorCache(path), CPU, batch_size=2, workers=workers)
    with pytest.raises(CacheDamaged, match=r"n01740131_300.JPEG"):
        list(batches.epoch(0))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 12) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid(s) 12, 13) exited unexpectedly"),
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
    ],
)
def test_all_that_torch_raises_for_a_dead_worker_means_the_same(error: Exception, cache_path: Path) -> None:
    assert isinstance(death_of_a_worker(error, cache_path), WorkerDied)


def test_other_errors_are_left_alone(cache_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"), worker_deaths(cache_path):
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.skipif(usable_cores() == 1, reason="there is no core beside the steps")
def test_images_are_augmented_and_mixed_beside_the_steps(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(cache_path)
    threads: set[tuple[str, str]] = set()
    real_read, real_mix = Augmentation.read, mix_images

    def read(*given: Any) -> None:
        threads.add(("augment", threading.current_thread().name.partition("_")[0]))
        real_read(*given)

    def mix(*given: Any) -> torch.Tensor:
        threads.add(("mix", threading.current_thread().name.partition("_")[0]))
        return real_mix(*given)

    monkeypatch.setattr(Augmentation, "read", read)
    monkeypatch.setattr("modelnet.data.batches.mix_images", mix)
    augment, mixing = Augmentation(("flip", "crop"), 0, cache.recipe), Mixing(("mixup",), 0, 1.0, 1.0)

    assert len(list(Batches(cache, CPU, 4, augment=augment, mixing=mixing).epoch(0))) == 2
    assert threads == {("augment", "read-beside"), ("mix", "read-beside")}


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_preloaded_images_are_augmented_as_those_that_are_read(
    dtype: str, cache_path: Path, uint8_cache_path: Path
) -> None:
    cache = TensorCache(cache_path if dtype == "float32" else uint8_cache_path)
    augment = Augmentation(("flip", "crop", "color"), 0, cache.recipe, crop_size=(48, 40))
    rows = torch.tensor([6, 1, 3, 2, 7])
    read, held = (Batches(cache, CPU, 2, True, rows=rows, augment=augment) for _ in range(2))
    held.preload()

    for one, other in zip(read.epoch(1), held.epoch(1), strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.labels, other.labels)
        assert torch.equal(one.rows, other.rows) and one.images.shape[1:] == (3, 48, 40)

"""Check the order of reading, copying and steps (prefetch.py, pipeline/load/batch_memory.py)."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from modelnet.data.batches import Batches
from modelnet.data.prefetch import Lane, read_ahead, read_beside
from pipeline import TensorCache
from pipeline.errors import CacheDamaged


class Mark:
    """What has happened when a step is computed; whoever waits for it is written down."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def synchronize(self) -> None:
        self.notes.append(f"waited for {self.name}")


class Notes(Lane):
    """Copies nothing; writes down what it is asked for."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.marks = 0

    def send(self, batch: Any) -> tuple[list[Tensor], Any]:
        self.notes.append(f"sent {int(batch[0])}")
        return list(batch), f"arrival of {int(batch[0])}"

    def receive(self, batch: Any, arrived: Any) -> None:
        self.notes.append(arrived)

    def mark(self) -> Any:
        self.marks += 1
        return Mark(f"step {self.marks - 1}", self.notes)


def numbers(count: int) -> Iterator[list[Tensor]]:
    return iter([[torch.tensor(i)] for i in range(count)])


def test_all_batches_come_in_order() -> None:
    for count in (0, 1, 2, 7):
        assert [int(batch[0]) for batch in read_ahead(numbers(count), Notes())] == list(range(count))


def test_only_the_next_batch_is_sent_while_a_step_runs() -> None:
    lane, sent_by = Notes(), []
    for i, _ in enumerate(read_ahead(numbers(6), lane)):
        until = time.monotonic() + 5
        while f"sent {i + 1}" not in lane.notes and i < 5 and time.monotonic() < until:
            time.sleep(0.001)  # a step that computes: meanwhile the thread sends the next one
        sent_by.append(sum(note.startswith("sent") for note in lane.notes))
    assert sent_by == [2, 3, 4, 5, 6, 6]


def test_a_batch_is_read_when_the_step_before_the_last_has_ended() -> None:
    lane = Notes()
    list(read_ahead(numbers(4), lane))
    order = [note for note in lane.notes if not note.startswith("arrival")]
    assert order[:6] == ["sent 0", "sent 1", "waited for step 0", "sent 2", "waited for step 1", "sent 3"]


def test_a_batch_is_handed_over_when_its_copy_was_waited_for() -> None:
    lane = Notes()
    for i, _ in enumerate(read_ahead(numbers(4), lane)):
        assert f"arrival of {i}" in lane.notes and f"arrival of {i + 1}" not in lane.notes


def test_an_error_of_the_reading_thread_is_raised_at_the_next_batch() -> None:
    def broken() -> Iterator[list[Tensor]]:
        yield [torch.tensor(0)]
        raise CacheDamaged("the cache is damaged", "c.h5", "row 1")

    batches = read_ahead(broken(), Notes())
    assert int(next(batches)[0]) == 0
    with pytest.raises(CacheDamaged, match="row 1"):
        next(batches)


def test_no_thread_outlives_an_epoch_that_is_left_early() -> None:
    before = threading.active_count()
    batches = read_ahead(numbers(9), Notes())
    next(batches)
    assert threading.active_count() == before + 1
    del batches
    assert threading.active_count() == before


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_gpu_gets_the_batches_of_the_cpu_to_the_bit(
    cache_path: Path, uint8_cache_path: Path, dtype: str, workers: int
) -> None:
    path = cache_path if dtype == "float32" else uint8_cache_path
    near, far = (
        Batches(TensorCache(path), torch.device(name), batch_size=3, shuffle=True, seed=4, workers=workers)
        for name in ("cpu", "cuda")
    )
    for epoch in range(3):
        kept = list(far.epoch(epoch))  # also of batches whose memory has gone round
        for (images, labels, *_), (expected, their_labels, *_) in zip(kept, near.epoch(epoch), strict=True):
            assert images.is_cuda and torch.equal(images.cpu(), expected) and torch.equal(labels.cpu(), their_labels)


def test_batches_are_read_beside_in_order_by_another_thread_one_ahead() -> None:
    readers, read, used = set(), [], []

    def batches() -> Iterator[list[torch.Tensor]]:
        for number in range(5):
            readers.add(threading.get_ident())
            read.append(number)
            yield [torch.tensor(number)]

    for batch in read_beside(batches()):
        used.append(int(batch[0]))
        assert len(read) <= len(used) + 1

    assert used == list(range(5))
    assert threading.get_ident() not in readers
    assert not any(thread.name.startswith("read-beside") for thread in threading.enumerate())


def test_what_fails_beside_is_raised_where_the_batch_was_asked_for() -> None:
    def broken() -> Iterator[list[torch.Tensor]]:
        yield [torch.tensor(0)]
        raise ValueError("no more")

    beside = read_beside(broken())
    next(beside)
    with pytest.raises(ValueError, match="no more"):
        next(beside)

"""Batches on their way to the network, read by a thread while a step runs; to a GPU, copied beside it on a stream."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor

from pipeline.load.batch_memory import send

Item = TypeVar("Item")


class Lane:
    """A CUDA stream that batches are copied on.

    Args:
        device: a CUDA device, where they go.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)

    def send(self, batch: Sequence[Tensor]) -> tuple[list[Tensor], Any]:
        """Begin to copy a batch; return it and the CUDA event of its arrival."""
        with torch.cuda.stream(self.stream):
            return [send(tensor, self.device) for tensor in batch], self.stream.record_event()

    def receive(self, batch: Sequence[Tensor], arrived: Any) -> None:
        """Make all that the caller computes from here on wait for a batch that was sent."""
        stream = torch.cuda.current_stream(self.device)
        stream.wait_event(arrived)
        for tensor in batch:
            tensor.record_stream(stream)  # its memory belongs to the lane, and is used here

    def mark(self) -> Any:
        """Return the CUDA event after all work that the caller has queued until now."""
        event = torch.cuda.Event(blocking=True)
        torch.cuda.current_stream(self.device).record_event(event)
        return event


def read_ahead(batches: Iterator[Sequence[Tensor]], lane: Lane) -> Iterator[list[Tensor]]:
    """Yield batches on the lane's device, each read and copied while the step of the one before it runs.

    The device holds two batches at a time, the one in use and the next: a batch is read when the step before the one
    that is running has ended, however far the processor is ahead in asking for steps.

    Args:
        batches: on the CPU; advanced by another thread, whose exceptions are raised here.
        lane: to the device.
    """

    def fetch(used: Any) -> tuple[list[Tensor], Any] | None:
        if used is not None:
            used.synchronize()
        batch = next(batches, None)
        return None if batch is None else lane.send(batch)

    used = None
    with ThreadPoolExecutor(1, "read-ahead") as thread:
        ahead = thread.submit(fetch, None)
        while (sent := ahead.result()) is not None:
            ahead = thread.submit(fetch, used)
            lane.receive(*sent)
            yield sent[0]
            used = lane.mark()


def read_beside(batches: Iterator[Item]) -> Iterator[Item]:
    """Yield batches, each made by another thread while the step of the one before it runs.

    Worth it where the step leaves a core free. Beside a step of as many threads as there are cores it costs more than
    it saves: PyTorch's threads wait for each other by spinning.
    """
    with ThreadPoolExecutor(1, "read-beside") as thread:
        ahead = thread.submit(next, batches, None)
        while (batch := ahead.result()) is not None:
            ahead = thread.submit(next, batches, None)
            yield batch

"""Torch samplers of a batch plan: the positions of an epoch one by one, or a rank's part of each batch."""

import math
from collections import deque
from collections.abc import Iterator
from itertools import islice

import torch
from torch import Tensor
from torch.utils.data import Sampler

from pipeline.load.batch_plan import EPOCH, BatchPlan
from pipeline.load.cache import TensorCache
from pipeline.text import ShownAsText, counted


class EpochSampler(ShownAsText, Sampler[int]):
    """Yields positions in a dataset, 0..M-1, in the order of a plan.

    Each `iter` is the next epoch, from 0, whole, as soon as its first position is asked for: trainers make iterators
    that they never use. `set_epoch(n, start)` says which epoch comes next, and from where on. `begun` is the epoch that
    was asked for last, and its start.

    Args:
        plan: the rows that the dataset has, and their order.
        cache: what the rows are of; those that are not in memory are read ahead. None: nothing is.
        tells_epoch: add the epoch × `EPOCH` to each position, for a dataset that augments.

    Raises:
        IndexError: rows that the cache does not have.
    """

    _READ_AHEAD = 64 * 2**20  # bytes: enough requests to keep a disk busy, little memory
    _AT_ONCE = 4096  # positions converted to Python integers at a time, so that the first batch comes early
    _LOOKED_AT = 64  # sampled rows that show whether an epoch's rows are in memory

    def __init__(self, plan: BatchPlan, cache: TensorCache | None = None, tells_epoch: bool = False) -> None:
        low, high = torch.aminmax(plan.rows) if len(plan.rows) else (0, 0)
        if cache is not None and len(plan.rows) and not 0 <= low <= high < cache.num_images:
            raise IndexError(f"rows {int(low)} to {int(high)} of a cache of {cache.num_images} images")
        self.plan = plan
        self.cache = cache
        self.tells_epoch = tells_epoch
        self.epoch = 0
        self.start = 0
        self.begun = 0, 0

    def set_epoch(self, epoch: int, start: int | None = None) -> None:
        """Make `epoch` the next one, without the first `start` positions of its order.

        Without `start`, the next epoch keeps its own: trainers announce an epoch that they resume in its middle.
        """
        self.start = start if start is not None else self.start if epoch == self.epoch else 0
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        yield from self.read_ahead(self.next_positions())

    def next_positions(self) -> Tensor:
        """Return the int64 positions of the next epoch, from its start on, and go on to the epoch after it."""
        positions = self.plan.positions(self.epoch)[self.start :]
        if self.tells_epoch:
            positions = positions + self.epoch * EPOCH
        self.begun = self.epoch, self.start
        self.epoch, self.start = self.epoch + 1, 0
        return positions

    def read_ahead(self, positions: Tensor) -> Iterator[int]:
        """Yield int64 positions one by one; rows that are not in memory are read a few ahead."""
        sample = self.plan.rows[positions[:: max(1, len(positions) // self._LOOKED_AT)] % EPOCH]
        if self.cache is None or self.cache.in_memory(sample):
            return (position for chunk in positions.split(self._AT_ONCE) for position in chunk.tolist())
        return self._read_ahead(positions, self.cache)

    def __repr__(self) -> str:
        plan, order = self.plan, f"shuffled with seed {self.plan.seed}" if self.plan.shuffle else "in plain order"
        part = f", rank {plan.rank} of {plan.ranks}" if plan.ranks > 1 else ""
        batches = f"{counted(len(plan), 'batch', 'batches')} of {plan.batch_size}"
        return f"EpochSampler({counted(len(self), 'row')} {order}, {batches}{part}, next epoch {self.epoch})"

    def __len__(self) -> int:
        """Count the rows of a whole epoch."""
        return len(self.plan.rows)

    def _read_ahead(self, positions: Tensor, cache: TensorCache) -> Iterator[int]:
        """Yield positions; the system reads the next few rows from the disk meanwhile."""
        row_bytes = math.prod(cache.row_shape) * cache.stored_dtype.itemsize
        coming = iter(positions.split(max(1, self._READ_AHEAD // row_bytes // 4)))
        announced: deque[Tensor] = deque()
        while True:
            for chunk in islice(coming, 4 - len(announced)):
                cache.will_need(self.plan.rows[chunk % EPOCH])
                announced.append(chunk)
            if not announced:
                return
            yield from announced.popleft().tolist()


class RankBatchSampler(Sampler[list[int]]):
    """Yields this rank's part of each batch of a plan, which may be empty.

    Args:
        sampler: of the plan.
    """

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[list[int]]:
        positions, lengths = self.sampler.plan.own_batches(self.sampler.next_positions())
        own = self.sampler.read_ahead(positions)  # other ranks read the other parts
        for length in lengths:
            yield list(islice(own, length))

    def __len__(self) -> int:
        """Count the batches of a whole epoch."""
        return len(self.sampler.plan)

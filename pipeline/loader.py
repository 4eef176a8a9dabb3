"""Batches from a cache: a Dataset that gathers whole batches, and the DataLoader around it."""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import index
from typing import Any, cast

import numpy as np
import torch
import xxhash
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from pipeline.cache import TensorCache

Sample = tuple[Tensor, int]
Batch = tuple[Tensor, Tensor]


class CacheDataset(Dataset[Sample]):
    """The images of a cache as a map-style dataset: index -> ((3, S, S) float32 normalized, label 0..C-1).

    Works in anybody's DataLoader, with torch's own collate, any number of workers and any start method.

    Args:
        cache: whose images.
        stored: give images as they are stored; pixels are left to `pipeline.normalize.normalize`, on a GPU, say.
        pinned: read them into page-locked memory, which a GPU copies from; only with `stored`.
    """

    def __init__(self, cache: TensorCache, stored: bool = False, pinned: bool = False) -> None:
        self.cache = cache
        self.stored = stored
        self.pinned = pinned

    def __len__(self) -> int:
        return self.cache.num_images

    def __getitem__(self, row: int) -> Sample:
        return next(iter(self.__getitems__([index(row)])))

    def __getitems__(self, rows: Sequence[int]) -> "Samples":
        """Gather a whole batch at once; torch's DataLoader asks for this where a dataset has it.

        Raises:
            IndexError: a row that is not there; negative ones count from the end.
            CacheDamaged: a row is not what was written.
        """
        count = self.cache.num_images
        numbers = [index(row) for row in rows]
        if numbers and not -count <= min(numbers) <= max(numbers) < count:
            raise IndexError(f"rows {min(numbers)} to {max(numbers)} of a cache of {count} images")
        chosen = torch.from_numpy(np.array(numbers, np.int64) % count)
        if get_worker_info() is not None and not self.cache.in_memory(chosen):
            self.cache.will_need(chosen)  # the sampler has told the system, but not what this process is to leave out
        if not self.stored:
            return Samples(*self.cache.read_batch(chosen))
        out = None
        if self.pinned:  # torch uses the memory of a batch again when nobody holds it and it has been copied
            shape = len(chosen), *self.cache.row_shape
            out = torch.empty(shape, dtype=self.cache.stored_dtype, pin_memory=True)
        return Samples(self.cache.read_stored(chosen, out), self.cache.labels[chosen])


class Samples(Sequence[Sample]):
    """The samples of a batch that is one in memory, each made when it is asked for: `collate` asks for none.

    Attributes:
        images: (B, 3, S, S) float32, or as stored.
        labels: (B,) int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return list(self)[place]
        return self.images[place], int(self.labels[place])

    def __iter__(self) -> Iterator[Sample]:
        return zip(self.images.unbind(0), self.labels.tolist(), strict=True)

    def __len__(self) -> int:
        return len(self.images)


def collate(samples: Sequence[Sample]) -> Batch:
    """Return (images, labels) without copying where the batch is whole already, else as torch does."""
    if isinstance(samples, Samples):
        return samples.images, samples.labels
    return cast(Batch, tuple(default_collate(list(samples))))


class EpochSampler(Sampler[int]):
    """Row numbers in an order that follows from (seed, epoch) alone.

    Each `iter` is the next epoch, from 0, whole; `set_epoch(n, start)` says which comes next, and from where on.

    Args:
        rows: (M,) int64, the rows to go through, or N for all of 0..N-1.
        shuffle: random order; else as in `rows`.
        seed: of the order.
        cache: what the rows are of; those that are not in memory are read ahead. None: nothing is.

    Raises:
        ValueError: rows that are no list of integers; a mask, say.
    """

    _READ_AHEAD = 64 * 2**20  # bytes: enough requests at once for a disk, little of anybody's memory
    _AT_ONCE = 4096  # rows that become Python's numbers: the first batch does not wait for the last
    _LOOKED_AT = 64  # rows, chosen by the order, that say whether an epoch's are in memory

    def __init__(self, rows: int | Tensor, shuffle: bool, seed: int, cache: TensorCache | None = None) -> None:
        self.rows = rows if isinstance(rows, Tensor) else torch.arange(index(rows))
        if self.rows.dim() != 1 or (self.rows.dtype != torch.int64 and len(self.rows)):
            raise ValueError(f"rows are (M,) int64, not {tuple(self.rows.shape)} {self.rows.dtype}")
        self.count = len(self.rows)
        self.shuffle = shuffle
        self.seed = seed
        self.cache = cache
        self.epoch = 0
        self.start = 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Make `epoch` the next one, without the first `start` rows of its order."""
        self.epoch = epoch
        self.start = start

    def order(self, epoch: int) -> Tensor:
        """Return the (M,) int64 rows of an epoch."""
        if not self.shuffle:
            return self.rows
        return self.rows[torch.randperm(self.count, generator=seeded_generator(self.seed, epoch))]

    def __iter__(self) -> Iterator[int]:
        return self.read_ahead(self.next_order())

    def next_order(self) -> Tensor:
        """Return the int64 rows of the epoch that is next, from its start on, and go on to the one behind it."""
        order = self.order(self.epoch)[self.start :]
        self.epoch, self.start = self.epoch + 1, 0
        return order

    def read_ahead(self, order: Tensor) -> Iterator[int]:
        """Yield rows, (M,) int64, one by one; of a cache that is not in memory, the next few are read meanwhile."""
        if self.cache is None or self.cache.in_memory(order[:: max(1, len(order) // self._LOOKED_AT)]):
            return (row for rows in order.split(self._AT_ONCE) for row in rows.tolist())
        return self._read_ahead(order, self.cache)

    def __len__(self) -> int:
        """Rows of a whole epoch."""
        return self.count

    def _read_ahead(self, order: Tensor, cache: TensorCache) -> Iterator[int]:
        """Yield the rows of an order; the system reads the next few from the disk meanwhile."""
        row_bytes = math.prod(cache.row_shape) * cache.stored_dtype.itemsize
        coming = iter(order.split(max(1, self._READ_AHEAD // row_bytes // 4)))
        waiting: deque[Tensor] = deque()
        while True:
            for rows in islice(coming, 4 - len(waiting)):
                cache.will_need(rows)
                waiting.append(rows)
            if not waiting:
                return
            yield from waiting.popleft().tolist()


class PartsOfBatches(Sampler[list[int]]):
    """Batches that are divided among processes, of which this one takes a part: batch by batch, and perhaps none.

    Args:
        sampler: the rows of all.
        batch_size: B, of the whole batches.
        drop_last: leave out the last, shorter batch.
        part: which part, of how many; they are as even as it goes, the first ones longer.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, drop_last: bool, part: tuple[int, int]) -> None:
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.part = part

    def __iter__(self) -> Iterator[list[int]]:
        number, count = self.part
        order = self.sampler.next_order()
        whole = len(order) // self.batch_size
        order_KB, rest = order[: whole * self.batch_size].view(whole, self.batch_size), order[whole * self.batch_size :]
        parts = [order_KB.tensor_split(count, 1)[number].flatten()]
        lengths = [len(parts[0]) // whole] * whole if whole else []
        if len(rest) and not self.drop_last:
            parts.append(rest.tensor_split(count)[number])
            lengths.append(len(parts[1]))
        rows = self.sampler.read_ahead(torch.cat(parts))  # what others take, others read
        for length in lengths:
            yield list(islice(rows, length))

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


class CacheLoader(DataLoader[Sample]):
    """A DataLoader that looks before each epoch whether somebody has written to the cache: before workers are started.

    (torch asks a sampler for its first rows when they run, and leaves them behind if it raises.)
    """

    dataset: CacheDataset

    def __iter__(self) -> Any:
        self.dataset.cache.look_again()
        return super().__iter__()


def seeded_generator(*key: int) -> torch.Generator:
    """Return a CPU generator whose numbers follow from a tuple of integers, unlike those of neighbouring tuples."""
    digest = xxhash.xxh3_64_intdigest(repr(tuple(map(index, key))).encode())
    return torch.Generator().manual_seed(digest >> 1)


def make_loader(
    cache: TensorCache,
    batch_size: int = 8,
    shuffle: bool = True,
    seed: int = 0,
    workers: int = 0,
    drop_last: bool = False,
    pin_memory: bool | None = None,
    rows: Tensor | None = None,
    stored: bool = False,
    part: tuple[int, int] = (0, 1),
    **options: Any,
) -> DataLoader[Sample]:
    """Return a torch DataLoader of (images (B, 3, S, S) float32 normalized, labels (B,) int64).

    With 0 workers whole batches are gathered in this process; that is the fastest for a cache that is in memory,
    since a worker's batch has to be copied once more.

    Args:
        cache: what to read.
        batch_size: B.
        shuffle: each epoch in a new order, which follows from (seed, epoch); else in the order of the rows.
        seed: of the order.
        workers: processes that read.
        drop_last: leave out the last, shorter batch.
        pin_memory: copy batches into page-locked memory; None where CUDA is there.
        rows: (M,) int64, the part of the cache that is read; None for all of it.
        stored: give images as they are stored, those of a uint8 cache as uint8: a quarter of the bytes on the way to a
            GPU, where `pipeline.normalize.normalize` makes of them what the network sees, to the bit.
        part: (rank, ranks): each batch of B is divided among so many processes, and this one reads its part of it.
        options: passed on to the DataLoader (`multiprocessing_context`, `persistent_workers`, ...).
    """
    if pin_memory is None:
        pin_memory = torch.cuda.is_available()
    pinned = stored and pin_memory and workers == 0  # at once; else torch copies the batch there
    sampler = EpochSampler(cache.num_images if rows is None else torch.as_tensor(rows), shuffle, index(seed), cache)
    if part[1] > 1:
        options |= {"batch_sampler": PartsOfBatches(sampler, batch_size, drop_last, part)}
    else:
        options |= {"batch_size": batch_size, "sampler": sampler, "drop_last": drop_last}
    return CacheLoader(
        CacheDataset(cache, stored, pinned),
        num_workers=workers,
        collate_fn=collate,
        pin_memory=pin_memory and not pinned,
        generator=torch.Generator().manual_seed(0),  # workers' base seed: leaves torch's global one alone
        **options,
    )

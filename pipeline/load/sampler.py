"""The order of an epoch, which follows from (seed, epoch) alone: a torch Sampler, and its parts for several ranks."""

import math
from collections import deque
from collections.abc import Iterator
from itertools import islice
from operator import index

import torch
import xxhash
from torch import Tensor
from torch.utils.data import Sampler

from pipeline.load.cache import TensorCache


class EpochSampler(Sampler[int]):
    """Places in a dataset, 0..M-1, in an order that follows from (seed, epoch) alone.

    Each `iter` is the next epoch, from 0, whole, as soon as its first place is asked for: trainers make iterators that
    they never use. `set_epoch(n, start)` says which comes next, and from where on.

    Args:
        rows: (M,) int64, the rows that the dataset has in these places, or N for all of 0..N-1.
        shuffle: random order; else as in `rows`.
        seed: of the order.
        cache: what the rows are of; those that are not in memory are read ahead. None: nothing is.

    Raises:
        ValueError: rows that are no list of integers; a mask, say.
        IndexError: rows that the cache has not.
    """

    _READ_AHEAD = 64 * 2**20  # bytes: enough requests at once for a disk, little of anybody's memory
    _AT_ONCE = 4096  # rows that become Python's numbers: the first batch does not wait for the last
    _LOOKED_AT = 64  # rows, chosen by the order, that say whether an epoch's are in memory

    def __init__(self, rows: int | Tensor, shuffle: bool, seed: int, cache: TensorCache | None = None) -> None:
        self.rows = rows if isinstance(rows, Tensor) else torch.arange(index(rows), device="cpu")
        if self.rows.dim() != 1 or (self.rows.dtype != torch.int64 and len(self.rows)):
            raise ValueError(f"rows are (M,) int64, not {tuple(self.rows.shape)} {self.rows.dtype}")
        low, high = torch.aminmax(self.rows) if len(self.rows) else (0, 0)
        if cache is not None and len(self.rows) and not 0 <= low <= high < cache.num_images:
            raise IndexError(f"rows {int(low)} to {int(high)} of a cache of {cache.num_images} images")
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
        return self.rows[self._places(epoch)] if self.shuffle else self.rows

    def _places(self, epoch: int) -> Tensor:
        if not self.shuffle:
            return torch.arange(self.count, device="cpu")
        return torch.randperm(self.count, generator=seeded_generator(self.seed, epoch), device="cpu")

    def __iter__(self) -> Iterator[int]:
        yield from self.read_ahead(self.next_places())

    def next_places(self) -> Tensor:
        """Return the int64 places of the epoch that is next, from its start on, and go on to the one behind it."""
        places = self._places(self.epoch)[self.start :]
        self.epoch, self.start = self.epoch + 1, 0
        return places

    def read_ahead(self, places: Tensor) -> Iterator[int]:
        """Yield places, int64, one by one; of a cache that is not in memory, the next few rows are read meanwhile."""
        looked_at = self.rows[places[:: max(1, len(places) // self._LOOKED_AT)]]
        if self.cache is None or self.cache.in_memory(looked_at):
            return (place for some in places.split(self._AT_ONCE) for place in some.tolist())
        return self._read_ahead(places, self.cache)

    def __len__(self) -> int:
        """Rows of a whole epoch."""
        return self.count

    def _read_ahead(self, places: Tensor, cache: TensorCache) -> Iterator[int]:
        """Yield the places of an order; the system reads the next few rows from the disk meanwhile."""
        row_bytes = math.prod(cache.row_shape) * cache.stored_dtype.itemsize
        coming = iter(places.split(max(1, self._READ_AHEAD // row_bytes // 4)))
        waiting: deque[Tensor] = deque()
        while True:
            for some in islice(coming, 4 - len(waiting)):
                cache.will_need(self.rows[some])
                waiting.append(some)
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
        places = self.sampler.next_places()
        whole = len(places) // self.batch_size
        places_KB = places[: whole * self.batch_size].view(whole, self.batch_size)
        rest = places[whole * self.batch_size :]
        parts = [places_KB.tensor_split(count, 1)[number].flatten()]
        lengths = [len(parts[0]) // whole] * whole if whole else []
        if len(rest) and not self.drop_last:
            parts.append(rest.tensor_split(count)[number])
            lengths.append(len(parts[1]))
        own = self.sampler.read_ahead(torch.cat(parts))  # what others take, others read
        for length in lengths:
            yield list(islice(own, length))

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)


def seeded_generator(*key: int) -> torch.Generator:
    """Return a CPU generator whose numbers follow from a tuple of integers, unlike those of neighbouring tuples."""
    digest = xxhash.xxh3_64_intdigest(repr(tuple(map(index, key))).encode())
    return torch.Generator("cpu").manual_seed(digest >> 1)

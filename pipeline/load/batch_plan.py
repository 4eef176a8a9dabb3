"""The plan of an epoch: which rows each batch has, in which order, and which of them a rank reads."""

from collections.abc import Sequence
from operator import index

import torch
from torch import Tensor

from pipeline.load.random import seeded_generator

EPOCH = 2**40  # a position of a later epoch is so much larger, where a dataset has to know the epoch


class BatchPlan:
    """Says which rows each batch of each epoch has. Everything follows from the arguments: it has no state.

    Args:
        rows: (M,) int64, the rows of the cache that are used, or N for all of 0..N-1.
        batch_size: B, of whole batches; the last one of an epoch may be shorter.
        shuffle: a random order for each epoch; else the order of `rows`.
        seed: of the random order.
        drop_last: leave out a last, shorter batch.
        part: (rank, ranks): the batches are divided among so many processes.

    Raises:
        ValueError: rows that are no list of integers, such as a mask; an impossible part.
    """

    def __init__(
        self,
        rows: int | Tensor,
        batch_size: int = 1,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.rows = rows if isinstance(rows, Tensor) else torch.arange(index(rows), device="cpu")
        if self.rows.dim() != 1 or (self.rows.dtype != torch.int64 and len(self.rows)):
            raise ValueError(f"rows are (M,) int64, not {tuple(self.rows.shape)} {self.rows.dtype}")
        self.rank, self.ranks = part
        if not 0 <= self.rank < self.ranks:
            raise ValueError(f"part is (rank, ranks) with 0 <= rank < ranks, not {part}")
        self.batch_size = index(batch_size)
        self.shuffle = shuffle
        self.seed = index(seed)
        self.drop_last = drop_last

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        whole, rest = divmod(len(self.rows), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    @property
    def images(self) -> int:
        """Images of an epoch."""
        return min(len(self) * self.batch_size, len(self.rows))

    def size(self, batch: int, batches: int = 1) -> int:
        """Count the images of `batches` batches from `batch` on, over all ranks."""
        return min((batch + batches) * self.batch_size, self.images) - batch * self.batch_size

    def positions(self, epoch: int) -> Tensor:
        """Return (M,) int64, the positions in `rows` in the order of an epoch."""
        if not self.shuffle:
            return torch.arange(len(self.rows), device="cpu")
        return torch.randperm(len(self.rows), generator=seeded_generator(self.seed, epoch), device="cpu")

    def order(self, epoch: int) -> Tensor:
        """Return (M,) int64, the rows in the order of an epoch."""
        return self.rows[self.positions(epoch)] if self.shuffle else self.rows

    def batch(self, ordered_M: Tensor, batch: int) -> Tensor:
        """Return the values of a batch, of all ranks, from values in the order of an epoch."""
        return ordered_M[batch * self.batch_size :][: self.size(batch)]

    def own(self, values_B: Tensor, rank: int | None = None) -> Tensor:
        """Return this rank's part of a batch; first parts may be one longer, last parts may be empty."""
        return values_B.tensor_split(self.ranks)[self.rank if rank is None else rank]

    def own_batches(self, ordered: Tensor, rank: int | None = None) -> tuple[Tensor, Sequence[int]]:
        """Return this rank's part of every batch: the values one after the other, and their number in each batch.

        Args:
            ordered: values in the order of an epoch, from the start of any batch to the end.
            rank: another rank, whose part is meant.
        """
        rank = self.rank if rank is None else rank
        whole, rest = divmod(len(ordered), self.batch_size)
        batches_KB = ordered[: whole * self.batch_size].view(whole, self.batch_size)
        parts = [batches_KB.tensor_split(self.ranks, 1)[rank].flatten()]
        lengths = [len(parts[0]) // whole] * whole if whole else []
        if rest and not self.drop_last:
            parts.append(self.own(ordered[whole * self.batch_size :], rank))
            lengths.append(len(parts[1]))
        return torch.cat(parts), lengths

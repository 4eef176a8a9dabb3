"""A map-style dataset over a cache, and its collate function."""

from collections import UserList
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import index
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, default_collate, get_worker_info

from pipeline.load.augment import Augmentation
from pipeline.load.batch_plan import EPOCH
from pipeline.load.cache import TensorCache

Sample = tuple[Tensor, int]


Batch = tuple[Tensor, Tensor]


Rows = Sequence[int] | NDArray[np.integer[Any]] | Tensor


class CacheDataset(Dataset[Sample]):
    """Presents a cache as a map-style dataset: index -> (image (3, H, W) float32, normalized; label 0..C-1).

    It works in any DataLoader, with any number of workers and any start method. Pass `collate_fn=collate`: torch's own
    function gives the same tensors, but copies each batch into new memory, which costs more than reading it.

    A list, an array or a slice of rows gives a batch, ((B, 3, H, W), (B,) int64), as in a `TensorDataset`.

    Args:
        cache: the cache to read.
        stored: give images as stored, to be normalized later by `pipeline.normalize`, for example on a GPU.
        pinned: read into page-locked memory, for a GPU; only with `stored`.
        rows: (M,) int64, the rows that form the dataset; None means all.
        augment: changes the images on the way; index + epoch × 2**40 gives an image as a later epoch sees it.

    Raises:
        TypeError: `cache` is not a TensorCache.
    """

    def __init__(
        self,
        cache: TensorCache,
        stored: bool = False,
        pinned: bool = False,
        rows: Tensor | None = None,
        augment: Augmentation | None = None,
    ) -> None:
        if not isinstance(cache, TensorCache):
            raise TypeError(f"a TensorCache is needed, not a {type(cache).__name__}: TensorCache(path) opens one")
        self.cache = cache
        self.stored = stored
        self.pinned = pinned
        self.rows = rows
        self.augment = augment

    def __len__(self) -> int:
        return self.cache.num_images if self.rows is None else len(self.rows)

    def __repr__(self) -> str:
        part = "" if self.rows is None else f", {len(self.rows)} of them"
        return f"CacheDataset({self.cache!r}{part}{', as stored' * self.stored})"

    @overload
    def __getitem__(self, row: int) -> Sample: ...
    @overload
    def __getitem__(self, row: slice | list[int] | NDArray[Any] | Tensor) -> Sample | Batch: ...
    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            row = list(range(*row.indices(len(self))))
        if isinstance(row, list) or (isinstance(row, Tensor | np.ndarray) and row.ndim):
            whole = self._gather(row)
            return whole.images, whole.labels
        return self._gather([row])[0]

    def __getitems__(self, rows: Rows) -> "list[Sample] | Samples":
        """Read a whole batch at once. torch's DataLoader calls this if a dataset has it.

        Raises:
            IndexError: a row does not exist; negative rows count from the end.
            TypeError: `rows` are not integers, but a mask, for example.
            ValueError: a batch of several epochs.
            CacheDamaged: a row does not match its hash.
        """
        if type(self).__getitem__ is not CacheDataset.__getitem__:  # a subclass may define another sample
            return [self[row] for row in rows]
        return self._gather(rows)

    def _gather(self, rows: Rows) -> "Samples":
        count = len(self)
        wanted = rows.tolist() if isinstance(rows, Tensor | np.ndarray) else rows
        numbers = [index(row) for row in wanted]
        if numbers and type(wanted[0]) is bool:
            raise TypeError("rows are integers, and a mask is none: mask.nonzero().flatten() gives its rows")
        epoch = max(0, *numbers) // EPOCH if numbers and self.augment is not None else 0
        if epoch > 0:
            numbers = [number - epoch * EPOCH for number in numbers]
            if min(numbers) < 0:
                raise ValueError("a batch has images of several epochs: they cannot be augmented together")
        if numbers and not -count <= min(numbers) <= max(numbers) < count:
            where = "a cache" if self.rows is None else "a part of a cache,"
            raise IndexError(f"rows {min(numbers)} to {max(numbers)} of {where} of {count} images")
        chosen = torch.from_numpy(np.array(numbers, np.int64) % count)
        if self.rows is not None:
            chosen = self.rows[chosen]
        if get_worker_info() is not None and not self.cache.in_memory(chosen):
            self.cache.will_need(chosen)  # also turns off read-ahead in this process
        if not self.stored:
            return Samples(*self.cache.read_batch(chosen, self.augment, epoch))
        out = None
        if self.pinned:  # torch reuses the memory of a batch after it was copied and released
            shape = len(chosen), *self.cache.row_shape
            out = torch.empty(shape, dtype=self.cache.stored_dtype, device="cpu", pin_memory=True)
        return Samples(self.cache.read_stored(chosen, out), self.cache.labels_of(chosen))


class Samples(UserList[Sample]):
    """Holds the samples of a batch, and the batch as a whole; the list is made only when somebody reads it.

    Attributes:
        images: (B, 3, H, W) float32, or as stored.
        labels: (B,) int64.
    """

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = images
        self.labels = labels

    @cached_property
    def data(self) -> list[Sample]:  # type: ignore[override]  # a UserList's is there from the start
        """The list of samples. The caller may change it, so the batch as a whole is not used any more."""
        return list(zip(self.images.unbind(0), self.labels.tolist(), strict=True))

    @property
    def are_whole(self) -> bool:
        """Say whether the batch as a whole is still valid, because nobody has read the list."""
        return "data" not in self.__dict__

    def __getitem__(self, place: Any) -> Any:
        return self.data[place]

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.data)

    def __len__(self) -> int:
        return len(self.images) if self.are_whole else len(self.data)

    def __add__(self, others: Any) -> Any:
        return self.data + list(others)

    def __radd__(self, others: Any) -> Any:
        return list(others) + self.data

    def copy(self) -> Any:
        """Return them as a list."""
        return self.data.copy()

    __copy__ = copy


def collate(samples: Sequence[Sample]) -> Batch:
    """Return (images, labels): without a copy if the samples are a whole batch, otherwise as torch does."""
    if isinstance(samples, Samples) and samples.are_whole:
        return samples.images, samples.labels
    return cast(Batch, tuple(default_collate(list(samples))))

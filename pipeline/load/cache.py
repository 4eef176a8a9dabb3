"""Read a finished cache as tensors, through a memory map: no lock, no handle, no HDF5 call while reading."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import CacheDamaged, CacheStale, PipelineError
from pipeline.format.classes import ClassId
from pipeline.format.features import Features
from pipeline.format.header import advice_for_rows
from pipeline.format.reader import CacheReader, row_hash
from pipeline.format.sharded import Paths, Reader, ShardedReader, open_reader
from pipeline.format.tables import Failed
from pipeline.load.augment import Augmentation
from pipeline.load.batch_memory import BatchMemory
from pipeline.load.kernels import gather_rows
from pipeline.load.normalize import normalize_rows
from pipeline.load.threads import in_parts
from pipeline.recipe import Recipe
from pipeline.text import ShownAsText, counted

Verify = Literal["first", "always", "off"]


class TensorCache(ShownAsText, Mapping[str, Mapping[ClassId, Tensor]]):
    """Reads a cache. `cache[file_name][class_id]` is a checked, normalized copy, (3, H, W) float32.

    Opening checks the header and the tables; each row is checked when it is read. A cache can be pickled, forked and
    sent to spawned workers. Only its path and fingerprint are sent.

    Shards are read as one cache, with the row order, labels and fingerprint of a single file.

    Args:
        path: the file; for shards, the name of the whole cache (`name.h5` for `name-00000-of-00064.h5`, ...), a
            pattern (`name-*.h5`), or a list of all files.
        verify: when to check the hash of a row: the "first" time that this process reads it, "always", or never
            ("off").

    Raises:
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError, WorkerDied: the cache cannot be
            opened.
        CacheMissing, CacheStale: shards are missing, or do not belong together.
        ValueError: `verify` has another value.
    """

    def __init__(self, path: Paths, *, verify: Verify = "first") -> None:
        if verify not in get_args(Verify):
            raise ValueError(f"verify is one of {', '.join(get_args(Verify))}, not {verify!r}")
        self.verify: Verify = verify
        self._open(open_reader(path, writable=True))

    def _open(self, reader: Reader) -> None:
        self.reader = reader
        self.path = reader.path
        self._rows = torch.from_numpy(reader.images)
        self._places = torch.from_numpy(reader.places) if isinstance(reader, ShardedReader) else None
        self._unchecked = np.full(reader.num_images, self.verify != "off")
        self._memory = BatchMemory()
        self._labels = reader.table("labels").astype(np.int64)
        self.row_shape = reader.row_shape  # (3, H, W), or (D,) of features
        self.stored_dtype = self._rows.dtype

    @property
    def images(self) -> Tensor:
        """(N, 3, H, W) as stored: a private memory map of the file, not checked.

        Raises:
            AttributeError: the cache consists of shards, so no single array has its rows; use `read_stored`.
        """
        if self._places is not None:
            raise AttributeError(f"{self.path} is a set of shards; read_stored(rows) reads any of its rows")
        return self._rows

    @property
    def num_images(self) -> int:
        """N, the number of images. `len(cache)` counts file names, which two classes may share."""
        return self.reader.num_images

    @property
    def recipe(self) -> Recipe:
        """How each image became a row."""
        return self.reader.recipe

    @property
    def features(self) -> Features | None:
        """Describes the rows of a cache of features; None for a cache of images."""
        return self.reader.features

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that identify sources, recipe, decoder and format version."""
        return self.reader.fingerprint

    @cached_property
    def labels(self) -> Tensor:
        """(N,) int64, the label of each row, 0..C-1; a copy."""
        return torch.from_numpy(self._labels.copy())

    @property
    def class_ids(self) -> list[ClassId]:
        """(C,) class ids by label: all integers, or all strings."""
        return list(self.reader.class_ids)

    @property
    def class_names(self) -> list[str]:
        """(C,) readable class names by label; an empty string where there is none."""
        return list(self.reader.class_names)

    @cached_property
    def filenames(self) -> Sequence[str]:
        """(N,) path of each row's image below its class folder."""
        return _Names(self.reader.table("filenames"))

    @property
    def failed(self) -> list[Failed]:
        """Files that could not be decoded when the cache was built."""
        return self.reader.failed

    @property
    def source_sha256(self) -> NDArray[np.uint8]:
        """(N, 32) uint8, the SHA-256 of each image file."""
        return self.reader.table("source_sha256")

    def read_batch(self, rows: Tensor, augment: Augmentation | None = None, epoch: int = 0) -> tuple[Tensor, Tensor]:
        """Read the images and labels of rows, as `read` does: (B, 3, H, W) float32 and (B,) int64."""
        return self.read(rows, augment, epoch), self.labels_of(rows)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels of existing rows, (B,) int64."""
        return torch.from_numpy(self._labels[rows.numpy()])

    def read(self, rows: Tensor, augment: Augmentation | None = None, epoch: int = 0) -> Tensor:
        """Read rows into a new tensor, checked and normalized.

        Args:
            rows: (B,) int64.
            augment: changes the images on the way, as it does in `epoch`.

        Returns:
            (B, 3, H, W) float32, owned by the caller; (B, D) for features.

        Raises:
            CacheDamaged: a row does not match its hash; the message names row, class and file.
            IndexError: a row does not exist.
            TypeError, ValueError: `rows` is not a tensor, or has another shape or dtype.
        """
        if augment is None and self.stored_dtype == torch.float32:
            return self.read_stored(rows)
        if self._has_unchecked(rows):
            self._check(rows)
        shape = self.row_shape if augment is None else (3, *augment.size)
        images_BCHW = self._memory.empty((len(rows), *shape), torch.float32)
        if augment is None:
            normalize_rows(self._rows, self._places_of(rows), self.recipe, images_BCHW)
        else:
            augment.read(self._rows, self._places_of(rows), epoch, rows, images_BCHW)
        return images_BCHW

    def read_stored(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Read rows as stored, checked: (B, 3, H, W) of the stored dtype; into `out` if it is given."""
        if out is None:
            out = self._memory.empty((len(rows), *self.row_shape), self.stored_dtype)
        if self._has_unchecked(rows):
            self._check(rows, out.numpy())
        else:
            gather_rows(self._rows, self._places_of(rows), out)
        return out

    def look_again(self) -> None:
        """Check every row again if the file was written to since it was opened. A loader calls this in each epoch.

        Raises:
            CacheStale, CacheDamaged: the path now holds another cache, or a damaged one.
            StorageError: the disk failed.
        """
        if self.reader.was_written_to():
            self._unchecked[:] = self.verify != "off"

    def in_memory(self, rows: Tensor) -> bool:
        """Say whether rows, (B,) int64, are in the page cache, as far as the system tells."""
        return self.reader.in_memory(rows.numpy())

    def will_need(self, rows: Tensor) -> None:
        """Ask the system to read rows, (B,) int64, from the disk, without waiting."""
        self.reader.will_need(rows.numpy())

    def _places_of(self, rows: Tensor) -> Tensor:
        """Return where rows lie in `_rows`: in a set elsewhere than their numbers say."""
        return rows if self._places is None else self._places.index_select(0, rows)

    def _has_unchecked(self, rows: Tensor) -> bool:
        if not isinstance(rows, Tensor):
            raise TypeError(f"rows are a tensor, (B,) int64, not {type(rows).__name__}: torch.as_tensor(rows)")
        wanted = rows.numpy()
        if rows.dtype != torch.int64 or rows.dim() != 1:  # they are used as addresses next
            raise ValueError(f"rows are (B,) int64, not {tuple(rows.shape)} {rows.dtype}")
        if wanted.view(np.uint64).max(initial=0) >= self.num_images:
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a cache of {self.num_images} images")
        return bool(np.count_nonzero(self._unchecked[wanted]))  # much faster than any()

    def _check(self, rows: Tensor, out: NDArray[Any] | None = None) -> None:
        """Check the rows' hashes; `verify` says whether that was enough for this process.

        Args:
            rows: (B,) int64.
            out: (B, 3, H, W) of the stored dtype, where the rows are copied to on the way: a row that has just been
                copied is hashed out of the processor's cache.

        Raises:
            CacheDamaged: as `read`.
        """
        wanted, places, images = rows.numpy(), self._places_of(rows).numpy(), self.reader.images
        hashes, good = self.reader.table("row_hash")[wanted], np.empty(len(wanted), bool)

        def check(start: int, end: int) -> None:
            for place in range(start, end):
                row = images[places[place]]
                if out is not None:
                    out[place] = row
                    row = out[place]
                good[place] = row_hash(row) == hashes[place]

        in_parts(check, len(wanted))
        if not good.all():
            wrong = int(wanted[good.argmin()])
            why = f"{self.reader.describe(wrong)} is not as it was written"
            advice = advice_for_rows("images" if self.features is None else "features")
            raise CacheDamaged("the cache is damaged", self.reader.path_of(wrong), why, advice)
        self._unchecked[wanted] = self.verify == "always"

    def rows_of(self, name: str) -> list[int]:
        """Return the rows of a file name, one for each class that has it, in the order of the labels."""
        try:
            key = os.fsencode(name)
        except UnicodeEncodeError:  # half of a surrogate pair: no file has such a name
            return []
        names, starts = self.reader.table("filenames"), self.reader.class_starts.tolist()
        if not key or len(key) > names.itemsize or key.endswith(b"\0"):
            return []
        rows = []
        for start, end in pairwise(starts):
            row = start + int(np.searchsorted(names[start:end], np.bytes_(key)))
            if row < end and names[row] == key:
                rows.append(row)
        return rows

    def __getitem__(self, name: str) -> Mapping[ClassId, Tensor]:
        if not isinstance(name, str):
            raise KeyError(f"{name!r} is no file name; CacheDataset(cache)[row] and cache.read(rows) go by numbers")
        if not (rows := self.rows_of(name)):
            raise KeyError(name)
        return _ByClass(self, rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.rows_of(name))

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(self.filenames))

    def __len__(self) -> int:
        return self._num_names

    @cached_property
    def _num_names(self) -> int:
        return len(np.unique(self.reader.table("filenames")))

    __eq__, __hash__ = object.__eq__, object.__hash__  # a Mapping's would compare every image

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.row_shape[-2:])) + ("" if self.features is None else " numbers each")
        images, classes = counted(self.num_images, "image"), counted(len(self.class_ids), "class", "classes")
        return f"TensorCache({str(self.path)!r}: {images}, {classes}, {shape})"

    def __getstate__(self) -> dict[str, Any]:
        files = self.reader.shards if isinstance(self.reader, ShardedReader) else [self.reader]
        return {
            "verify": self.verify,
            "files": [(file.path.absolute(), file.fingerprint, (os.getpid(), file.fd)) for file in files],
            "several": isinstance(self.reader, ShardedReader),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.verify = state["verify"]
        files = [_open_again(*file) for file in state["files"]]
        self._open(ShardedReader(files) if state["several"] else files[0])


def _open_again(path: Path, fingerprint: str, handle: tuple[int, int]) -> CacheReader:
    """Open the file that another process has open, in the state in which it has it.

    Where a rebuild has replaced the file since, the process that sent us still holds the old one, whole.
    """
    for place in (path, Path("/proc/{}/fd/{}".format(*handle))):
        with suppress(PipelineError):  # gone, or no such process here
            reader = CacheReader(place, writable=True)
            if reader.fingerprint == fingerprint:
                reader.path = path
                return reader
    raise CacheStale("the cache has changed", path, "it was replaced since it was opened", "Start again")


class _Names(Sequence[str]):
    """File names as text, decoded one by one."""

    def __init__(self, names: NDArray[np.bytes_]) -> None:
        self._names = names

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [os.fsdecode(name) for name in self._names[row].tolist()]
        return os.fsdecode(self._names[row])

    def __len__(self) -> int:
        return len(self._names)


class _ByClass(Mapping[ClassId, Tensor]):
    """The images of one file name, by class id, read when they are asked for."""

    def __init__(self, cache: TensorCache, rows: list[int]) -> None:
        self._cache = cache
        self._rows = {cache.class_ids[int(cache._labels[row])]: row for row in rows}

    def __getitem__(self, class_id: ClassId) -> Tensor:
        if class_id not in self._rows:
            raise KeyError(f"{class_id!r}: the image's class is {' and '.join(map(repr, self._rows))}")
        return self._cache.read(torch.tensor([self._rows[class_id]], device="cpu"))[0]

    def __iter__(self) -> Iterator[ClassId]:
        return iter(self._rows)

    def __contains__(self, class_id: object) -> bool:
        return class_id in self._rows  # a Mapping's would read the image

    def __len__(self) -> int:
        return len(self._rows)

    __eq__, __hash__ = object.__eq__, object.__hash__

    def __repr__(self) -> str:
        return f"images of classes {', '.join(map(repr, self._rows))}, read when they are asked for"

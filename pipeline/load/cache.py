"""TensorCache: a finished cache as PyTorch sees it. A memory map; no handle, no lock, no HDF5 call while reading."""

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
from pipeline.format.reader import CacheReader, row_hash
from pipeline.format.sharded import Paths, Reader, ShardedReader, open_reader
from pipeline.format.tables import Failed
from pipeline.load.batch_memory import BatchMemory
from pipeline.load.kernels import gather_rows
from pipeline.load.normalize import normalize_rows
from pipeline.load.threads import in_parts
from pipeline.recipe import Recipe

Verify = Literal["first", "always", "off"]


class TensorCache(Mapping[str, Mapping[ClassId, Tensor]]):
    """A cache of images: `cache[file name][class id]` is a checked, normalized (3, S, S) float32 tensor of its own.

    Opening checks header and tables; rows are checked when they are read. It can be pickled, forked and sent to
    spawned workers: only the path and what to expect there travel.

    A set of shards is read as the one cache that it makes together: rows in the order, labels and fingerprint that a
    single file would have.

    Args:
        path: a file that `build_cache` made; or the name of a set (`name.h5` for `name-00000-of-00064.h5` and so on),
            a pattern (`name-*.h5`), or a list of all its files.
        verify: check a row's hash the "first" time this process reads it, "always", or never ("off").

    Raises:
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError: it cannot be opened.
        CacheMissing, CacheStale: shards that are not all there, or not of one set.
        ValueError: another `verify`.
    """

    def __init__(self, path: Paths, *, verify: Verify = "first") -> None:
        if verify not in get_args(Verify):
            raise ValueError(f"verify is one of {', '.join(get_args(Verify))}, not {verify!r}")
        self.verify: Verify = verify
        self._open(open_reader(path))

    def _open(self, reader: Reader) -> None:
        self.reader = reader
        self.path = reader.path
        self._rows = torch.from_numpy(reader.images)
        self._places = torch.from_numpy(reader.places) if isinstance(reader, ShardedReader) else None
        self._unchecked = np.full(reader.num_images, self.verify != "off")
        self._memory = BatchMemory()
        self._labels = reader.table("labels").astype(np.int64)
        self.row_shape = reader.row_shape  # (3, S, S), or (D,) of features
        self.stored_dtype = self._rows.dtype

    @property
    def images(self) -> Tensor:
        """(N, 3, S, S) as stored, unchecked: a memory map of this process's own.

        Raises:
            AttributeError: the rows are in several files, and no array has them in their order; see `read_stored`.
        """
        if self._places is not None:
            raise AttributeError(f"{self.path} is a set of shards; read_stored(rows) reads any of its rows")
        return self._rows

    @property
    def num_images(self) -> int:
        """N, the number of images; `len(cache)` counts file names, of which two classes may share one."""
        return self.reader.num_images

    @property
    def recipe(self) -> Recipe:
        """How every image became a tensor."""
        return self.reader.recipe

    @property
    def features(self) -> Features | None:
        """What the rows are where they are no images, but what a network made of them; else None."""
        return self.reader.features

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that follow from sources, recipe, decoder and format version."""
        return self.reader.fingerprint

    @cached_property
    def labels(self) -> Tensor:
        """(N,) int64, the class position of each row, 0..C-1; a copy for the caller."""
        return torch.from_numpy(self._labels.copy())

    @property
    def class_ids(self) -> list[ClassId]:
        """(C,) class ids by label: integers where all are, else strings."""
        return list(self.reader.class_ids)

    @property
    def class_names(self) -> list[str]:
        """(C,) readable names by label, empty where there are none."""
        return list(self.reader.class_names)

    @cached_property
    def filenames(self) -> Sequence[str]:
        """(N,) path below the class folder, by row."""
        return _Names(self.reader.table("filenames"))

    @property
    def failed(self) -> list[Failed]:
        """Files that gave no image when the cache was built."""
        return self.reader.failed

    @property
    def source_sha256(self) -> NDArray[np.uint8]:
        """(N, 32) uint8, of each image file."""
        return self.reader.table("source_sha256")

    def read_batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Gather images and labels of rows: `read`, and (B,) int64."""
        images = self.read(rows)
        return images, self.labels_of(rows)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Return the labels of rows, (B,) int64; of rows that are there."""
        return torch.from_numpy(self._labels[rows.numpy()])

    def read(self, rows: Tensor) -> Tensor:
        """Gather rows into a new tensor, checked and normalized.

        Args:
            rows: (B,) int64.

        Returns:
            (B, 3, S, S) float32, owned by the caller; (B, D) of features.

        Raises:
            CacheDamaged: a row is not what was written; names row, class and file.
            IndexError: a row that is not there.
            TypeError, ValueError: rows that are no tensor, or of another shape or dtype.
        """
        if self.stored_dtype == torch.float32:
            return self.read_stored(rows)
        if self._has_unchecked(rows):
            self._check(rows)
        images_BCHW = self._memory.empty((len(rows), *self.row_shape), torch.float32)
        normalize_rows(self._rows, self._places_of(rows), self.recipe, images_BCHW)
        return images_BCHW

    def read_stored(self, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """Gather rows into a tensor of the stored dtype, checked: (B, 3, S, S); into `out` where there is one."""
        if out is None:
            out = self._memory.empty((len(rows), *self.row_shape), self.stored_dtype)
        if self._has_unchecked(rows):
            self._check(rows, out.numpy())
        else:
            gather_rows(self._rows, self._places_of(rows), out)
        return out

    def look_again(self) -> None:
        """Check every row anew, where somebody has written to the file since it was opened; a loader asks every epoch.

        Raises:
            CacheStale, CacheDamaged: what is there now is another cache, or no whole one.
        """
        if self.reader.was_written_to():
            self._unchecked[:] = self.verify != "off"

    def in_memory(self, rows: Tensor) -> bool:
        """Say whether rows, (B,) int64, are in the system's page cache, as far as it tells."""
        return self.reader.in_memory(rows.numpy())

    def will_need(self, rows: Tensor) -> None:
        """Have the system begin to read rows, (B,) int64, from the disk; this does not wait for them."""
        self.reader.will_need(rows.numpy())

    def _places_of(self, rows: Tensor) -> Tensor:
        """Return where rows lie in `_rows`: in a set elsewhere than their numbers say."""
        return rows if self._places is None else self._places.index_select(0, rows)

    def _has_unchecked(self, rows: Tensor) -> bool:
        if not isinstance(rows, Tensor):
            raise TypeError(f"rows are a tensor, (B,) int64, not {type(rows).__name__}: torch.as_tensor(rows)")
        wanted = rows.numpy()
        if rows.dtype != torch.int64 or rows.dim() != 1:  # they are addresses soon
            raise ValueError(f"rows are (B,) int64, not {tuple(rows.shape)} {rows.dtype}")
        if wanted.view(np.uint64).max(initial=0) >= self.num_images:
            raise IndexError(f"rows {wanted.min()} to {wanted.max()} of a cache of {self.num_images} images")
        return bool(np.count_nonzero(self._unchecked[wanted]))  # much faster than any()

    def _check(self, rows: Tensor, out: NDArray[Any] | None = None) -> None:
        """Check the rows' hashes; `verify` says whether that was enough for this process.

        Args:
            rows: (B,) int64.
            out: (B, 3, S, S) of the stored dtype, where the rows are copied to on the way: a row that has just been
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
            raise CacheDamaged("the cache is damaged", self.reader.path_of(wrong), why, _REBUILD)
        self._unchecked[wanted] = self.verify == "always"

    def rows_of(self, name: str) -> list[int]:
        """Return the rows of a file name, one a class that has it, in the order of the labels."""
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
        rows = self.rows_of(name) if isinstance(name, str) else []
        if not rows and not isinstance(name, str):
            raise KeyError(f"{name!r} is no file name; CacheDataset(cache)[row] and cache.read(rows) go by numbers")
        if not rows:
            raise KeyError(name)
        return _ByClass(self, rows)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.rows_of(name))

    def __iter__(self) -> Iterator[str]:
        seen: set[str] = set()
        for name in self.filenames:
            if name not in seen:
                seen.add(name)
                yield name

    def __len__(self) -> int:
        return self._num_names

    @cached_property
    def _num_names(self) -> int:
        return len(np.unique(self.reader.table("filenames")))

    __eq__, __hash__ = object.__eq__, object.__hash__  # a Mapping's would compare every image

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.row_shape[-2:])) + ("" if self.features is None else " numbers each")
        return f"TensorCache({str(self.path)!r}: {self.num_images} images, {len(self.class_ids)} classes, {shape})"

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
            reader = CacheReader(place)
            if reader.fingerprint == fingerprint:
                reader.path = path
                return reader
    raise CacheStale("the cache has changed", path, "it was replaced since it was opened", "Start again")


_REBUILD = "build-cache rebuilds just the damaged rows; verify lists them"


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

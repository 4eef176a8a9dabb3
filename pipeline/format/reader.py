"""Open a cache file: check header and tables, map everything. Needs neither torch nor the HDF5 library."""

import ctypes
import json
import mmap
import os
import sys
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import CacheDamaged, CacheStale, CacheUnsafe
from pipeline.format.checks import open_cache, read_header, reading_errors
from pipeline.format.classes import ClassId, class_ids_of, class_order
from pipeline.format.fingerprint import COVERED_TABLES, earlier_fingerprint
from pipeline.format.header import LATER_TABLES, OPEN_FLAG, SUPERBLOCK_VERSION, Extent, Header
from pipeline.format.tables import Failed, read_failure
from pipeline.system import files

_libc = ctypes.CDLL(None)
_MAP_NORESERVE = 0x4000  # Linux: a private map larger than memory is refused without it


class CacheReader:
    """The stored bytes of one cache, as NumPy views of a private memory map.

    Opening checks everything but the rows: magic, version, checksum, sizes, extents, the digest of all tables, and
    that the tables make sense together. Rows are checked one by one with `row_is_good`.

    Args:
        path: the file.
        writable: map it copy-on-write, so that the views can be written to, which torch asks of an array. The system
            counts such a map, and no other, against a limit of memory (`ulimit -d`).

    Attributes:
        recipe, features, decoder, fingerprint, num_images, row_shape, file_bytes: as the header has them.

    Raises:
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError, WorkerDied: see
            `pipeline.format.checks`.
    """

    def __init__(self, path: Path, writable: bool = False) -> None:
        self.path = path
        self.fd = open_cache(path)
        try:
            header = self.header = read_header(self.fd, path)
            self.recipe, self.features, self.decoder = header.recipe, header.features, header.decoder
            self.fingerprint, self.file_bytes = header.fingerprint, header.file_size
            self.num_images, self.row_shape = header.num_images, header.row_shape
            flags = mmap.MAP_PRIVATE | (_MAP_NORESERVE if os.uname().sysname == "Linux" else 0)
            access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
            with reading_errors(path):
                self.map = mmap.mmap(self.fd, header.file_size, flags, access)
                self._times = self._write_times()
                self._check_digest()
            self._check_tables()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Views of the map stay valid."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __del__(self) -> None:
        if getattr(self, "fd", -1) >= 0:
            self.close()

    @cached_property
    def images(self) -> NDArray[Any]:
        """(N, 3, H, W) float32 or uint8, as stored, unchecked; writing to it, if that is possible, changes no file."""
        return self._view(self.header.extents["images"])

    def table(self, name: str) -> NDArray[Any]:
        """Return a table as a view of the map, possibly unaligned; see `pipeline.format.header` for dtypes.

        A cache of an earlier version lacks two: then sizes are 0 and formats empty.
        """
        if name in LATER_TABLES and name not in self.header.extents:
            return np.zeros((self.num_images, 2), "<i4") if name == "source_size" else np.zeros(self.num_images, "S1")
        return self._view(self.header.extents[name])

    @cached_property
    def class_folders(self) -> list[bytes]:
        """(C,) class ids as bytes, by label."""
        return [bytes(folder) for folder in self.table("classes").tolist()]

    @cached_property
    def class_ids(self) -> list[ClassId]:
        """(C,) integers where all are, else strings, by label."""
        return class_ids_of(self.class_folders)

    @cached_property
    def class_names(self) -> list[str]:
        """(C,) readable names, empty where there are none."""
        return [name.decode("utf-8", "replace") for name in self.table("class_names").tolist()]

    @cached_property
    def class_starts(self) -> NDArray[np.int64]:
        """(C + 1,) the rows of class c are class_starts[c] up to class_starts[c + 1]."""
        return np.searchsorted(self.table("labels"), np.arange(len(self.class_folders) + 1)).astype(np.int64)

    @cached_property
    def failed(self) -> list[Failed]:
        """The files that gave no image when this cache was built."""
        return [read_failure(entry) for entry in self.table("failed").tolist()]

    @property
    def earlier(self) -> bool:
        """True where an earlier version made the file: a build would write another header."""
        return self.header.earlier is not None

    @cached_property
    def earlier_fingerprint(self) -> str:
        """The fingerprint that an earlier version gave to the same rows; see `fingerprint.earlier_fingerprint`."""
        if self.earlier:
            return self.fingerprint
        tables = {name: self.table(name) for name in COVERED_TABLES}
        return earlier_fingerprint(self.recipe, self.decoder, tables, self.failed, self.features)

    @cached_property
    def notes(self) -> list[tuple[int, str]]:
        """(row, note) of images that are tiny, blank or of several frames."""
        return [(entry["row"], entry["remark"]) for entry in map(json.loads, self.table("remarks").tolist())]

    def row_is_good(self, row: int) -> bool:
        """Check a row against its hash."""
        return bool(row_hash(self.images[row]) == self.table("row_hash")[row])

    def was_written_to(self) -> bool:
        """Tell whether the file was written to since it was opened, or since the last call.

        Builds never write to a cache: they replace it, and readers keep the old file. But `cp` and `rsync --inplace`
        write in place, and a map shows what they write.

        Raises:
            CacheStale: another cache is there now.
            CacheDamaged: no whole one is.
            StorageError: the disk failed.
        """
        with reading_errors(self.path):
            if self.fd < 0 or (times := self._write_times()) == self._times:
                return False
            if read_header(self.fd, self.path).encode() != self.header.encode():
                why = "another one was written over it while it was read"
                advice = "Start again; mv replaces a file that is in use"
                raise CacheStale("the cache has changed", self.path, why, advice)
            self._check_digest()
        self._times = times
        return True

    def _write_times(self) -> tuple[int, int]:
        found = os.fstat(self.fd)
        return found.st_size, found.st_mtime_ns

    def in_memory(self, rows: NDArray[np.int64]) -> bool:
        """Tell whether the first page of each row is in the page cache; True where the system does not tell."""
        if sys.platform != "linux":
            return True
        base, resident = np.frombuffer(self.map, np.uint8).ctypes.data, ctypes.c_ubyte()
        for row in rows.tolist():
            place = self._row_offset(row) // mmap.PAGESIZE * mmap.PAGESIZE
            failed = _libc.mincore(ctypes.c_void_p(base + place), ctypes.c_size_t(1), ctypes.byref(resident))
            if not failed and not resident.value & 1:
                return False
        return True

    def will_need(self, rows: NDArray[np.int64]) -> None:
        """Ask the system to read rows from the disk; do not wait for them."""
        read_no_more_than_asked(self.map)
        if hasattr(os, "posix_fadvise"):
            size = self.header.extents["images"].row_bytes
            for row in rows.tolist():
                with suppress(OSError):  # ignored advice costs only time
                    os.posix_fadvise(self.fd, self._row_offset(row), size, os.POSIX_FADV_WILLNEED)

    def _row_offset(self, row: int) -> int:
        images = self.header.extents["images"]
        return images.offset + row * images.row_bytes

    def path_of(self, _row: int) -> Path:
        """Return the path of the file that holds a row."""
        return self.path

    def describe(self, row: int) -> str:
        """Name a row for a person: "row 7 (class 2, a.jpg)"."""
        folder = self.class_folders[int(self.table("labels")[row])]
        name = os.fsdecode(self.table("filenames")[row])
        shown = f"row {row} (class {os.fsdecode(folder)}, {name})"
        return shown if shown.isprintable() else f"row {row} (class {os.fsdecode(folder)!r}, {name!r})"

    def _view(self, extent: Extent) -> NDArray[Any]:
        stored = np.ndarray(extent.stored_shape, np.dtype(extent.dtype), self.map, extent.offset)
        return stored[: extent.count]

    def _check_digest(self) -> None:
        if outside_digest(self.fd, self.header) != self.header.digest:
            why, advice = "its tables do not match their digest", f"Run {self.header.command} again"
            raise CacheDamaged("the cache is damaged", self.path, why, advice)

    def _check_tables(self) -> None:
        """Refuse tables that contradict each other: a digest shows accidents, not intentions."""
        labels, names, folders = self.table("labels"), self.table("filenames"), self.class_folders
        try:
            if len(labels) and not (labels[0] >= 0 and labels[-1] < len(folders) and (np.diff(labels) >= 0).all()):
                raise ValueError("labels are not in order")
            if not ((names[1:] > names[:-1]) | (labels[1:] > labels[:-1])).all() or b"" in folders:
                raise ValueError("names are not in order")
            if folders != class_order(folders) or len(set(folders)) != len(folders):
                raise ValueError("classes are not in order")
            if not all(map(_is_failure, self.failed)):
                raise ValueError("the table of failures is no such table")
            formats = self.table("source_format")
            known = sum(np.count_nonzero(formats == name.encode()) for name in self.decoder)
            if known != len(formats) or not {f.format for f in self.failed} <= {"", *self.decoder}:
                raise ValueError("there are images of formats without a decoder")
            if any(type(r) is not int or not 0 <= r < self.num_images or type(t) is not str for r, t in self.notes):
                raise ValueError("the table of remarks is no such table")
            alike = self.table("alike")
            if len(alike) and not 0 <= int(alike.min()) <= int(alike.max()) < self.num_images:
                raise ValueError("the table of images that look alike names others")
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            advice = f"Run {self.header.command} again"
            raise CacheUnsafe("not a cache that can be read", self.path, f"{error}", advice) from error


def _is_failure(failed: Failed) -> bool:
    texts = failed.name, failed.reason, failed.source_sha256, failed.format
    if type(failed.class_id) not in (int, str) or type(failed.transient) is not bool or {*map(type, texts)} != {str}:
        return False
    os.fsencode(str(failed.class_id)), os.fsencode(failed.name)  # ValueError: no name that a file can have
    return len(bytes.fromhex(failed.source_sha256)) in (0, 32)


def read_no_more_than_asked(of_file: mmap.mmap) -> None:
    """Ask the system to read no pages around a missing one: `will_need` says which rows come next.

    Some systems read megabytes around a page, which push out rows that were read ahead where memory is short.
    """
    if hasattr(mmap, "MADV_RANDOM"):
        of_file.madvise(mmap.MADV_RANDOM)


def row_hash(row: NDArray[Any]) -> int:
    """Return the xxh3-64 of a row's bytes."""
    return xxhash.xxh3_64_intdigest(row.reshape(-1).view(np.uint8).data)


def _without_open_flag(block: bytes, offset: int) -> bytes:
    """Clear the bit by which the HDF5 library says that a program has the file open for writing."""
    flag, version = OPEN_FLAG - offset, SUPERBLOCK_VERSION - offset
    if not 0 <= version < flag < len(block) or block[version] > 1:  # later superblocks have the flag elsewhere
        return block
    return block[:flag] + bytes([block[flag] & ~1]) + block[flag + 1 :]


def outside_digest(fd: int, header: Header) -> str:
    """Digest every byte outside header and images: from the header's end to the rows, and behind them.

    The HDF5 library sets a bit while a program has the file open for writing, whether or not it writes: it counts as 0.
    """
    digest = xxhash.xxh3_128()
    images = header.extents["images"]
    for start, end in ((header.encoded_size, images.offset), (images.end, header.file_size)):
        for offset in range(start, end, files.BLOCK):
            block = files.read_at(fd, min(files.BLOCK, end - offset), offset)
            digest.update(_without_open_flag(block, offset))
    return digest.hexdigest()

"""The bytes of a cache: the header in the user block, where everything lies, and the checks before it is believed.

`docs/format.md` describes the same in prose. Reading never calls the HDF5 library (see there why);
`pipeline.hdf5` writes through it.
"""

import errno
import json
import math
import os
import stat
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pipeline.errors import AccessDenied, CacheDamaged, CacheError, CacheMissing, CacheUnsafe, StorageError, WorkerDied
from pipeline.format.features import Features
from pipeline.recipe import Recipe
from pipeline.system import files

MAGIC = b"\x93MNCACHE"
VERSION = 1
USER_BLOCK = 4096
IMAGES_OFFSET = 8192
SIDE_FILES = (".lock", ".stat", ".stat.new", ".building", ".building.new", ".journal", ".journal.new")

_PREFIX = struct.Struct("<8sII")  # magic, format version, length of the JSON header
_CHECKSUM_BYTES = 16
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

# name, dtype (None: fixed-length bytes), trailing shape, what its count is
_TABLES: tuple[tuple[str, str | None, tuple[int, ...], str], ...] = (
    ("filenames", None, (), "images"),
    ("labels", "<i8", (), "images"),
    ("classes", None, (), "classes"),
    ("class_names", None, (), "classes"),
    ("row_hash", "<u8", (), "images"),
    ("source_sha256", "|u1", (32,), "images"),
    ("image_hash", "<u8", (), "images"),
    ("failed", None, (), "failed"),
    ("remarks", None, (), "remarks"),
    ("alike", "<i8", (2,), "alike"),
)
TABLE_NAMES = tuple(name for name, *_ in _TABLES)
MOST_SHARDS = 99_999  # five digits in a file's name


@dataclass(frozen=True)
class Shard:
    """Which part of a set a cache is.

    Attributes:
        index: 0..count-1.
        count: of the set.
        set: what its shards have in common, 32 hexadecimal digits; see `pipeline.shards.shards_id`.
    """

    index: int
    count: int
    set: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Shard":
        """Build from `to_dict`'s values.

        Raises:
            ValueError: no such values.
        """
        if not isinstance(values, dict) or set(values) != {"index", "count", "set"}:
            raise ValueError(f"a shard has index, count and set, not {values!r}")
        index, count, digits = values["index"], values["count"], values["set"]
        if type(index) is not int or type(count) is not int or not 0 <= index < count <= MOST_SHARDS:
            raise ValueError(f"there is no shard {index!r} of {count!r}")
        if type(digits) is not str:
            raise ValueError(f"{digits!r} is no digest")
        _check_digits(digits, 32)
        return cls(index, count, digits)


@dataclass(frozen=True)
class Extent:
    """Where a dataset lies: `count` rows of `row_shape` at byte `offset`; an empty one is stored as one zero row."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]
    count: int
    offset: int

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape as HDF5 knows it."""
        return (max(1, self.count), *self.row_shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.row_shape) * np.dtype(self.dtype).itemsize

    @property
    def end(self) -> int:
        """The first byte behind it."""
        return self.offset + max(1, self.count) * self.row_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "name": self.name,
            "dtype": self.dtype,
            "shape": [self.count, *self.row_shape],
            "offset": self.offset,
        }


@dataclass(frozen=True)
class Header:
    """What the JSON header says.

    Attributes:
        recipe: how each image became a row, or what the features were made of.
        decoder: identity of the decoder, 32 hexadecimal digits.
        fingerprint: of sources, recipe, decoder and format version; 64 hexadecimal digits.
        content: "images" or "features".
        shard: which part of a set this is, or None where the cache is whole.
        extents: by dataset name; "images" and every name of `TABLE_NAMES`.
        file_size: exact size of the file in bytes.
        digest: xxh3-128 of every byte outside header and images, 32 hexadecimal digits.
        features: what the rows are where they are no images, else None.
    """

    recipe: Recipe
    decoder: str
    fingerprint: str
    content: str
    shard: Shard | None
    extents: dict[str, Extent]
    file_size: int
    digest: str
    features: Features | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """(3, S, S), or (D,) of features."""
        return self.recipe.row_shape if self.features is None else (self.features.length,)

    @property
    def row_dtype(self) -> str:
        """Of the rows, as NumPy writes it."""
        name = self.recipe.dtype if self.features is None else "float32"
        return np.dtype(name).newbyteorder("<").str

    @property
    def num_images(self) -> int:
        """N, the number of rows."""
        return self.extents["images"].count

    def encode(self) -> bytes:
        """Return the start of the file: prefix, JSON, checksum."""
        values = {
            "content": self.content,
            "datasets": [extent.to_dict() for extent in self.extents.values()],
            "decoder": self.decoder,
            "digest": self.digest,
            "file_size": self.file_size,
            "fingerprint": self.fingerprint,
            "recipe": self.recipe.to_dict(),
            "shard": None if self.shard is None else self.shard.to_dict(),
        }
        if self.features is not None:
            values["features"] = self.features.to_dict()
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")
        start = _PREFIX.pack(MAGIC, VERSION, len(text)) + text
        start += xxhash.xxh3_128_digest(start)
        if len(start) > USER_BLOCK:
            raise ValueError(f"a header of {len(start)} bytes does not fit into the user block of {USER_BLOCK}")
        return start

    @cached_property
    def encoded_size(self) -> int:
        """Bytes of `encode()`: the digest covers what comes behind them."""
        return len(self.encode())


def is_cache(path: Path) -> bool:
    """Say whether a file begins as a cache does."""
    with suppress(OSError), path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC
    return False


def table_extents(counts: dict[str, int], widths: dict[str, int]) -> list[tuple[str, str, tuple[int, ...], int]]:
    """List (name, dtype, row shape, count) of every table, in the order in which they are written.

    Args:
        counts: of "images", "classes", "failed", "remarks", "alike".
        widths: of each table of fixed-length bytes.
    """
    return [(name, dtype or f"|S{max(1, widths[name])}", shape, counts[of]) for name, dtype, shape, of in _TABLES]


def open_cache(path: Path) -> int:
    """Open a cache for reading.

    Raises:
        CacheMissing: nothing there, or only an unfinished build.
        CacheUnsafe: not a regular file.
        AccessDenied, StorageError, WorkerDied: as the system says.
    """
    try:
        fd = files.open_for_reading(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.access(path.with_name(path.name + ".building"), os.F_OK):
            raise CacheMissing(
                "no cache yet", path, "an unfinished build exists", "Run build-cache again to resume it"
            ) from None
        raise CacheMissing("no cache", path, "there is no such file", "Build it: build-cache SOURCE") from None
    except PermissionError as error:
        raise AccessDenied("the cache cannot be read", path, "permission denied") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            advice = "Raise the limit (ulimit -n)"
            raise WorkerDied("the cache cannot be read", path, error.strerror or str(error), advice) from error
        raise StorageError("the cache cannot be read", path, error.strerror or str(error)) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CacheUnsafe("not a cache", path, "not a regular file", "Give the .h5 file that build-cache made")
    return fd


def read_header(fd: int, path: Path) -> Header:
    """Read and check the header: magic, version, checksum, sizes, extents; not yet the tables' digest.

    Raises:
        CacheUnsafe: not a cache of ours, or extents that reach outside the file or into each other.
        CacheError: written by a newer version.
        CacheDamaged: truncated, or bytes that are not those that were written.
        StorageError: the disk failed.
    """
    try:
        size = os.fstat(fd).st_size
        start = files.read_at(fd, USER_BLOCK, 0)
    except OSError as error:
        raise StorageError("the cache cannot be read", path, error.strerror or str(error)) from error
    text = _checked_text(start, size, path)
    try:
        header = _parse(json.loads(text))
        reencoded = header.encode()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CacheUnsafe(
            "not a cache that can be read", path, f"its header makes no sense ({error})", _REBUILD
        ) from error
    if reencoded != start[: len(reencoded)]:
        raise CacheUnsafe("not a cache that can be read", path, "its header is written unlike ours", _REBUILD)
    if header.file_size != size:
        raise CacheDamaged("the cache is damaged", path, f"{size} bytes, {header.file_size} expected", _REBUILD)
    _check_extents(header, path)
    return header


_REBUILD = "Run build-cache again"


def _checked_text(start: bytes, size: int, path: Path) -> bytes:
    if len(start) < _PREFIX.size or not start.startswith(MAGIC):
        if start.startswith(_HDF5_MAGIC):
            why = "an HDF5 file, but not one that build-cache made"
        elif size == 0:
            why = "the file is empty"
        else:
            why = "its first bytes are not a cache's"
        raise CacheUnsafe(
            "not a cache",
            path,
            f"{why}; a tensor cache of format {VERSION} is read",
            "Build one: build-cache SOURCE",
        )
    _, version, length = _PREFIX.unpack_from(start)
    if version != VERSION:
        raise CacheError(
            "the cache cannot be read",
            path,
            f"it has format {version}; this version reads format {VERSION}",
            "Update modelnet-cache, or build the cache again",
        )
    end = _PREFIX.size + length
    if end + _CHECKSUM_BYTES > len(start) or xxhash.xxh3_128_digest(start[:end]) != start[end : end + _CHECKSUM_BYTES]:
        raise CacheDamaged("the cache is damaged", path, "its header does not match its checksum", _REBUILD)
    return start[_PREFIX.size : end]


def _parse(values: Any) -> Header:
    extents = {}
    if type(values["file_size"]) is not int:
        raise ValueError("its size is none")
    for entry in values["datasets"]:
        count, *row_shape = entry["shape"]
        for number in (count, entry["offset"], *row_shape):
            if type(number) is not int or not 0 <= number < 2**63:
                raise ValueError(f"{number!r} is no size")
        extents[entry["name"]] = Extent(
            name=str(entry["name"]),
            dtype=str(entry["dtype"]),
            row_shape=tuple(row_shape),
            count=count,
            offset=entry["offset"],
        )
    header = Header(
        recipe=Recipe.from_dict(values["recipe"]),
        decoder=str(values["decoder"]),
        fingerprint=str(values["fingerprint"]),
        content=str(values["content"]),
        shard=None if values["shard"] is None else Shard.from_dict(values["shard"]),
        extents=extents,
        file_size=values["file_size"],
        digest=str(values["digest"]),
        features=Features.from_dict(values["features"]) if "features" in values else None,
    )
    for digits, length in ((header.decoder, 32), (header.fingerprint, 64), (header.digest, 32)):
        _check_digits(digits, length)
    if header.content != ("images" if header.features is None else "features"):
        raise ValueError(f"content {header.content!r} is not known")
    _check_shapes(header)
    return header


def _check_digits(digits: str, length: int) -> None:
    if len(digits) != length or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"{digits!r} is no digest")


def _check_shapes(header: Header) -> None:
    if list(header.extents) != ["images", *TABLE_NAMES]:
        raise ValueError(f"datasets {', '.join(header.extents)}")
    images = header.extents["images"]
    least = 1 if header.shard is None else 0  # no image of a small set may have its place in some shard
    if images.count < least or images.row_shape != header.row_shape or images.dtype != header.row_dtype:
        raise ValueError("images do not fit the recipe")
    counts = {name: header.extents[name].count for name in ("images", "classes", "failed", "remarks", "alike")}
    if counts["classes"] < 1:
        raise ValueError("no classes")
    for name, dtype, shape, of in _TABLES:
        extent = header.extents[name]
        fits = extent.dtype == dtype if dtype else _is_bytes(extent.dtype)
        if not fits or extent.row_shape != shape or extent.count != counts[of]:
            raise ValueError(f"table {name} has dtype {extent.dtype}, shape {extent.count, *extent.row_shape}")


def _is_bytes(dtype: str) -> bool:
    width = dtype.removeprefix("|S")
    return dtype.startswith("|S") and width.isascii() and width.isdigit() and 0 < int(width) <= 2**20


def _check_extents(header: Header, path: Path) -> None:
    """Every extent inside the file, page-aligned where we map, none reaching into another."""
    if header.extents["images"].offset != IMAGES_OFFSET:
        raise CacheUnsafe("not a cache that can be read", path, "its images do not begin where they must", _REBUILD)
    end = USER_BLOCK
    for extent in sorted(header.extents.values(), key=lambda extent: extent.offset):
        if extent.offset < end or extent.end > header.file_size:
            raise CacheUnsafe(
                "not a cache that can be read",
                path,
                f"its dataset {extent.name} reaches outside its place",
                _REBUILD,
            )
        end = extent.end


def describe_shard(shard: Shard | None) -> str:
    """Name a shard as its file does: "shard 3 of 64"."""
    return "a whole cache" if shard is None else f"shard {shard.index} of {shard.count}"

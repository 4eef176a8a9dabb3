"""Describe a cache: the header in its user block, and where each dataset lies.

`docs/format.md` says the same in prose. `checks.py` reads and checks a header; `hdf5.py` writes what stands around it.
"""

import json
import math
import struct
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import xxhash

from pipeline.format.features import Features
from pipeline.recipe import Recipe

MAGIC = b"\x93MNCACHE"
VERSION = 1
USER_BLOCK = 4096
IMAGES_OFFSET = 8192
SUPERBLOCK_VERSION = USER_BLOCK + 8
OPEN_FLAG = USER_BLOCK + 20  # byte whose lowest bit says that a program has the file open for writing
PIXELS = ".pixels"  # a cache beside one that is built with its own mean and std
_SIDE_FILES = (".lock", ".stat", ".stat.new", ".building", ".building.new", ".journal", ".journal.new")
SIDE_FILES = (*_SIDE_FILES, PIXELS, *(PIXELS + suffix for suffix in _SIDE_FILES))

PREFIX = struct.Struct("<8sII")  # magic, format version, length of the JSON header

# name, dtype (None: fixed-length bytes), trailing shape, what its count is
TABLES: tuple[tuple[str, str | None, tuple[int, ...], str], ...] = (
    ("filenames", None, (), "images"),
    ("labels", "<i8", (), "images"),
    ("classes", None, (), "classes"),
    ("class_names", None, (), "classes"),
    ("row_hash", "<u8", (), "images"),
    ("source_sha256", "|u1", (32,), "images"),
    ("source_size", "<i4", (2,), "images"),
    ("source_format", None, (), "images"),
    ("image_hash", "<u8", (), "images"),
    ("failed", None, (), "failed"),
    ("remarks", None, (), "remarks"),
    ("alike", "<i8", (2,), "alike"),
)
TABLE_NAMES = tuple(name for name, *_ in TABLES)
LATER_TABLES = ("source_size", "source_format")  # earlier versions did not know size and format of the image files
MOST_SHARDS = 99_999  # five digits in a file's name
COMMANDS = {"images": "build-cache", "features": "build-features"}  # that build a cache, by its content


def check_digits(digits: str, length: int) -> None:
    """Raise ValueError where a text is not so many lower-case hexadecimal digits."""
    if len(digits) != length or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"{digits!r} is no digest")


@dataclass(frozen=True)
class Shard:
    """The number of a shard, and the values that it shares with the other shards.

    Attributes:
        index: 0..count-1.
        count: number of shards.
        set: digest of what all shards share, 32 hexadecimal digits; see `fingerprint.shards_id`.
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
        check_digits(digits, 32)
        return cls(index, count, digits)


@dataclass(frozen=True)
class Extent:
    """The position of a dataset: `count` rows of `row_shape` at byte `offset`. An empty one has one zero row."""

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
        return {"name": self.name, "dtype": self.dtype, "shape": [self.count, *self.row_shape], "offset": self.offset}


@dataclass(frozen=True)
class Header:
    """The content of the JSON header.

    Attributes:
        recipe: how each image became a row; of features, the recipe of their images.
        decoder: by format of the image files, also of failed ones, the identity of its decoder: 32 hexadecimal
            digits, or none where the format could not be read. Earlier versions had one of all formats, here of "".
        fingerprint: of sources, recipe, decoder and format version; 64 hexadecimal digits.
        content: "images" or "features".
        shard: None for a whole cache.
        extents: by dataset name; "images" and every name of `TABLE_NAMES`.
        file_size: exact size of the file in bytes.
        digest: xxh3-128 of every byte outside header and images, 32 hexadecimal digits.
        features: network and layer that the rows come from; None for images.
        earlier: the values of `recipe` and `decoder` as an earlier state of the format wrote them; else None.
    """

    recipe: Recipe
    decoder: dict[str, str]
    fingerprint: str
    content: str
    shard: Shard | None
    extents: dict[str, Extent]
    file_size: int
    digest: str
    features: Features | None = None
    earlier: dict[str, Any] | None = None

    @property
    def row_shape(self) -> tuple[int, ...]:
        """(3, H, W), or (D,) of features."""
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

    @property
    def command(self) -> str:
        """The command that builds such a cache."""
        return COMMANDS[self.content]

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
        } | (self.earlier or {})
        if self.features is not None:
            values["features"] = self.features.to_dict()
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode("ascii")
        start = PREFIX.pack(MAGIC, VERSION, len(text)) + text
        start += xxhash.xxh3_128_digest(start)
        if len(start) > USER_BLOCK:
            raise ValueError(f"a header of {len(start)} bytes does not fit into the user block of {USER_BLOCK}")
        return start

    @cached_property
    def encoded_size(self) -> int:
        """Bytes of `encode()`; the digest begins behind them."""
        return len(self.encode())


def advice_for_rows(content: str) -> str:
    """Return what to do about damaged rows of "images" or "features"."""
    mends = {"images": "it rebuilds just the damaged rows", "features": "it computes all rows anew"}
    return f"Run {COMMANDS[content]} again; {mends[content]}"


def describe_shard(shard: Shard | None) -> str:
    """Name a shard as its file does: "shard 3 of 64"."""
    return "a whole cache" if shard is None else f"shard {shard.index} of {shard.count}"

"""Images within a Parquet file, as Hugging Face distributes sets: which they are, and the bytes of one of them."""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.source.tables.parquet import damage, parquet_file

if TYPE_CHECKING:
    from pyarrow import DataType

_IMAGES_AT_ONCE = 8  # unpacked together
_BUFFER = 1 << 20  # bytes read ahead: without it, the images of a whole row group lie in memory
_NUMBER = re.compile(r"[-_.]?\d+([-_]of[-_]\d+)?$")


class ImageRow(NamedTuple):
    """Where an image lies in a Parquet file: row group, and row within it, both from 0."""

    group: int
    row: int


def set_name(path: bytes) -> str:
    """Return what Parquet files of one set have in common: "train" of train-00000-of-00002.parquet."""
    return _NUMBER.sub("", os.fsdecode(os.path.splitext(os.path.basename(path))[0])) or os.fsdecode(path)


def image_column(path: Path) -> str:
    """Return the column that holds images: a struct with bytes, or else bytes alone; empty where there is none.

    Raises:
        SourceError, TableDamaged: as `parquet_file`.
    """
    schema = parquet_file(path).schema_arrow
    columns = [(name, schema.field(name).type) for name in map(str, schema.names)]
    structs = [name for name, kind in columns if _has_bytes(kind)]
    return next(iter(structs + [name for name, kind in columns if _is_bytes(kind)]), "")


def _is_bytes(kind: "DataType") -> bool:
    return str(kind) in ("binary", "large_binary")


def _has_bytes(kind: "DataType") -> bool:
    return str(kind).startswith("struct<") and any(f.name == "bytes" and _is_bytes(f.type) for f in kind)


def image_rows(path: Path) -> Iterator[ImageRow]:
    """Yield where the image of each row lies."""
    metadata = parquet_file(path).metadata
    for group in range(metadata.num_row_groups):
        yield from (ImageRow(group, row) for row in range(metadata.row_group(group).num_rows))


def image_paths(path: Path, column: str) -> Iterator[str]:
    """Yield the path that each image had when the file was made; empty where it has none.

    Raises:
        TableDamaged: the file is damaged.
    """
    file = parquet_file(path)
    kind = file.schema_arrow.field(column).type
    has_paths = _has_bytes(kind) and any(f.name == "path" for f in kind)
    with damage(path):
        for batch in file.iter_batches(columns=[f"{column}.path"]) if has_paths else ():
            yield from (text or "" for text in batch.column(0).field("path").to_pylist())
    if not has_paths:
        yield from ("" for _ in range(file.metadata.num_rows))


@lru_cache(maxsize=4)
def _images(path: bytes, _stat: tuple[int, ...]) -> "_Images":
    return _Images(Path(os.fsdecode(path)))


def image_bytes(path: bytes, stat: tuple[int, ...], place: ImageRow) -> bytes | None:
    """Return the bytes of an image; None where its cell is empty.

    Rows are unpacked in their order: the next one of the last file takes no time, an earlier one that of its row group.

    Args:
        path: of the file.
        stat: tells it from a later file at that path.
        place: of the image.

    Raises:
        TableDamaged: the file is damaged there.
    """
    return _images(path, stat).read(place)


class _Images:
    """An open file, and the images of the last rows that were read. Several threads may read it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = Lock()
        self.file = parquet_file(path, buffer_size=_BUFFER, pre_buffer=False)
        self.column = image_column(path)
        kind = self.file.schema_arrow.field(self.column).type
        self.leaf = f"{self.column}.bytes" if _has_bytes(kind) else self.column
        self.group, self.next = -1, 0  # the row group, and the row in it, that `batches` unpacks next
        self.batches: Iterator[Any] = iter(())
        self.unpacked: list[tuple[int, int, Any]] = []  # the last two batches: row group, first row, images

    def read(self, place: ImageRow) -> bytes | None:
        """Return the bytes of an image."""
        with damage(self.path), self.lock:
            if not any(_holds(batch, place) for batch in self.unpacked):
                self._unpack(place)
            _, first, values = next(batch for batch in self.unpacked if _holds(batch, place))
            value: bytes | None = values[place.row - first].as_py()
        return value

    def _unpack(self, place: ImageRow) -> None:
        """Unpack batches up to that of an image. Threads ask for the rows of two batches in any order."""
        group, self.group = self.group, -1  # until it is done: an iterator that has failed yields nothing more
        if place.group != group or place.row < self.next:
            self.batches = self.file.iter_batches(
                _IMAGES_AT_ONCE, row_groups=[place.group], columns=[self.leaf], use_threads=False
            )
            self.next = 0
        while self.next <= place.row:
            cells = next(self.batches).column(0)
            values = cells.field("bytes") if self.leaf != self.column else cells
            self.unpacked = [*self.unpacked[-1:], (place.group, self.next, values)]
            self.next += len(values)
        self.group = place.group


def _holds(batch: tuple[int, int, Any], place: ImageRow) -> bool:
    group, first, values = batch
    return group == place.group and first <= place.row < first + len(values)

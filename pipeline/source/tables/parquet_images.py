"""Images within a Parquet file, as Hugging Face distributes sets: which they are, and the bytes of one of them."""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.source.tables.parquet import damage, parquet_file

if TYPE_CHECKING:
    from pyarrow import DataType

_IMAGES_AT_ONCE = 8  # unpacked together: as many as a worker does
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
    """An open file, and the images of the last rows that were read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = parquet_file(path, buffer_size=_BUFFER, pre_buffer=False)
        self.column = image_column(path)
        kind = self.file.schema_arrow.field(self.column).type
        self.leaf = f"{self.column}.bytes" if _has_bytes(kind) else self.column
        self.group, self.first = -1, 0
        self.values: Any = []
        self.batches: Iterator[Any] = iter(())

    def read(self, place: ImageRow) -> bytes | None:
        """Return the bytes of an image."""
        with damage(self.path):
            if place.group != self.group or place.row < self.first:
                self.batches = self.file.iter_batches(
                    _IMAGES_AT_ONCE, row_groups=[place.group], columns=[self.leaf], use_threads=False
                )
                self.group, self.first, self.values = place.group, 0, []
            while place.row >= self.first + len(self.values):
                self.first += len(self.values)
                cells = next(self.batches).column(0)
                self.values = cells.field("bytes") if self.leaf != self.column else cells
            value: bytes | None = self.values[place.row - self.first].as_py()
        return value

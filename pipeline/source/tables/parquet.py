"""Read Parquet tables, as Hugging Face distributes sets: cells, the names of classes, and images within the table."""

import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import SourceError, TableDamaged
from pipeline.source.tables.table import WHAT, Cells, Table
from pipeline.text import how_to_install

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

_AT_ONCE = 4096  # rows


def open_parquet(path: Path, content: bytes | None = None) -> Table:
    """Read the header of a Parquet file. A number of a ClassLabel column is read as the name of its class.

    Raises:
        SourceError: pyarrow is not installed.
        TableDamaged: it is no Parquet file, or a damaged one.
    """
    file = parquet_file(path, content)
    columns = tuple(map(str, file.schema_arrow.names))
    classes = class_labels(file)

    def read(positions: Sequence[int]) -> Cells:
        names = [columns[position] for position in positions]
        numbers = count(1)
        for cells in _batches(path, names, content):
            for column, name in enumerate(names):
                if name in classes:
                    cells[column] = [_class_name(classes[name], code) for code in cells[column]]
            yield from ((next(numbers), row) for row in zip(*cells, strict=True))

    return Table(path, columns, "row", read)


def parquet_file(path: Path, content: bytes | None = None, **options: Any) -> "ParquetFile":
    """Open a Parquet file, with options of `pyarrow.parquet.ParquetFile`.

    Raises:
        SourceError: pyarrow is not installed.
        TableDamaged: it is no Parquet file, or a damaged one.
    """
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        advice = how_to_install("parquet")
        raise SourceError(WHAT, path, "Parquet needs the package pyarrow", advice) from error
    with damage(path, "no whole Parquet file"):
        return ParquetFile(path if content is None else BytesIO(content), **options)
    raise AssertionError  # `damage` raises


@contextmanager
def damage(path: Path, what: str = "damaged") -> Iterator[None]:
    """Turn the exceptions of pyarrow about the bytes of a file into an error that names it.

    Raises:
        TableDamaged: says what it is.
        OSError, MemoryError: the system failed, and perhaps not the next time.
    """
    from pyarrow import ArrowException

    try:
        yield
    except MemoryError:
        raise
    except (ArrowException, OSError) as error:
        number = getattr(error, "errno", None)
        if number not in (None, errno.EINVAL):  # pyarrow numbers errors of the system, and not what it finds in a file
            raise OSError(number, os.strerror(number)) from error
        raise TableDamaged(WHAT, path, f"it is {what} ({str(error).partition(chr(10))[0]})") from error


def class_labels(file: "ParquetFile") -> dict[str, list[str]]:
    """Return the names of classes by column, as Hugging Face notes them in the schema."""
    try:
        note = json.loads((file.schema_arrow.metadata or {}).get(b"huggingface", b"{}"))
        features = note["info"]["features"].items()
        return {name: list(map(str, f["names"])) for name, f in features if f.get("_type") == "ClassLabel"}
    except (ValueError, LookupError, TypeError, AttributeError):
        return {}


def _class_name(names: list[str], code: Any) -> Any:
    """Return the class of a number; None for -1, which stands for no label."""
    if not isinstance(code, int):
        return code
    return names[code] if 0 <= code < len(names) else None


def _batches(path: Path, names: list[str], content: bytes | None) -> Iterator[list[list[Any]]]:
    """Yield the cells of some rows, a list a column."""
    with damage(path):
        for batch in parquet_file(path, content).iter_batches(_AT_ONCE, columns=list(dict.fromkeys(names))):
            yield [batch.column(name).to_pylist() for name in names]

"""Read the labels of images from a table: they stay text, and each row needs one."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.source.tables.column import Column, read_column
from pipeline.text import printable

LONGEST_LABEL = 255  # bytes, as of a folder's name
_WHOLE_WITH_FRACTION = re.compile(r"([+-]?\d+)\.0+")


@dataclass(frozen=True)
class Labels:
    """Says where the labels of images are, apart from folders.

    Attributes:
        table: a file; None to look for one in the source.
        file_column, label_column: of a table, as `read_column` has them.
    """

    table: Path | None = None
    file_column: str | None = None
    label_column: str | None = None


def read_labels(labels: Labels, path: Path, content: bytes | None = None) -> Column:
    """Read the column of labels of a table.

    Args:
        labels: the columns that were asked for.
        path: of the table.
        content: of the table, where it lies in an archive; None to read the file.

    Raises:
        TableDamaged: a row without label, or with one that no class can be called; names file and row.
        SourceError, AccessDenied, WorkerDied, StorageError: as `read_column`.
    """
    column = read_column(path, labels.label_column, labels.file_column, content=content)
    check_labels(column)
    return column


def check_labels(column: Column) -> None:
    """Refuse labels that are missing, or that no class can be called.

    Raises:
        TableDamaged: names file and row.
    """
    for text in column.texts:
        if why := _refused(text, column.texts):
            row = int(column.rows_of(text)[0])
            key = column.keys[row].decode(errors="replace")
            advice = "Fill the cell, or take the row out" if not text else "Write all labels alike, as UTF-8 text"
            of_image = f" of {printable(key)}" if key else ""
            column.table.refuse(column.numbers[row], f"the {column.name}{of_image} {why}", advice)


def _refused(text: str, texts: list[str]) -> str:
    """Return why a label is none; empty where it is one."""
    if not text:
        return "is missing (empty, NaN or null)"
    if (whole := _WHOLE_WITH_FRACTION.fullmatch(text)) and whole[1] in texts:
        return f"is {text}, and {whole[1]} is another label of the table"
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return f"is {text!a}, which is no UTF-8"
    if "\0" in text or size > LONGEST_LABEL:
        return f"is no name of a class: {size} bytes{', with a NUL' if chr(0) in text else ''}"
    return ""

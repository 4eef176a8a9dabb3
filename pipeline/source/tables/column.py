"""Read one column of a table, beside the images that its rows name, into memory: 1.28 million rows take 100 MB."""

import os
from array import array
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.source.packed import PackedNames
from pipeline.source.tables.open import open_table
from pipeline.source.tables.table import WHAT, Table, named_column
from pipeline.text import printable

FILE_COLUMNS = (
    *("sha256", "file_name", "filename", "file", "path", "file_path", "filepath", "image_path", "image", "image_name"),
    *("image_id", "imageid", "img", "img_name", "id_code", "isic_id", "id"),
)
LABEL_COLUMNS = (
    *("label", "class", "class_name", "class_id", "classname", "category", "species", "breed", "target", "diagnosis"),
    *("dx", "labels", "y"),
)


@dataclass
class Column:
    """A column of a table in memory: of each row, the image that it names and the text of its cell.

    Attributes:
        table: that it is of.
        file_column, name: names of the column that names the images, and of this one.
        keys: (M,) how each row names its image, bytes: a path, a file name or a SHA-256; without spaces around.
        spaced: by position, keys that have spaces around them in the table.
        texts: the different texts of the cells, in the order in which they first occur; "" is a missing value.
        codes: (M,) the position in `texts` of each row's cell.
        numbers: (M,) each row's number, as `Table.rows` counts.
    """

    table: Table
    file_column: str
    name: str
    keys: PackedNames = field(default_factory=PackedNames)
    spaced: dict[int, bytes] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    codes: "array[int]" = field(default_factory=lambda: array("i"))
    numbers: "array[int]" = field(default_factory=lambda: array("q"))

    @property
    def of_contents(self) -> bool:
        """Whether rows name images by the SHA-256 of their content."""
        return self.file_column.lower() == "sha256" or (len(self.keys) > 0 and _is_sha256(self.keys[0]))

    def digests(self) -> NDArray[np.uint8]:
        """Return (M, 32) uint8, the SHA-256 that each row names.

        Raises:
            TableDamaged: a row names something else.
        """
        for row, key in enumerate(self.keys):
            if not _is_sha256(key):
                why = f"{printable(os.fsdecode(key))} is no SHA-256 of 64 hexadecimal digits"
                self.table.refuse(self.numbers[row], why)
        joined = b"".join(self.keys)
        return np.frombuffer(bytes.fromhex(joined.decode()), np.uint8).reshape(-1, 32)

    def rows_of(self, text: str) -> NDArray[np.int64]:
        """Return the positions of the rows whose cell has this text."""
        code = self.texts.index(text) if text in self.texts else -1
        return np.flatnonzero(np.frombuffer(self.codes, np.int32) == code)


def read_column(
    path: Path,
    column: str | None = None,
    file_column: str | None = None,
    flag: str = "--label-column",
    content: bytes | None = None,
) -> Column:
    """Read a column of a table, and which image each row names.

    Args:
        path: CSV, TSV, JSON lines or Parquet.
        column: its name; None for the first with a usual name of labels, or the only other one.
        file_column: names the images by their path below the source, their file name, or the SHA-256 of their content;
            None for the first with a usual name.
        flag: the option that gives `column`, for errors.
        content: of the table, where it lies in an archive; None to read the file.

    Raises:
        SourceError: there is no such table or column, or it has no rows.
        TableDamaged: a row cannot be read, names no image, or names one outside the source; names file and row.
        AccessDenied, WorkerDied, StorageError: as `open_table`.
    """
    table = open_table(path, content)
    file_column = named_column(table, FILE_COLUMNS, file_column, "--file-column", "the file of each image")
    name = named_column(table, LABEL_COLUMNS, column, flag, "the label", file_column)
    found = Column(table, file_column, name)
    code_of: dict[str, int] = {}
    for number, (file, cell) in table.cells([file_column, name]):
        key, text = table.text(file, number), table.text(cell, number).strip()
        if (code := code_of.get(text)) is None:
            code = code_of[text] = len(code_of)
        if key != key.strip():
            found.spaced[len(found.keys)] = _key(table, number, key)
        found.keys.append(_key(table, number, key.strip()))
        found.codes.append(code)
        found.numbers.append(number)
    found.texts = list(code_of)
    if not found.keys:
        raise SourceError(WHAT, path, "it has no rows")
    return found


def _key(table: Table, number: int, text: str) -> bytes:
    """Return how a row names its image, as bytes of a path below the source.

    Raises:
        TableDamaged: it names none, or one that may lie outside.
    """
    if not text:
        table.refuse(number, "it names no image", "Fill the cell, or take the row out")
    while text.startswith("./"):
        text = text[2:]
    if text.startswith(("/", "~/")) or text[1:3] == ":\\" or (".." in text and ".." in text.split("/")):
        why = f"{printable(text)} is not a path below the source"
        table.refuse(number, why, "Write paths as they are below the source")
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        table.refuse(number, f"{text!a} is no name of a file")


def _is_sha256(key: bytes) -> bool:
    return len(key) == 64 and not key.strip(b"0123456789abcdefABCDEF")

"""A table row by row, whatever kind of file it is. Cells become text, and nothing is guessed of them."""

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pipeline.errors import SourceError, TableDamaged, source_errors
from pipeline.text import printable, shorten

WHAT = "the table cannot be read"
_MISSING = {"", "nan", "<na>"}  # as pandas writes a value that is not there

Cells = Iterator[tuple[int, Sequence[Any]]]


@dataclass(frozen=True)
class Table:
    """A table whose header was read.

    Attributes:
        path: of the file.
        columns: their names.
        unit: what a row's number counts in this file: "line" of a text from 1, or "row" of a Parquet file from 1.
        read: given positions of columns, yields the number of each row and its cells, as the file has them.
    """

    path: Path
    columns: tuple[str, ...]
    unit: str
    read: Callable[[Sequence[int]], Cells]

    def position(self, column: str) -> int:
        """Return the position of a column by its name.

        Raises:
            SourceError: it has no such column; names the nearest.
        """
        if self.columns.count(column) == 1:
            return self.columns.index(column)
        if column in self.columns:
            raise SourceError(WHAT, self.path, f"it has two columns {printable(column)}", "Rename one of them")
        lower = {name.lower(): name for name in self.columns}
        near = difflib.get_close_matches(column.lower(), lower, 1, 0.5)
        nearest = f"; the nearest is {printable(lower[near[0]])}" if near else ""
        why = f"it has no column {printable(column)}{nearest}"
        raise SourceError(WHAT, self.path, why, f"Its columns are {shorten(list(map(printable, self.columns)))}")

    def cells(self, columns: Sequence[str]) -> Cells:
        """Yield the number of each row and the cells of these columns, as the file has them.

        Raises:
            SourceError: a column is not there.
            TableDamaged: a row cannot be read; names file and row.
            AccessDenied, WorkerDied, StorageError: as `open_table`.
        """
        with source_errors(WHAT, self.path):
            yield from self.read([self.position(column) for column in columns])

    def rows(self, columns: Sequence[str]) -> Iterator[tuple[int, tuple[str, ...]]]:
        """Yield the number of each row and the text of these columns, without the spaces around it.

        A missing value (empty, NaN, null) is "".

        Raises:
            SourceError, TableDamaged, AccessDenied, WorkerDied, StorageError: as `cells`.
        """
        for number, cells in self.cells(columns):
            yield number, tuple([self.text(cell, number).strip() for cell in cells])

    def text(self, cell: Any, number: int) -> str:
        """Return the text of a cell of a row, with the spaces around it; "" for a missing value.

        Raises:
            TableDamaged: the cell has no text; names file and row.
        """
        if isinstance(cell, str):
            bare = cell.strip()
            return "" if len(bare) < 5 and bare.lower() in _MISSING else cell
        if cell is None or (isinstance(cell, float) and math.isnan(cell)):
            return ""
        if isinstance(cell, list | dict | bytes):
            kind = {list: "a list", dict: "an object", bytes: "bytes"}[type(cell)]
            self.refuse(number, f"it has {kind} where one text or number is needed")
        return str(cell).lower() if isinstance(cell, bool) else str(cell)

    def refuse(self, number: int, why: str, advice: str = "") -> NoReturn:
        """Refuse a row.

        Raises:
            TableDamaged: names file and row.
        """
        raise TableDamaged(WHAT, self.path, f"{self.unit} {number}: {why}", advice)


def named_column(table: Table, known: Sequence[str], asked: str | None, flag: str, what: str, but: str = "") -> str:
    """Return the column that was asked for, or else the first with a known name, in any case.

    Args:
        table: of the columns.
        known: usual names of such a column, the best first.
        asked: a name that was given, or None.
        flag: the option that gives it, for the error.
        what: the column has, for the error: "the file of each image".
        but: a column that is taken already; if just one other is left, it is the column.

    Raises:
        SourceError: there is no such column, none with a known name, or the one that is taken already.
    """
    if asked is not None:
        table.position(asked)
        if asked == but:
            why = f"its column {printable(asked)} names the images already"
            advice = f"Give another {flag}" + (", or another --file-column" if flag == "--label-column" else "")
            raise SourceError(WHAT, table.path, why, advice)
        return asked
    lower = {name.lower(): name for name in reversed(table.columns) if name != but}
    for name in known:
        if name in lower:
            return lower[name]
    if but and len(lower) == 1:
        return next(iter(lower.values()))
    why = f"none of its columns is known to have {what}: {shorten(list(map(printable, table.columns)))}"
    advice = f"Give {flag} NAME"
    if len(table.columns) == 1 and set(",;|\t") & set(table.columns[0]):
        advice = "Cells are separated by , or ; or a tab in .csv, and by a tab in .tsv"
    raise SourceError(WHAT, table.path, why, advice)

"""Open a table: CSV, TSV, JSON lines or Parquet, as its suffix says."""

import csv
import io
import json
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import SourceError, TableDamaged, source_errors
from pipeline.source.tables.parquet import open_parquet
from pipeline.source.tables.table import WHAT, Cells, Table
from pipeline.text import counted

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def open_table(path: Path, content: bytes | None = None) -> Table:
    """Read the header of a table; its suffix tells its kind.

    Args:
        path: of the file, or of one in an archive.
        content: where it is known already, as that of one in an archive; None reads the file.

    Raises:
        SourceError: there is no such file, it has no header, or is of another kind.
        TableDamaged: its header cannot be read.
        AccessDenied, WorkerDied, StorageError: the system refuses it, has no resources, or the disk failed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise SourceError(
            WHAT, path, f"a table ends in {', '.join(SUFFIXES)}", "Rename it, or write it as one of these"
        )
    with source_errors(WHAT, path):
        if content is None and not path.is_file():
            raise SourceError(WHAT, path, "it is no regular file" if path.exists() else "there is no such file")
        if suffix == ".parquet":
            table = open_parquet(path, content)
        else:
            text = _Text(path, content)
            table = _open_lines(text) if suffix in (".jsonl", ".ndjson") else _open_csv(text, suffix)
    return table


class _Text:
    """A text that can be opened again. Bytes that are not UTF-8 survive, as in file names."""

    def __init__(self, path: Path, content: bytes | None) -> None:
        self.path = path
        self.content = content
        with self.open() as file:
            start = bytes(file.buffer.read(1 << 12))
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise TableDamaged(WHAT, path, "it is UTF-16", "Save it as UTF-8")
        if b"\0" in start:
            raise TableDamaged(WHAT, path, "it holds NUL bytes, so it is no text", "Save it as UTF-8")

    def open(self) -> io.TextIOWrapper:
        """Open it at its beginning."""
        binary = self.path.open("rb") if self.content is None else io.BytesIO(self.content)
        return io.TextIOWrapper(binary, "utf-8-sig", "surrogateescape", newline="")


def _open_csv(text: _Text, suffix: str) -> Table:
    path = text.path
    with text.open() as file:
        first = file.readline(1 << 20)
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=first.count)
    with text.open() as file:
        header = next(_csv_rows(path, file, delimiter), (0, []))[1]
    if not header:
        raise SourceError(WHAT, path, "it is empty", "Its first line names its columns")

    def read(positions: Sequence[int]) -> Cells:
        width = len(header)
        with text.open() as file:
            for number, row in islice(_csv_rows(path, file, delimiter), 1, None):
                if len(row) != width:
                    why = f"line {number}: it has {counted(len(row), 'cell')}, and the header {width}"
                    advice = "Put a cell that holds the separator in quotes" if len(row) > width else ""
                    raise TableDamaged(WHAT, path, why, advice)
                yield number, [row[position] for position in positions]

    return Table(path, tuple(name.strip() for name in header), "line", read)


def _csv_rows(path: Path, file: TextIO, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each row begins in, from 1, and its cells; empty lines are skipped."""
    rows, number = csv.reader(file, delimiter=delimiter, strict=True), 1
    try:
        for row in rows:
            if row:
                yield number, row
            number = rows.line_num + 1
    except csv.Error as error:
        why, advice = f"the row that begins in line {number} is no row of a table ({error})", ""
        if "field limit" in str(error):
            why = f"the row that begins in line {number} has a cell of more than {csv.field_size_limit():,} characters"
            advice = ", or leave that column out"
        raise TableDamaged(WHAT, path, why, f"Look for a quote that is not closed{advice}") from error


def _open_lines(text: _Text) -> Table:
    path = text.path

    def objects() -> Generator[tuple[int, dict[str, Any]], None, None]:
        with text.open() as file:
            for number, line in enumerate(file, 1):
                if line.isspace():
                    continue
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise TableDamaged(WHAT, path, f"line {number}: it is no JSON ({error})") from error
                if not isinstance(value, dict):
                    why = f"line {number}: it is no JSON object"
                    raise TableDamaged(WHAT, path, why, 'Each line is one, like {"file_name": "a.jpg", "label": "cat"}')
                yield number, value

    with closing(objects()) as lines:
        _, first = next(lines, (0, {}))
    if not first:
        raise SourceError(WHAT, path, "it is empty", "Each line is a JSON object")
    columns = tuple(first)

    def read(positions: Sequence[int]) -> Cells:
        names = [columns[position] for position in positions]
        return ((number, [value.get(name) for name in names]) for number, value in objects())

    return Table(path, columns, "line", read)

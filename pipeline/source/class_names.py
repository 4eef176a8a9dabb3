"""Read readable class names from `classes.csv` or ImageNet's synset mapping."""

import csv
import io
import os
from collections import Counter
from collections.abc import Iterator, Sequence

from pipeline.errors import SourceError
from pipeline.source.collected import Collected
from pipeline.source.file_names import NAME_FILES
from pipeline.source.reader import Location, read_side_file
from pipeline.source.selection import LONGEST_NAME
from pipeline.text import printable, shorten

_WHAT = "class names cannot be read"
_SHOWN = 5


def class_names(collected: Collected, folders: Sequence[bytes]) -> list[str]:
    """Return the readable name of each class, empty where it has none: from `classes.csv` or ImageNet's synsets.

    A table that names no class folder, or gives two classes one name, is warned of.

    Raises:
        SourceError: a table that says two things of a class.
        Whatever `read_rows` raises.
    """
    table = collected.table(NAME_FILES)
    if table is None:
        return [""] * len(folders)
    file, location = table
    names = _read_table(file, location) if file == NAME_FILES[0] else _read_synsets(file, location)
    ids = [os.fsdecode(folder) for folder in folders]
    if collected.wanted is None and file == NAME_FILES[0] and (unknown := sorted(names.keys() - set(ids))):
        word = "no class folder" if len(unknown) == 1 else "no class folders"
        collected.warn(f"{file.decode()} names {shorten([printable(i) for i in unknown], _SHOWN)}: {word}")
    named = [names.get(class_id, "").replace("\0", "")[:LONGEST_NAME] for class_id in ids]
    for name, count in Counter(named).items():
        if name and count > 1:
            same = [printable(class_id) for class_id, other in zip(ids, named, strict=True) if other == name]
            collected.warn(f"classes {shorten(same, _SHOWN)} are all called {printable(name)}")
    return named


def _read_table(file: bytes, location: Location) -> dict[str, str]:
    names: dict[str, str] = {}
    for class_id, name in read_rows(file, location, _WHAT, ("id", "name")):
        if class_id and names.setdefault(class_id, name) != name:
            why = f"class {printable(class_id)} is called {printable(names[class_id])} and {printable(name)}"
            raise SourceError(_WHAT, _where(file, location), why, "Leave one line for each class")
    return names


def _read_synsets(file: bytes, location: Location) -> dict[str, str]:
    lines = (line.partition(" ") for line in _text(file, location, _WHAT).splitlines())
    return {synset: words.split(",")[0].strip() for synset, _, words in lines}


def read_rows(file: bytes, location: Location, what: str, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield the text of these columns of each row of a CSV table of classes; empty where it is missing.

    Args:
        file, location: the name of the table, and where it lies.
        what: cannot be done without it, for errors.
        columns: their names.

    Raises:
        SourceError: it is no table with these columns.
        Whatever `read_side_file` raises.
    """
    rows = csv.DictReader(io.StringIO(_text(file, location, what), newline=""))
    try:
        if not set(columns) <= set(rows.fieldnames or ()):
            raise SourceError(what, _where(file, location), f"its first line is not {','.join(columns)}")
        for row in rows:
            yield [(row[column] or "").strip() for column in columns]
    except csv.Error as error:
        raise SourceError(what, _where(file, location), f"not a table: {error}") from error


def _text(file: bytes, location: Location, what: str) -> str:
    where = _where(file, location)
    try:
        return read_side_file(location, what, where).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(what, where, f"not a table in UTF-8: {error}") from error


def _where(file: bytes, location: Location) -> str:
    return os.fsdecode(location if isinstance(location, bytes) else os.path.join(location.archive, file))

"""Read readable class names from `classes.csv` or ImageNet's synset mapping."""

import csv
import io
import os
from collections import Counter
from collections.abc import Sequence

from pipeline.errors import AccessDenied, SourceError
from pipeline.source.collected import Collected
from pipeline.source.file_names import NAME_FILES
from pipeline.source.reader import Damaged, Location, read_image
from pipeline.source.selection import LONGEST_NAME
from pipeline.text import printable, shorten

_SHOWN = 5


def class_names(collected: Collected, folders: Sequence[bytes]) -> list[str]:
    """Return the readable name of each class, empty where it has none: from `classes.csv` or ImageNet's synsets.

    A table that names no class folder, or gives two classes one name, is warned of.

    Raises:
        SourceError, AccessDenied: a table that is there and cannot be read, or says two things of a class.
    """
    table = collected.table(NAME_FILES)
    if table is None:
        return [""] * len(folders)
    file, location = table
    names = _read_table(location) if file == NAME_FILES[0] else _read_synsets(location)
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


def _read_table(location: Location) -> dict[str, str]:
    text = table_text(location, "utf-8-sig")
    names: dict[str, str] = {}
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if not {"id", "name"} <= set(rows.fieldnames or ()):
            raise SourceError("class names cannot be read", _where(location), "its first line is not id,name")
        for row in rows:
            class_id, name = (row["id"] or "").strip(), (row["name"] or "").strip()
            if class_id and names.setdefault(class_id, name) != name:
                why = f"class {printable(class_id)} is called {printable(names[class_id])} and {printable(name)}"
                raise SourceError("class names cannot be read", _where(location), why, "Leave one line for each class")
    except csv.Error as error:
        raise SourceError("class names cannot be read", _where(location), f"not a table: {error}") from error
    return names


def _read_synsets(location: Location) -> dict[str, str]:
    lines = (line.partition(" ") for line in table_text(location, "utf-8").splitlines())
    return {synset: words.split(",")[0].strip() for synset, _, words in lines}


def table_text(location: Location, encoding: str) -> str:
    """Read the text of a table of classes.

    Raises:
        SourceError, AccessDenied: it cannot be read.
    """
    where = _where(location)
    try:
        return read_image(location)[0].decode(encoding)
    except PermissionError as error:
        raise AccessDenied("class names cannot be read", where, "permission denied") from error
    except OSError as error:
        raise SourceError("class names cannot be read", where, error.strerror or str(error)) from error
    except Damaged as damaged:
        raise SourceError("class names cannot be read", where, damaged.reason) from damaged
    except UnicodeDecodeError as error:
        raise SourceError("class names cannot be read", where, f"not a table in UTF-8: {error}") from error


def _where(location: Location) -> str:
    return os.fsdecode(location if isinstance(location, bytes) else location.archive)

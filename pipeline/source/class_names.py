"""Read readable class names from `classes.csv` or ImageNet's synset mapping."""

import csv
import io
import os
from collections.abc import Mapping, Sequence

from pipeline.errors import AccessDenied, SourceError
from pipeline.source.collected import NAME_FILES
from pipeline.source.reader import Damaged, Location, read_image
from pipeline.source.selection import LONGEST_NAME


def class_names(tables: Mapping[bytes, Location], folders: Sequence[bytes]) -> list[str]:
    """Return what a person calls each class, empty where nothing says: from `classes.csv` or ImageNet's synsets.

    Raises:
        SourceError, AccessDenied: a table that is there and cannot be read.
    """
    place = next((tables[name] for name in NAME_FILES if name in tables), None)
    if place is None:
        return [""] * len(folders)
    names = _read_table(place) if NAME_FILES[0] in tables else _read_synsets(place)
    return [names.get(os.fsdecode(folder), "").replace("\0", "")[:LONGEST_NAME] for folder in folders]


def _read_table(place: Location) -> dict[str, str]:
    text = table_text(place, "utf-8-sig")
    try:
        rows = csv.DictReader(io.StringIO(text, newline=""))
        if not {"id", "name"} <= set(rows.fieldnames or ()):
            raise SourceError("class names cannot be read", _where(place), "its first line is not id,name")
        return {row["id"].strip(): (row["name"] or "").strip() for row in rows if row["id"]}
    except csv.Error as error:
        raise SourceError("class names cannot be read", _where(place), f"not a table: {error}") from error


def _read_synsets(place: Location) -> dict[str, str]:
    parts = (line.partition(" ") for line in table_text(place, "utf-8").splitlines())
    return {synset: words.split(",")[0].strip() for synset, _, words in parts}


def table_text(place: Location, encoding: str) -> str:
    """Return the text of a table of classes.

    Raises:
        SourceError, AccessDenied: it cannot be read.
    """
    where = _where(place)
    try:
        return read_image(place)[0].decode(encoding)
    except PermissionError as error:
        raise AccessDenied("class names cannot be read", where, "permission denied") from error
    except OSError as error:
        raise SourceError("class names cannot be read", where, error.strerror or str(error)) from error
    except Damaged as damaged:
        raise SourceError("class names cannot be read", where, damaged.reason) from damaged
    except UnicodeDecodeError as error:
        raise SourceError("class names cannot be read", where, f"not a table in UTF-8: {error}") from error


def _where(place: Location) -> str:
    return os.fsdecode(place if isinstance(place, bytes) else place.archive)

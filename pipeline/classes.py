"""Which classes a source has for us, and what a person calls them."""

import csv
import os

from pipeline.errors import AccessDenied, SourceError
from pipeline.sources import Scan

LONGEST_NAME = 200  # characters of a class's readable name
NAME_FILES = (b"classes.csv", b"LOC_synset_mapping.txt")


def read_class_names(scan: Scan) -> None:
    """Set what a person calls each class, from a `classes.csv` (id,name) or ImageNet's table of synsets.

    Raises:
        SourceError, AccessDenied: a table that is there and cannot be read.
    """
    names: dict[str, str] = {}
    table, synsets = (scan.root / os.fsdecode(name) for name in NAME_FILES)
    try:
        if table.is_file():
            with table.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                if not {"id", "name"} <= set(rows.fieldnames or ()):
                    raise SourceError("class names cannot be read", table, "its first line is not id,name")
                names = {row["id"].strip(): (row["name"] or "").strip() for row in rows if row["id"]}
        elif synsets.is_file():
            lines = synsets.read_text("utf-8").splitlines()
            parts = (line.partition(" ") for line in lines)
            names = {synset: words.split(",")[0].strip() for synset, _, words in parts}
    except PermissionError as error:
        raise AccessDenied("class names cannot be read", error.filename, "permission denied") from error
    except OSError as error:
        raise SourceError("class names cannot be read", error.filename, error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        path = table if table.is_file() else synsets
        raise SourceError("class names cannot be read", path, f"not a table in UTF-8: {error}") from error
    scan.class_names = [
        names.get(os.fsdecode(folder), "").replace("\0", "")[:LONGEST_NAME] for folder in scan.class_folders
    ]

"""Order class folders, and turn them into class ids."""

import os
import re
from collections.abc import Sequence

from pipeline.text import align, printable, show_path

ClassId = int | str


_INTEGER = re.compile(rb"0|[1-9][0-9]*")


def class_order(folders: list[bytes]) -> list[bytes]:
    """Sort class folders: as numbers if every name is one, else by bytes."""
    return sorted(folders, key=int) if _all_integers(folders) else sorted(folders)


def class_ids_of(folders: list[bytes]) -> list[ClassId]:
    """Return the class ids: integers if every folder's name is one, else strings."""
    return [int(f) for f in folders] if _all_integers(folders) else [os.fsdecode(f) for f in folders]


def _all_integers(folders: list[bytes]) -> bool:
    return all(_INTEGER.fullmatch(folder) for folder in folders)


def class_table(ids: Sequence[ClassId], names: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Lay out classes with label, id, name and number of images."""
    rows = [("label", "class", "name" if any(names) else "", "images")]
    columns = zip(ids, names, counts, strict=True)
    rows += [(str(label), show_path(str(i)), printable(n), str(count)) for label, (i, n, count) in enumerate(columns)]
    return align(rows, left=(1, 2))

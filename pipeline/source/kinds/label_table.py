"""Images whose classes are in a table of labels: one that was named, or one that is recognized beside them.

Hugging Face's `metadata.csv` and Kaggle's `train.csv` are recognized. Where a table may hold the labels and nothing
says which columns, the source is refused: the folder that the images lie in is no class. Nor is it in images/ and
labels/, as detectors use them.
"""

import os
import re
import shlex
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from pipeline.errors import SourceError
from pipeline.source.collected import Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.kinds.class_folders import class_root
from pipeline.source.reader import read_side_file
from pipeline.source.selection import typed_classes
from pipeline.source.splits import is_test_folder, refuse_split_folders
from pipeline.source.tables.column import FILE_COLUMNS, LABEL_COLUMNS, Column
from pipeline.source.tables.labels import read_labels
from pipeline.source.tables.match import Matched, images_of_source, match
from pipeline.source.tables.open import open_table
from pipeline.source.tables.table import WHAT, named_column
from pipeline.text import counted, printable, shorten, show_path

_NO_CLASSES = "no classes to read"
_METADATA = (b"metadata.csv", b"metadata.jsonl")  # Hugging Face's; they name images in a column file_name
_OF_TRAINING = re.compile(rb"(metadata|labels?|train([-_ ]?(labels?|set|data))?)\.[a-z]+", re.IGNORECASE)
_OF_OTHERS = re.compile(rb"test|submission|sample", re.IGNORECASE)
_ROWS = (b".csv", b".tsv", b".jsonl", b".ndjson")


def _fits(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    return not contents.part and _label_table(contents) is not None


def _label_table(contents: Contents) -> bytes | None:
    """Return the path below the source of the table that holds the labels; None if there is none, or several may."""
    prefix = class_root(contents, None)
    for name in _METADATA:
        if prefix + name in contents.other_tables and _has_labels(contents, prefix + name, ("file_name",)):
            return prefix + name
    tables = [
        path
        for path in _tables_beside(contents, _image_folder(contents))
        if path.endswith(_ROWS) and not _OF_OTHERS.search(_base(path))
    ]
    tables = [path for path in tables if _has_labels(contents, path, FILE_COLUMNS)]
    if len(tables) > 1:
        tables = [path for path in tables if _OF_TRAINING.fullmatch(_base(path))]
    return tables[0] if len(tables) == 1 else None


def _has_labels(contents: Contents, path: bytes, files: Collection[str]) -> bool:
    """Tell whether the header of a table names a column of files and one of labels.

    Raises:
        ArchiveDamaged, AccessDenied, WorkerDied, StorageError: nobody knows, as it cannot be read.
    """
    opened, asked = _opened(contents, path), contents.labels
    with suppress(SourceError):
        table = open_table(*opened)
        file = named_column(table, tuple(files), asked.file_column, "", "")
        return bool(named_column(table, LABEL_COLUMNS, asked.label_column, "", "", file))
    return False


def _opened(contents: Contents, path: bytes) -> tuple[Path, bytes | None]:
    """Return the path of a table; its content, where it lies in an archive."""
    shown = Path(contents.where, os.fsdecode(path))
    location = contents.other_tables[path]
    return shown, None if isinstance(location, bytes) else read_side_file(location, WHAT, shown)


def _collect(contents: Contents, collected: Collected) -> Iterator[Contents]:
    path = _label_table(contents)
    assert path is not None  # it fits
    column = read_labels(contents.labels, *_opened(contents, path))
    how = f"the column {printable(column.name)} of {show_path(path)}"
    collected.warn(f"the classes are {how}, which names images in {printable(column.file_column)}")
    _collect_rows(contents, collected, column, path)
    return iter(())


def _collect_named(contents: Contents, collected: Collected) -> Iterator[Contents]:
    labels = contents.labels
    assert labels.table is not None  # `kind_of` asks
    folder, name = os.path.split(labels.table)
    path = os.path.relpath(os.path.join(os.path.realpath(folder), name), os.path.realpath(contents.where))
    column = read_labels(labels, labels.table)
    _collect_rows(contents, collected, column, b"" if path.startswith("../") else os.fsencode(path))
    return iter(())


def _collect_rows(contents: Contents, collected: Collected, column: Column, table: bytes) -> None:
    """Add each image to the class that a row gives it; `table` is its path below the source, empty if elsewhere."""
    collected.uses_labels = True
    contents.use_table(table)
    prefix, file = class_root(contents, None), show_path(os.path.basename(column.table.path))
    folders = [folder for folder in (table.rpartition(b"/")[0], _image_folder(contents)) if folder]
    images = images_of_source(contents, [prefix, b"", *(folder + b"/" for folder in folders)])
    matched = match(column, images)
    collected.take_tables(contents, prefix)
    first = collected.take(contents)
    if contents.archive_stat is None:
        collected.paths.extend(contents.images.paths)
    labels = [os.fsencode(text) for text in column.texts]
    paths, failed = contents.images.paths, contents.failed
    for row, code in enumerate(matched.codes.tolist()):
        path = paths[row] if row < len(paths) else failed[row - len(paths)][0]
        if code < 0:
            if is_test_folder(path.rpartition(b"/")[0]):
                collected.left_out[f"in a folder of test images, and in no row of {file}"] += 1
            else:
                collected.leave_out(f"in no row of {file}", path)
        elif row < len(paths):
            collected.add(labels[code], image_name(path[len(prefix) :], labels[code]), first + row)
        else:
            collected.fail(labels[code], image_name(path[len(prefix) :], labels[code]), failed[row - len(paths)][1])
    for note in matched.row_notes():
        collected.warn(note)
    _warn_of_absent(matched, collected)
    collected.refuse_same_names(contents.where)


def image_name(path: bytes, label: bytes) -> bytes:
    """Return the name of an image in its class: its path, without a first folder that is called as the class is."""
    return path.removeprefix(label + b"/")


def _warn_of_absent(matched: Matched, collected: Collected) -> None:
    """Name the labels of which no image is here: they are no classes of this source."""
    column = matched.column
    there = np.bincount(matched.codes[matched.codes >= 0], minlength=len(column.texts))
    if absent := [printable(text) for text, count in zip(column.texts, there.tolist(), strict=True) if not count]:
        what = counted(len(absent), "label")
        collected.warn(f"{what} of {show_path(column.table.path)} without image, and no class: {shorten(absent, 5)}")


def _may_be_labels(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell whether all images lie in one folder, or in none, and a table beside them or above."""
    return wanted is None and not contents.part and bool(_tables(contents))


def _image_folder(contents: Contents) -> bytes | None:
    """Return the only class folder of all images but those for tests, empty if they lie in none; None if several."""
    prefix = class_root(contents, None)
    folders = {folder for folder in contents.image_folders if not is_test_folder(folder)} or contents.image_folders
    classes = {folder[len(prefix) :].partition(b"/")[0] for folder in folders}
    return prefix + min(classes) if len(classes) == 1 else None


def _tables(contents: Contents) -> list[bytes]:
    """Return the tables that may hold the labels of all images, in the folder of the images or above it."""
    images = _image_folder(contents)
    if contents.name and images == b"" and len(contents.image_folders) == 1:  # an archive of one class
        return []
    tables = _tables_beside(contents, images)
    return tables or (_annotations(contents, images + b"/") if images else [])


def _tables_beside(contents: Contents, images: bytes | None) -> list[bytes]:
    """Return the tables in the folder of all images or above it; none where they lie in several."""
    if images is None:
        return []
    outer = images.rpartition(b"/")[0]
    return sorted(
        path
        for path in contents.other_tables
        for folder in [path.rpartition(b"/")[0]]
        if folder in (b"", images, outer)
        and not (folder in contents.image_folders and path.endswith(b".json"))  # a file of one image each
    )


def _annotations(contents: Contents, images: bytes) -> list[bytes]:
    """Return a file in another folder with the name of an image, as labels/a.txt for images/a.jpg; empty if none."""
    paths = (path for files in contents.sidecars.values() for path in files.paths)
    elsewhere = {_stem(path): path for path in paths if b"/" in path and not path.startswith(images)}
    return [elsewhere[stem] for stem in map(_stem, contents.images.paths) if stem in elsewhere][:1] if elsewhere else []


def _base(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _stem(path: bytes) -> bytes:
    return _base(path).rpartition(b".")[0]


def _refuse(contents: Contents, collected: Collected) -> Iterator[Contents]:
    refuse_split_folders(contents, class_root(contents, None))
    path, folder = _tables(contents)[0], _image_folder(contents)
    table = show_path(path)
    where = f"all images lie in {show_path(folder)}/" if folder else "its images lie in no folder"
    one = f"; if they are one class: {typed_classes([folder.rpartition(b'/')[2]])}" if folder else ""
    sort = f" the images into a folder for each class{one}"
    named = f"Name its columns: --table {shlex.quote(str(Path(contents.where, os.fsdecode(path))))} --file-column NAME "
    raise SourceError(
        _NO_CLASSES,
        contents.where,
        f"{where}, and {table} may hold their labels, which are not read",
        f"{named}--label-column NAME. Or sort{sort}" if path.endswith(_ROWS) else f"Sort{sort}",
    )


NAMED_TABLE = Kind(lambda contents, wanted: contents.labels.table is not None, _collect_named)
LABELLED_IMAGES = Kind(_fits, _collect)
LABEL_TABLE = Kind(_may_be_labels, _refuse)

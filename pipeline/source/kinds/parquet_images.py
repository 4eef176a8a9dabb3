"""Parquet files that hold images beside their labels, as Hugging Face distributes sets."""

import os
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import xxhash

from pipeline.errors import SourceError, source_errors
from pipeline.source.collected import Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.kinds.label_table import image_name
from pipeline.source.reader import PARQUET, stat_of
from pipeline.source.tables.column import LABEL_COLUMNS, Column
from pipeline.source.tables.labels import Labels, check_labels
from pipeline.source.tables.open import open_table
from pipeline.source.tables.parquet import class_labels, parquet_file
from pipeline.source.tables.parquet_images import image_column, image_paths, image_rows, set_name
from pipeline.source.tables.table import WHAT, named_column
from pipeline.text import shorten, show_path

SUFFIX = b".parquet"


def parquet_files(source: Path) -> list[bytes]:
    """Return the Parquet files that a source names: one, or those of a set, data/train of data/train-*.parquet."""
    if source.suffix == ".parquet" and source.is_file():
        return [os.fsencode(source)]
    if source.exists() or not source.parent.is_dir():
        return []
    beside = sorted(map(os.fsencode, source.parent.glob("*.parquet")))
    return [path for path in beside if set_name(path) == source.name]


def collect_files(paths: Sequence[bytes], collected: Collected, labels: Labels) -> None:
    """Add the images of Parquet files to the classes that their rows name.

    An image is called by its path; by the file and its row, if it has none, or another of its class has the same.

    Raises:
        SourceError: a file holds no images or no labels, or another table of labels was named.
        TableDamaged: a file, or the label of a row.
        AccessDenied, WorkerDied, StorageError: as `source_errors`.
    """
    if labels.table is not None:
        why = f"its images have their labels beside them, and {show_path(labels.table)} is another table"
        typed = f"train --labels {shlex.quote(show_path(labels.table))}"
        advice = f"Build it without --table, and then give other labels: {typed}"
        raise SourceError("two tables of labels", Path(os.fsdecode(paths[0])), why, advice)
    collected.uses_labels = True
    columns = [_read(Path(os.fsdecode(path)), labels) for path in paths]
    used: Counter[int] = Counter(_identity(*key) for column in columns for key in _names(column))
    for path, column in zip(paths, columns, strict=True):
        contents = _listed(path, column, used)
        first = collected.take(contents)
        for row, (label, _) in enumerate(_names(column)):
            collected.add(label, contents.images.paths[row], first + row)
    collected.warn(f"the classes are the column {show_path(columns[0].name)} of {_shown(paths)}")


def _read(path: Path, labels: Labels) -> Column:
    """Read the label and the path of each image of a file."""
    with source_errors(WHAT, path):
        images = image_column(path)
        if not images:
            why = "no column of it holds images"
            raise SourceError("no images to read", path, why, "For a table of labels beside images: --table FILE")
        table, classes = open_table(path), list(class_labels(parquet_file(path)))
        usual = (*(classes if len(classes) == 1 else ()), *LABEL_COLUMNS)
        name = named_column(table, usual, labels.label_column, "--label-column", "the label", images)
        column, code_of = Column(table, images, name), dict[str, int]()
        for (number, (text,)), file in zip(table.rows([name]), image_paths(path, images), strict=True):
            column.keys.append(_safe(file))
            column.codes.append(code_of.setdefault(text, len(code_of)))
            column.numbers.append(number)
        column.texts = list(code_of)
        check_labels(column)
    return column


def _listed(path: bytes, column: Column, used: Counter[int]) -> Contents:
    """List the images of a file, each by its name where no other of its class has it."""
    stem = os.path.splitext(os.path.basename(path))[0]
    names = [name if name and used[_identity(label, name)] == 1 else b"" for label, name in _names(column)]
    with source_errors(WHAT, column.table.path):
        contents = Contents(os.fsdecode(path), path, stat_of(os.stat(path)))
        for row, place in enumerate(image_rows(column.table.path)):
            contents.images.add(names[row] or b"%b-%d" % (stem, row + 1), (row, place.group, 0, PARQUET, place.row))
    return contents


def _safe(path: str) -> bytes:
    """Return a path that an image can be called by; empty where it is absolute, or leads elsewhere."""
    return b"" if path.startswith("/") or ".." in path.split("/") or "\0" in path else os.fsencode(path)


def _names(column: Column) -> Iterator[tuple[bytes, bytes]]:
    """Yield the class of each row, and the name of its image; empty where it has none."""
    labels = [os.fsencode(text) for text in column.texts]
    for key, code in zip(column.keys, column.codes, strict=True):
        yield labels[code], image_name(key, labels[code])


def _identity(label: bytes, name: bytes) -> int:
    return xxhash.xxh3_64_intdigest(b"%b\0%b" % (label, name))


def _fits(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell a folder without images of its own, with Parquet files that hold some."""
    return contents.archive_stat is None and not contents.images and bool(_files(contents))


def _files(contents: Contents) -> list[bytes]:
    return sorted(os.path.join(contents.root, path) for path in contents.other_tables if path.endswith(SUFFIX))


def _collect(contents: Contents, collected: Collected) -> Iterator[Contents]:
    paths = _files(contents)
    sets = sorted({(os.path.dirname(path), set_name(path)) for path in paths})
    if len(sets) > 1:
        shown = [show_path(os.path.join(folder, os.fsencode(name))) for folder, name in sets]
        best = next((path for path in shown if path.endswith("train")), shown[0])
        why = f"it holds Parquet files of several sets: {shorten([name for _, name in sets], 5)}"
        raise SourceError("no images to read", contents.where, why, f"Build each: build-cache {shlex.quote(best)}")
    collect_files(paths, collected, contents.labels)
    for path in contents.other_tables:
        if path.endswith(SUFFIX):
            contents.use_table(path)
    collected.take_left_out(contents)
    return iter(())


def _shown(paths: Sequence[bytes]) -> str:
    return shorten([show_path(os.path.basename(path)) for path in paths], 2)


PARQUET_IMAGES = Kind(_fits, _collect)

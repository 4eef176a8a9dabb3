"""Write and read split.csv: the fold of each image, found again by the SHA-256 of its file."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError, TableDamaged
from pipeline.format.duplicates import digest_items
from pipeline.format.paths import cache_name
from pipeline.format.sharded import Reader
from pipeline.source.tables.open import open_table
from pipeline.source.tables.table import WHAT, Table
from pipeline.system import files
from pipeline.text import command_line, csv_text, shorten, show_path

COLUMNS = ("class", "file", "sha256", "group", "fold")
TEST = -1  # fold of an image that only the test set has
UNLISTED = -2  # fold of an image that the split does not list
_TEST_TEXT = "test"
_ADVICE = f"Write it again: {command_line()} split CACHE --force"


@dataclass(frozen=True)
class SplitTable:
    """The fold of each image. Images with the same SHA-256 have one fold, and so has each group.

    Attributes:
        path: its file, for messages.
        classes, files: (N,) class id and file name of each image, as text. They name images to people; only the
            SHA-256 finds an image, so renamed and moved images are found too.
        sha256: (N, 32) uint8, of each image file.
        groups: (N,) name of each image's group; empty where it has none.
        folds: (N,) int64, 0..K-1, or `TEST`.
    """

    path: Path
    classes: list[str]
    files: list[str]
    sha256: NDArray[np.uint8]
    groups: list[str]
    folds: NDArray[np.int64]

    @property
    def num_folds(self) -> int:
        """K, the number of folds; the test set is none of them."""
        return int(self.folds.max()) + 1


@dataclass(frozen=True)
class MatchedSplit:
    """A split that was matched with the images of a cache.

    Attributes:
        folds: (M,) int64 by row of the cache: 0..K-1, `TEST`, or `UNLISTED`.
        unlisted: "class/file" of images of the cache that the split does not list.
        absent: "class/file" of entries of the split that are not in the cache.
    """

    folds: NDArray[np.int64]
    unlisted: list[str]
    absent: list[str]

    @property
    def warnings(self) -> list[str]:
        """Count and name the images that only one side has: a line for each side."""
        texts = []
        if self.unlisted:
            counted = f"{len(self.unlisted)} of {len(self.folds)} images of the cache are not in the split"
            texts.append(f"{counted}, and are left out: {shorten(self.unlisted)}")
        if self.absent:
            texts.append(f"{len(self.absent)} images of the split are not in the cache: {shorten(self.absent)}")
        return texts


def split_of(
    reader: Reader, path: Path, folds: NDArray[np.int64], groups: NDArray[np.int64], names: Sequence[str]
) -> SplitTable:
    """Return the split of a cache.

    Args:
        reader: of the cache.
        path: of the split.
        folds: (N,) int64, 0..K-1, or `TEST`.
        groups: (N,) int64, each image's group.
        names: of the groups; empty for an image that stands alone.
    """
    classes = [str(reader.class_ids[label]) for label in reader.table("labels").tolist()]
    named = [os.fsdecode(name) for name in reader.table("filenames").tolist()]
    return SplitTable(
        path, classes, named, reader.table("source_sha256"), [names[group] for group in groups.tolist()], folds
    )


def split_text(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return the bytes of a split.csv with rows (class, file, sha256 in hexadecimal, group, fold)."""
    return csv_text(chain([COLUMNS], rows)).encode("utf-8", "surrogateescape")


def write_split(split: SplitTable) -> None:
    """Write a split to its path, by one rename.

    Raises:
        OSError: it cannot be written.
    """
    folds = (_TEST_TEXT if fold == TEST else fold for fold in split.folds.tolist())
    digests = (digest.tobytes().hex() for digest in split.sha256)
    files.publish(split_text(zip(split.classes, split.files, digests, split.groups, folds, strict=True)), split.path)


def split_path(cache: Path) -> Path:
    """Return where the split of a cache lies: `<cache>-split.csv` beside it."""
    return cache.with_name(f"{cache_name(cache)}-split.csv")


def read_split(path: Path) -> SplitTable:
    """Read a split.csv. Further columns, a byte order mark, CRLF and quotes are fine.

    Raises:
        SourceError: there is no such file, a column is missing, or it lists no image.
        TableDamaged: a line is damaged, a fold has no image, or a group or the same content has two folds. Names file
            and line.
        AccessDenied, WorkerDied, StorageError: as `open_table`.
    """
    table = open_table(path)
    classes, names, groups = list[str](), list[str](), list[str]()
    known: dict[str, str] = {}  # classes and groups repeat: one text for all
    digests, folds, lines = bytearray(), list[int](), list[int]()
    fold_of: dict[str, tuple[int, int]] = {}  # of a group: its fold, and the line that says so
    for number, cells in table.cells(COLUMNS):
        class_id, file, sha256, group, fold = cells
        if not _is_digest(sha256):
            table.refuse(number, f"sha256 is 64 hexadecimal digits, not {sha256[:80]!r}", _ADVICE)
        if fold != _TEST_TEXT and not (fold.isascii() and fold.isdecimal() and len(fold) <= 4):
            table.refuse(number, f"fold is a number from 0 or {_TEST_TEXT!r}, not {fold[:80]!r}", _ADVICE)
        digests += bytes.fromhex(sha256)
        folds.append(TEST if fold == _TEST_TEXT else int(fold))
        classes.append(known.setdefault(class_id, class_id))
        names.append(file)
        groups.append(known.setdefault(group, group))
        lines.append(number)
        before, first = fold_of.setdefault(group, (folds[-1], number)) if group else (folds[-1], number)
        if before != folds[-1]:
            table.refuse(
                number, f"group {group!r} is in {show_fold(folds[-1])}, and in {show_fold(before)} in line {first}"
            )
    if not names:
        raise SourceError(WHAT, path, "it lists no image", _ADVICE)
    sha256_N32 = np.frombuffer(bytes(digests), np.uint8).reshape(-1, 32)
    split = SplitTable(path, classes, names, sha256_N32, groups, np.array(folds, np.int64))
    _check_folds(split, table, lines)
    return split


def match_split(split: SplitTable, reader: Reader) -> MatchedSplit:
    """Find the images of a cache in a split, by the SHA-256 of their files.

    Args:
        split: the table.
        reader: of a cache, `cache.reader`; its names, classes and row format do not matter.

    Raises:
        TableDamaged: the split lists no image of the cache.
    """
    ours, theirs = digest_items(reader.table("source_sha256")), digest_items(split.sha256)
    order = np.argsort(theirs, kind="stable")
    at = np.minimum(np.searchsorted(theirs[order], ours), len(theirs) - 1)
    entries = np.where(theirs[order[at]] == ours, order[at], -1)
    listed = entries >= 0
    if not listed.any():
        reason = f"it lists none of the {reader.num_images} images of {show_path(reader.path)}"
        raise TableDamaged(
            "the split is of other images", split.path, reason, "Give the split of this cache, or make it"
        )
    folds = np.where(listed, split.folds[entries], UNLISTED)
    absent = np.flatnonzero(~np.isin(theirs, ours)).tolist()
    names = [show_path(f"{split.classes[row]}/{split.files[row]}") for row in absent]
    return MatchedSplit(folds, image_names(reader, np.flatnonzero(~listed)), names)


def image_names(reader: Reader, rows: NDArray[np.int64]) -> list[str]:
    """Return "class/file" of rows of a cache, for messages."""
    names, labels = reader.table("filenames")[rows].tolist(), reader.table("labels")[rows].tolist()
    return [f"{reader.class_ids[label]}/{show_path(name)}" for name, label in zip(names, labels, strict=True)]


def show_fold(fold: int) -> str:
    """Return a fold as text: "fold 0" or "test"."""
    return _TEST_TEXT if fold == TEST else f"fold {fold}"


def _is_digest(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdefABCDEF")


def _check_folds(split: SplitTable, table: Table, lines: list[int]) -> None:
    """Refuse content with two folds, folds without an image, and fewer folds than two."""
    _, inverse = np.unique(digest_items(split.sha256), return_inverse=True)
    first = np.full(inverse.max() + 1, -1)
    first[inverse[::-1]] = np.arange(len(inverse))[::-1]
    for row in np.flatnonzero(split.folds != split.folds[first[inverse]])[:1].tolist():
        twin = int(first[inverse[row]])
        here, there = (show_fold(int(split.folds[i])) for i in (row, twin))
        table.refuse(lines[row], f"it is in {here}, and the same content is in {there} in line {lines[twin]}")
    empty = set(range(split.num_folds)) - set(split.folds.tolist())
    if empty or split.num_folds < 2:
        why = f"it has {split.num_folds} folds, and 2 or more are needed"
        if empty:
            why = f"no image is in fold {min(empty)}, and some are in fold {split.num_folds - 1}"
        raise TableDamaged(WHAT, split.path, why, _ADVICE)

"""Write and read split.csv: the fold of each image, found again by the SHA-256 of its file."""

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AccessDenied, SourceError, StorageError, TableDamaged
from pipeline.format.sharded import Reader
from pipeline.system import files
from pipeline.text import shorten, show_path

COLUMNS = ("class", "file", "sha256", "group", "fold")
TEST = -1  # fold of an image that only the test set has
UNLISTED = -2  # fold of an image that the split does not list
_TEST_TEXT = "test"
_DIGEST = np.dtype((np.void, 32))
_ADVICE = "Write it again: python cli.py split CACHE --force"


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
        entries: (M,) int64, position of each row's entry in the table; -1 where it is not listed.
        num_folds: K, the number of folds of the table.
        unlisted: "class/file" of images of the cache that the split does not list.
        absent: "class/file" of entries of the split that are not in the cache.
    """

    folds: NDArray[np.int64]
    entries: NDArray[np.int64]
    num_folds: int
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


def split_text(rows: Iterable[Iterable[Any]]) -> bytes:
    """Return the bytes of a split.csv with rows (class, file, sha256 in hexadecimal, group, fold)."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "surrogateescape")


def write_split(split: SplitTable) -> None:
    """Write a split to its path, by one rename.

    Raises:
        OSError: it cannot be written.
    """
    folds = (_TEST_TEXT if fold == TEST else fold for fold in split.folds.tolist())
    digests = (digest.tobytes().hex() for digest in split.sha256)
    files.publish(split_text(zip(split.classes, split.files, digests, split.groups, folds, strict=True)), split.path)


def read_split(path: Path) -> SplitTable:
    """Read a split.csv. Further columns, a byte order mark, CRLF and quotes are fine.

    Raises:
        SourceError: there is no such file, or it lists no image.
        TableDamaged: a column is missing, a line is damaged, a fold has no image, or a group or the same content has
            two folds. Names file and line.
        AccessDenied, StorageError: it cannot be read.
    """
    what = "the split cannot be read"
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise SourceError("there is no such split", path, "no such file", "Type: python cli.py split CACHE") from error
    except OSError as error:
        kind = AccessDenied if isinstance(error, PermissionError) else StorageError
        raise kind(what, path, error.strerror or str(error)) from error
    try:
        split = _parse(data, path)
    except (ValueError, csv.Error) as error:
        raise TableDamaged("the split is not what is needed", path, str(error), _ADVICE) from error
    if not split.files:
        raise SourceError(what, path, "it lists no image", _ADVICE)
    return split


def match_split(split: SplitTable, reader: Reader) -> MatchedSplit:
    """Find the images of a cache in a split, by the SHA-256 of their files.

    Args:
        split: the table.
        reader: of a cache, `cache.reader`; its names, classes and row format do not matter.

    Raises:
        TableDamaged: the split lists no image of the cache.
    """
    ours = np.ascontiguousarray(reader.table("source_sha256")).view(_DIGEST).ravel()
    theirs = np.ascontiguousarray(split.sha256).view(_DIGEST).ravel()
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
    return MatchedSplit(folds, entries, split.num_folds, image_names(reader, np.flatnonzero(~listed)), names)


def image_names(reader: Reader, rows: NDArray[np.int64]) -> list[str]:
    """Return "class/file" of rows of a cache, for messages."""
    names, labels = reader.table("filenames")[rows].tolist(), reader.table("labels")[rows].tolist()
    return [f"{reader.class_ids[label]}/{show_path(name)}" for name, label in zip(names, labels, strict=True)]


def _parse(data: bytes, path: Path) -> SplitTable:
    text = io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", "surrogateescape", newline="")  # StringIO: 4 bytes a letter
    lines = csv.reader(text)
    header = next(lines, [])
    missing = [column for column in COLUMNS if column not in header]
    if missing:
        raise ValueError(f"it has no column {missing[0]!r}; its columns are {shorten(list(map(repr, header)))}")
    at = [header.index(column) for column in COLUMNS]
    classes, names, groups = list[str](), list[str](), list[str]()
    known: dict[str, str] = {}  # classes and groups repeat: one text for all
    digests, folds = bytearray(), list[int]()
    fold_of: dict[str, tuple[int, int]] = {}  # of a group: its fold, and the line that says so
    for line in lines:
        number = lines.line_num
        if not line:
            continue
        if len(line) != len(header):
            raise ValueError(f"line {number} has {len(line)} columns, and the first line has {len(header)}")
        class_id, file, sha256, group, fold = (line[position] for position in at)
        digests += _digest(sha256, number)
        folds.append(_fold(fold, number))
        classes.append(known.setdefault(class_id, class_id))
        names.append(file)
        groups.append(known.setdefault(group, group))
        if group:
            before, first = fold_of.setdefault(group, (folds[-1], number))
            if before != folds[-1]:
                both = f"{_named(before)} (line {first}) and {_named(folds[-1])} (line {number})"
                raise ValueError(f"group {group!r} has two folds: {both}")
    sha256_N32 = np.frombuffer(bytes(digests), np.uint8).reshape(-1, 32)
    split = SplitTable(path, classes, names, sha256_N32, groups, np.array(folds, np.int64))
    _check_folds(split)
    return split


def _digest(text: str, line: int) -> bytes:
    try:
        digest = bytes.fromhex(text)
    except ValueError:
        digest = b""
    if len(digest) != 32 or len(text) != 64:
        raise ValueError(f"line {line}: sha256 is 64 hexadecimal digits, not {text[:80]!r}")
    return digest


def _fold(text: str, line: int) -> int:
    if text == _TEST_TEXT:
        return TEST
    if text in ("train", "val"):
        raise ValueError(f"line {line}: fold is {text!r}, so it is the split of a run; a table of folds is needed")
    if not (text.isascii() and text.isdecimal() and len(text) <= 4):
        raise ValueError(f"line {line}: fold is a number from 0 or {_TEST_TEXT!r}, not {text[:80]!r}")
    return int(text)


def _check_folds(split: SplitTable) -> None:
    """Refuse content with two folds, folds without an image, and fewer folds than two."""
    if not split.files:
        return
    _, inverse = np.unique(split.sha256.view(_DIGEST).ravel(), return_inverse=True)
    first = np.full(inverse.max() + 1, -1)
    first[inverse[::-1]] = np.arange(len(inverse))[::-1]
    torn = np.flatnonzero(split.folds != split.folds[first[inverse]])
    if len(torn):
        rows = first[inverse[torn[0]]], torn[0]
        named = [f"{show_path(split.files[row])} in {_named(int(split.folds[row]))}" for row in rows]
        raise ValueError(f"the same content has two folds: {' and '.join(named)} (image {torn[0] + 1})")
    empty = set(range(split.num_folds)) - set(split.folds.tolist())
    if empty:
        raise ValueError(f"fold {min(empty)} has no image, and fold {split.num_folds - 1} has")
    if split.num_folds < 2:
        raise ValueError(f"it has {split.num_folds} folds, and 2 or more are needed")


def _named(fold: int) -> str:
    return _TEST_TEXT if fold == TEST else f"fold {fold}"

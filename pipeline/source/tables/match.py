"""Find the images that the rows of a table name: by path below the source, by file name, or by content."""

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.format.duplicates import digest_items
from pipeline.format.sharded import Reader
from pipeline.source.contents import Contents
from pipeline.source.reader import hash_images
from pipeline.source.tables.column import Column, read_column
from pipeline.source.tables.labels import Labels, read_labels
from pipeline.source.tables.table import WHAT
from pipeline.text import counted, printable, shorten, show_path

_SHOWN = 5


@dataclass(frozen=True)
class Images:
    """The images that a table may name.

    Attributes:
        names: what rows may call them, the surest first: each yields (N,) names in bytes.
        digests: returns (N, 32) uint8, the SHA-256 of their contents.
        show: names an image for people.
    """

    names: tuple[Callable[[], Iterable[bytes]], ...]
    digests: Callable[[], NDArray[np.uint8]]
    show: Callable[[int], str]


@dataclass(frozen=True)
class Matched:
    """What a table says of images.

    Attributes:
        column: of the table.
        images: N of them.
        rows: (N,) int64, the position in `column` of the row that names each image; -1 where none does.
        without_image: (U,) int64, positions of the rows that name no image here.
        repeated: rows that say of an image what another one said.
    """

    column: Column
    images: Images
    rows: NDArray[np.int64]
    without_image: NDArray[np.int64]
    repeated: int

    @property
    def codes(self) -> NDArray[np.int64]:
        """(N,) int64, the position in `column.texts` of each image's value; -1 where no row names it."""
        return np.where(self.rows >= 0, np.frombuffer(self.column.codes, np.int32)[self.rows], -1).astype(np.int64)

    def values(self) -> list[str | None]:
        """Return the value of each image: "" where its cell is empty, None where no row names it."""
        return [None if code < 0 else self.column.texts[code] for code in self.codes.tolist()]

    def notes(self) -> Iterator[str]:
        """Yield what does not fit, for people: images in no row, rows without image, repeated rows."""
        yield from self.image_notes()
        yield from self.row_notes()

    def image_notes(self) -> Iterator[str]:
        """Yield which images are in no row, for people; nothing if all are in one."""
        file = show_path(self.column.table.path)
        if len(missing := np.flatnonzero(self.rows < 0)):
            shown = shorten(list(map(self.images.show, missing[:_SHOWN].tolist())), _SHOWN, len(missing))
            yield f"{counted(len(missing), 'image')} in no row of {file}: {shown}"

    def row_notes(self, without_image: NDArray[np.int64] | None = None) -> Iterator[str]:
        """Yield what does not fit of rows, for people: without image, or repeated.

        Args:
            without_image: instead of the attribute, where the table is of several caches.
        """
        column, file = self.column, show_path(self.column.table.path)
        without = self.without_image if without_image is None else without_image
        if count := len(without):
            rows = ((show_path(column.keys[i]), column.numbers[i]) for i in without[:_SHOWN].tolist())
            shown = shorten([f"{key} ({column.table.unit} {number})" for key, number in rows], _SHOWN, count)
            yield f"{counted(count, 'row')} of {file} without image: {shown}"
        if self.repeated:
            yield f"{counted(self.repeated, 'row')} of {file} repeated"


def values_of_cache(
    reader: Reader, path: Path, column: str, file_column: str | None = None, flag: str = "--label-column"
) -> Matched:
    """Return what a column of a table says of the images of a cache.

    Args:
        reader: of the cache.
        path, column, file_column, flag: as `read_column` has them.

    Raises:
        SourceError, TableDamaged, AccessDenied, WorkerDied, StorageError: as `read_column` and `match`.
    """
    return match(read_column(path, column, file_column, flag), images_of_cache(reader))


def labels_of_cache(reader: Reader, labels: Labels, content: bytes | None = None, needed: bool = True) -> Matched:
    """Return the labels that a table gives to the images of a cache, and to their copies: content tells an image.

    Args:
        reader: of the cache.
        labels: the table and its columns.
        content: of the table, to read it once; None reads the file.
        needed: refuse a table that names no image.

    Raises:
        SourceError, AccessDenied, WorkerDied, StorageError: as `read_labels` and `match`.
        TableDamaged: the same, or two copies have different labels.
    """
    assert labels.table is not None
    matched = match(read_labels(labels, labels.table, content), images_of_cache(reader), needed)
    return _with_copies(matched, reader.table("source_sha256"))


def _with_copies(matched: Matched, digests: NDArray[np.uint8]) -> Matched:
    """Let a row hold for all images with the content of the one that it names."""
    named = np.flatnonzero(matched.rows >= 0)
    groups = np.unique(digest_items(digests), return_inverse=True)[1]
    row_of = np.full(int(groups.max(initial=-1)) + 1, -1, np.int64)
    row_of[groups[named[::-1]]] = matched.rows[named[::-1]]
    rows, column = row_of[groups], matched.column
    codes = np.frombuffer(column.codes, np.int32)
    for image in named[codes[rows[named]] != codes[matched.rows[named]]][:1].tolist():
        other = int(named[np.flatnonzero(groups[named] == groups[image])[0]])
        first, second = (
            f"{matched.images.show(i)} is {printable(column.texts[codes[row]])} ({column.table.unit} {number})"
            for i in (other, image)
            for row in [int(matched.rows[i])]
            for number in [column.numbers[row]]
        )
        why = f"the {column.name} of {first}, and that of its copy {second}"
        column.table.refuse(column.numbers[int(matched.rows[image])], why, "One image has one label")
    return replace(matched, rows=rows)


def images_of_cache(reader: Reader) -> Images:
    """Return the images of a cache: their path below the source is "class/name", or the name of a source without."""
    folders, labels, names = reader.class_folders, reader.table("labels"), reader.table("filenames")

    def paths() -> Iterator[bytes]:
        return (b"%b/%b" % (folders[label], name) for label, name in zip(labels.tolist(), names, strict=True))

    return Images(
        names=(paths, lambda: names, *without_folder_and_suffix(lambda: names)),
        digests=lambda: reader.table("source_sha256"),
        show=lambda row: show_path(b"%b/%b" % (folders[int(labels[row])], names[row])),
    )


def images_of_source(contents: Contents, starts: Iterable[bytes]) -> Images:
    """Return the images of a folder or archive, and behind them its failed files.

    Args:
        contents: of the folder or archive.
        starts: folders below which rows may name images, "" or "folder/", the surest first.
    """
    listed, failed = contents.images.paths, [path for path, _ in contents.failed]

    def paths() -> Iterator[bytes]:
        return chain(listed, failed)

    def below(start: bytes) -> Callable[[], Iterator[bytes]]:
        return lambda: (path[len(start) :] if path.startswith(start) else b"/" for path in paths())

    def with_root() -> Iterator[bytes]:
        root = os.path.basename(os.path.realpath(contents.root))
        return (root + b"/" + path for path in paths())

    def digests() -> NDArray[np.uint8]:
        hashed = hash_images(contents.location(contents.images, row) for row in range(len(listed)))
        found = [image[0] if image else bytes(32) for image in hashed]
        return np.frombuffer(b"".join(found) + bytes(32 * len(failed)), np.uint8).reshape(-1, 32)

    whole = list(map(below, dict.fromkeys(starts)))
    return Images(
        names=(*whole, with_root, *map(_without_suffix, whole), *without_folder_and_suffix(paths)),
        digests=digests,
        show=lambda row: show_path(listed[row] if row < len(listed) else failed[row - len(listed)]),
    )


def without_folder_and_suffix(
    paths: Callable[[], Iterable[bytes]],
) -> tuple[Callable[[], Iterable[bytes]], Callable[[], Iterable[bytes]]]:
    """Return the shorter names of images: the file's, and that without suffix, as many tables have it."""

    def files() -> Iterator[bytes]:
        return (path.rpartition(b"/")[2] for path in paths())

    return files, _without_suffix(files)


def _without_suffix(names: Callable[[], Iterable[bytes]]) -> Callable[[], Iterable[bytes]]:
    return lambda: (os.path.splitext(name)[0] for name in names())


def match(column: Column, images: Images, needed: bool = True) -> Matched:
    """Find the image of each row.

    Raises:
        SourceError: no row names an image, and one is `needed`.
        TableDamaged: a row's name is that of several images, or two rows say different things of an image.
    """
    found = _by_content(column, images) if column.of_contents else _by_name(column, images)
    if needed and not len(found[0]):
        names, first = printable(column.file_column), show_path(column.keys[0])
        why = f"its column {names} names no image here; its first name is {first}"
        other = (
            "Write paths with /, not with \\" if b"\\" in column.keys[0] else "Give the right table or --file-column"
        )
        raise SourceError(WHAT, column.table.path, why, other)
    rows_of, images_of = found
    order = np.lexsort((rows_of, images_of))
    rows_of, images_of = rows_of[order], images_of[order]
    codes = np.frombuffer(column.codes, np.int32)[rows_of]
    again = np.flatnonzero(images_of[1:] == images_of[:-1]) + 1
    for place in again[codes[again] != codes[again - 1]][:1].tolist():
        first, second = (
            f"{printable(column.texts[codes[i]]) or 'empty'} ({column.table.unit} {column.numbers[rows_of[i]]})"
            for i in (place - 1, place)
        )
        why = f"{column.name} of {images.show(int(images_of[place]))} is {first} and {second}"
        column.table.refuse(column.numbers[rows_of[place]], why, "Leave one row for each image")
    rows = np.full(sum(1 for _ in images.names[0]()), -1, np.int64)
    rows[images_of[::-1]] = rows_of[::-1]
    matched = np.zeros(len(column.keys), bool)
    matched[rows_of] = True
    return Matched(column, images, rows, np.flatnonzero(~matched), len(np.unique(rows_of[again])))


_Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def _by_name(column: Column, images: Images) -> _Pairs:
    """Return pairs of a row and its image: the first kind of name that any image has decides."""
    image_of = np.full(len(column.keys), -1, np.int64)
    if column.spaced:  # a file may really have them
        exact = (column.spaced.get(row, key) for row, key in enumerate(column.keys))
        _find(column, images, image_of, exact, iter)
    _find(column, images, image_of, column.keys, iter)
    if not all(column.keys[row].isascii() for row in np.flatnonzero(image_of < 0).tolist()):
        _find(column, images, image_of, column.keys, partial(map, _composed))  # macOS writes an e and an accent
    rows = np.flatnonzero(image_of >= 0)
    return rows, image_of[rows]


def _find(
    column: Column,
    images: Images,
    image_of: NDArray[np.int64],
    keys: Iterable[bytes],
    spell: Callable[[Iterable[bytes]], Iterator[bytes]],
) -> None:
    """Fill in the image of each row that has none yet, with its key and the names of images as `spell` writes them."""
    wanted = _hashes(spell(keys))
    for names in images.names:
        todo = np.flatnonzero(image_of < 0)
        if not len(todo):
            break
        hashes = _hashes(spell(names()))
        order = np.argsort(hashes, kind="stable")
        hashes = hashes[order]
        first, end = (np.searchsorted(hashes, wanted[todo], side) for side in ("left", "right"))
        for place in np.flatnonzero(end - first > 1)[:1].tolist():
            row, same = int(todo[place]), order[first[place] : end[place]].tolist()
            shown = shorten(list(map(images.show, same)), 2)
            why = f"{show_path(column.keys[row])} is the name of {len(same)} images: {shown}"
            column.table.refuse(column.numbers[row], why, "Give the path below the source")
        there = end > first
        image_of[todo[there]] = order[first[there]]


def _composed(name: bytes) -> bytes:
    """Return a name with each letter and its accent as one character."""
    return os.fsencode(unicodedata.normalize("NFC", os.fsdecode(name)))


def _hashes(names: Iterable[bytes]) -> NDArray[np.uint64]:
    """Hash names: that two of a million share one of 2**64 numbers is as likely as a disk error nobody sees."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, names), np.uint64)


def _by_content(column: Column, images: Images) -> _Pairs:
    """Return pairs of a row and each image that has its content."""
    ours, theirs = map(digest_items, (images.digests(), column.digests()))
    different, row_of = np.unique(ours, return_inverse=True)
    place = np.minimum(np.searchsorted(different, theirs), max(0, len(different) - 1))
    rows = np.flatnonzero(different[place] == theirs) if len(different) else np.empty(0, np.int64)
    order = np.argsort(row_of, kind="stable")
    starts = np.searchsorted(row_of[order], np.arange(len(different) + 1))
    counts = starts[place[rows] + 1] - starts[place[rows]]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(rows, counts), order[np.repeat(starts[place[rows]], counts) + within]

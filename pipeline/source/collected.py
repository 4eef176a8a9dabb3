"""Collect images by class folder while a source is listed, before they are put in order."""

import os
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.format.tables import Failed
from pipeline.source.contents import MEMBER_NUMBERS, Contents
from pipeline.source.file_names import SOLUTION, suffix_of
from pipeline.source.manifest import MEMBER_COLUMNS
from pipeline.source.packed import PackedNames
from pipeline.source.reader import Location, Stat
from pipeline.text import show_path

OUTSIDE = "outside a class folder"


class ClassImages:
    """The images of one class: their names, and their rows among all images collected."""

    def __init__(self) -> None:
        self.names = PackedNames()
        self.rows = array("q")

    def add(self, name: bytes, row: int) -> None:
        """Add an image."""
        self.names.append(name)
        self.rows.append(row)

    def add_all(self, other: "ClassImages", below: bytes) -> None:
        """Add the images of another class folder, which is then a folder in this class."""
        self.names.extend(below + b"/" + name for name in other.names)
        self.rows += other.rows

    def in_order(self) -> NDArray[np.int64]:
        """Return the positions of the images by the bytes of their names; of equal names, the last counts."""
        names = self.names.table()
        order: NDArray[np.int64] = np.argsort(names, kind="stable")
        names = names[order]
        last: NDArray[np.bool_] = np.append(names[1:] != names[:-1], True)[: len(order)]
        return order[last]


@dataclass
class Collected:
    """Images by class folder, and everything else that a source holds; see `Manifest`.

    Attributes:
        wanted: the class folders asked for; None for all. They overrule every guess about what the classes are.
        around: folders in which tables of the source may lie, besides those that it holds itself.
        files: the images of each class folder.
        tables: where the tables of the source lie, by name.
        unwanted: class folders that nobody asked for.
        prefix: the folder of the class folders, below the folder that is the source; empty or ending in "/".
        paths: of each image, its path below the source, if its class and name do not tell it; else empty.
        archives: path and stat data of the archives that images are members of.
        uses_labels: whether the classes are in a table.
    """

    wanted: Collection[bytes] | None = None
    around: list[bytes] = field(default_factory=list)
    files: dict[bytes, ClassImages] = field(default_factory=dict)
    tables: dict[bytes, Location] = field(default_factory=dict)
    unwanted: set[bytes] = field(default_factory=set)
    prefix: bytes = b""
    paths: PackedNames = field(default_factory=PackedNames)
    archives: list[tuple[bytes, Stat]] = field(default_factory=list)
    uses_labels: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_named: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    _stats: list[NDArray[np.int64]] = field(default_factory=list)
    _members: list[NDArray[np.int64]] = field(default_factory=list)
    _rows: int = 0

    def take(self, contents: Contents, sidecars: bytes = b"") -> int:
        """Take the columns of all images of a folder or archive, and what is left out of it.

        Args:
            contents: of the folder or archive.
            sidecars: suffix of the files beside images that are read too, and not left out.

        Returns:
            The row of its first image; the others follow.
        """
        first, self._rows = self._rows, self._rows + len(contents.images)
        numbers = np.frombuffer(contents.images.numbers, np.int64)
        if contents.archive_stat is None:
            self._stats.append(numbers.reshape(-1, len(Stat._fields)))
        else:
            archive = contents.root, contents.archive_stat
            if archive not in self.archives[-1:]:
                self.archives.append(archive)
            numbers = numbers.reshape(-1, MEMBER_NUMBERS)
            self._members.append(np.insert(numbers, 0, len(self.archives) - 1, axis=1))
            stats = np.tile(np.array(contents.archive_stat, np.int64), (len(numbers), 1))
            stats[:, 0] = numbers[:, 2]  # a member has the stat data of its archive, and its own size
            self._stats.append(stats)
        self.take_left_out(contents, sidecars)
        self.left_out.update(f"suffix {show_path(suffix_of(path))}" for path in contents.archives.paths)
        return first

    def take_left_out(self, contents: Contents, sidecars: bytes = b"") -> None:
        """Record the files that are left out of a folder or archive; leave its images and archives alone."""
        self.left_out += contents.left_out
        for path, reason in contents.left_out_named:
            self.left_out_named.append((os.fsdecode(path), reason))
        for suffix, files in contents.sidecars.items():
            if suffix != sidecars and files:
                self.left_out[f"suffix {show_path(suffix)}"] += len(files)
        self.warnings += contents.warnings
        self.unwanted |= contents.unread

    def take_tables(self, contents: Contents, prefix: bytes) -> None:
        """Take the tables in the folder of the classes or above it; the nearest counts, then the outermost archive."""
        for folder, name, location in contents.tables:
            if not folder or prefix.startswith(folder + b"/"):
                self.tables.setdefault(name, location)
            else:
                self.left_out[f"suffix {show_path(suffix_of(name))}"] += 1

    def class_images(self, folder: bytes) -> ClassImages | None:
        """Return the images of a class, which is added if new; None if it was not asked for."""
        if self.wanted is not None and folder not in self.wanted:
            self.unwanted.add(folder)
            return None
        return self.files.setdefault(folder, ClassImages())

    def add(self, folder: bytes, name: bytes, row: int) -> None:
        """Add an image to a class, unless nobody asked for that."""
        images = self.files.get(folder) or self.class_images(folder)
        if images is not None:
            images.add(name, row)

    def fail(self, folder: bytes, name: bytes, reason: str) -> None:
        """Note a file of a class that cannot be reached; the next build tries it again."""
        if self.class_images(folder) is not None:
            self.failed.append(Failed(os.fsdecode(folder), os.fsdecode(name), reason, transient=True))

    def refuse_same_names(self, where: str) -> None:
        """Refuse two images that a class would have under one name, as a.jpg and cat/a.jpg have in class cat.

        Raises:
            SourceError: names both.
        """
        for folder, images in self.files.items():
            if len(images.in_order()) < len(images.rows):
                name = Counter(images.names).most_common(1)[0][0]
                both = f"{show_path(name)} and {show_path(folder + b'/' + name)}"
                why = f"two images of class {show_path(folder)} would both be called {show_path(name)}: {both}"
                raise SourceError("no images to read", where, why, "Rename one of them")

    def leave_out(self, reason: str, path: bytes) -> None:
        """Count a file that may have been meant as an image, and name it."""
        self.left_out[reason] += 1
        self.left_out_named.append((os.fsdecode(path), reason))

    def warn(self, warning: str) -> None:
        """Add a warning, once."""
        if warning not in self.warnings:
            self.warnings.append(warning)

    def table(self, names: Collection[bytes]) -> tuple[bytes, Location] | None:
        """Return name and location of the first of these tables, from the source itself or else from around it."""
        around = ({name: os.path.join(folder, name) for name in names} for folder in self.around)
        for name in names:
            if name in self.tables:
                return name, self.tables[name]
        for paths in around:
            for name, path in paths.items():
                if os.path.isfile(path):
                    return name, path
        return None

    def solution(self) -> Location | None:
        """Return where the table of the classes of ImageNet's validation images lies; None if there is none."""
        found = self.table((SOLUTION,))
        return found[1] if found else None

    def columns(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (n, 4) stat data and (n, 6) members of these rows; (0, 6) for plain files."""
        stats = np.concatenate([*self._stats, np.empty((0, len(Stat._fields)), np.int64)])
        members = np.concatenate([*self._members, np.empty((0, MEMBER_COLUMNS), np.int64)])
        return stats[rows], members[rows] if len(members) else members


class Kind(NamedTuple):
    """A kind of source: how images say what their classes are.

    Attributes:
        fits: tells whether a folder or an archive is of this kind, given the class folders asked for.
        collect: adds the images to their classes; yields the contents of archives that belong to the source too. If
            images do not lie in folders of their classes, it extends `Collected.paths` where they are plain files.
    """

    fits: Callable[[Contents, Collection[bytes] | None], bool]
    collect: Callable[[Contents, Collected], Iterator[Contents]]

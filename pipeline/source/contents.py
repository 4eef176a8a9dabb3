"""The files of a folder or an archive in one form, before anything says what their classes are.

Paths are bytes below the folder or archive, '/'-separated. Images are kept in columns: there may be millions.
"""

import os
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from pipeline.source.file_names import ARCHIVE_SUFFIXES, SIDECAR_SUFFIXES, TABLE_SUFFIXES, not_an_image_name
from pipeline.source.packed import PackedNames
from pipeline.source.reader import Location, Member, Stat
from pipeline.source.tables.labels import Labels

MEMBER_NUMBERS = len(Member._fields) - 2  # all but the archive and its stat data


class Files:
    """Files in columns: their paths, and of each its stat data or, in an archive, the numbers of its `Member`."""

    def __init__(self) -> None:
        self.paths = PackedNames()
        self.numbers = array("q")

    def __len__(self) -> int:
        return len(self.paths)

    def add(self, path: bytes, numbers: Iterable[int] = ()) -> None:
        """Add a file."""
        self.paths.append(path)
        self.numbers.extend(numbers)


@dataclass
class Contents:
    """The files of a folder or an archive.

    Attributes:
        where: path of the folder or archive, for errors.
        root: path of the folder; of an archive, the path of the outermost file.
        archive_stat: stat data of the outermost file; None for a folder.
        name: the class of images that lie in no folder: an archive's name without suffix; empty for a folder.
        part: whether it is one archive of several, so that it may be a class or a shard.
        depth: the number of archives around an archive; -1 for a folder.
        images: files that have an image's name.
        sidecars: by suffix, files that may say something about the image beside them.
        archives: tars and zips.
        tables: (folder, name, location) of tables with a known name, the deepest first.
        other_tables: location by path of files that may be tables of labels; of .json files the first in a folder.
        folders: every folder that holds something, or is listed.
        cache_folders: folders that hold our own caches.
        unread: class folders that nobody asked for, and that were not read.
        failed: (path, reason) of files that should be images and cannot be reached.
        left_out, left_out_named, warnings: as in `Manifest`.
        labels: where the labels of its images are asked to be read, apart from folders.
    """

    where: str
    root: bytes
    archive_stat: Stat | None = None
    name: bytes = b""
    part: bool = False
    depth: int = -1
    images: Files = field(default_factory=Files)
    sidecars: dict[bytes, Files] = field(default_factory=lambda: {suffix: Files() for suffix in SIDECAR_SUFFIXES})
    archives: Files = field(default_factory=Files)
    tables: list[tuple[bytes, bytes, Location]] = field(default_factory=list)
    other_tables: dict[bytes, Location] = field(default_factory=dict)
    folders: set[bytes] = field(default_factory=set)
    cache_folders: set[bytes] = field(default_factory=set)
    unread: set[bytes] = field(default_factory=set)
    failed: list[tuple[bytes, str]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_named: list[tuple[bytes, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    labels: Labels = field(default_factory=Labels)
    _json_folders: set[bytes] = field(default_factory=set)

    @cached_property
    def image_folders(self) -> set[bytes]:
        """The folders with images directly in them; the empty name for images in no folder."""
        return {path.rpartition(b"/")[0] for path in self.images.paths}

    def location(self, files: Files, row: int) -> Location:
        """Return where the bytes of a file lie."""
        numbers = files.numbers[MEMBER_NUMBERS * row : MEMBER_NUMBERS * (row + 1)]
        return self._location(files.paths[row], numbers)

    def _location(self, path: bytes, numbers: Iterable[int]) -> Location:
        if self.archive_stat is None:
            return os.path.join(self.root, path)
        return Member(self.root, self.archive_stat, *numbers)

    def add_other(self, path: bytes, suffix: bytes, reason: str, numbers: Iterable[int] = ()) -> None:
        """Add a file without an image's name: an archive, a sidecar, a table, or one that is left out."""
        folder = path.rpartition(b"/")[0]
        if suffix in TABLE_SUFFIXES and not (suffix == b".json" and folder in self._json_folders):
            self.other_tables[path] = self._location(path, numbers)
            if suffix == b".json":  # there may be one for each of a million images
                self._json_folders.add(folder)
        if suffix in ARCHIVE_SUFFIXES:
            self.archives.add(path, numbers)
        elif suffix in SIDECAR_SUFFIXES:
            self.sidecars[suffix].add(path, numbers)
        else:
            self.left_out[reason] += 1

    def use_table(self, path: bytes) -> None:
        """Do not count a table as left out: it is read."""
        if path in self.other_tables:
            self.left_out -= Counter([not_an_image_name(path.rpartition(b"/")[2])])

    def leave_out(self, reason: str, path: bytes) -> None:
        """Count a file that may have been meant as an image, and name it."""
        self.left_out[reason] += 1
        self.left_out_named.append((path, reason))

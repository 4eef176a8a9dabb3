"""The manifest of a source: its classes, and its images in columns.

All paths are bytes inside, so that a name that is not UTF-8 works like any other. Names and stat data are kept in
columns, not objects: a million images are a million short byte strings and one array.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.format.classes import ClassId
from pipeline.format.tables import Failed
from pipeline.source.packed import PackedNames
from pipeline.source.reader import Location, Member, Stat

MEMBER_COLUMNS = len(Member._fields) - 1  # archive's position for its path and stat data


@dataclass
class Manifest:
    """The images of a source and their classes, listed without opening an image.

    Images are in the cache's order: by class position, then by the bytes of the name.

    Attributes:
        class_ids: (C,) in the order of their labels, 0..C-1.
        class_folders: (C,) the folders' names, as bytes.
        class_names: (C,) readable names, empty where there are none.
        labels: (M,) int32, each image's class position.
        names: (M,) path below the class folder, bytes, '/'-separated.
        stats: (M, 4) int64, size, times and inode of each; -1 where they could not be read.
        class_paths: (C,) the folder that a class's names start from, below `root`: its own, or none where the names
            begin with several.
        paths: (M,) where each lies below `root`, if its class and name do not tell it; else empty.
        archives: path and stat data of the archives that the images are members of; none for plain files.
        members: (M, 6) int64, of each the archive's position and the rest of its `Member`; (0, 6) for plain files.
        left_out: how many files, by reason.
        left_out_named: those that may have been meant as images, with the reason.
        failed: files that are images by name and cannot be reached.
        warnings: notes for people.
    """

    root: Path
    class_ids: list[ClassId] = field(default_factory=list)
    class_folders: list[bytes] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    labels: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    names: PackedNames = field(default_factory=PackedNames)
    stats: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, len(Stat._fields)), np.int64))
    class_paths: list[bytes] = field(default_factory=list)
    paths: PackedNames = field(default_factory=PackedNames)
    archives: list[tuple[bytes, Stat]] = field(default_factory=list)
    members: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, MEMBER_COLUMNS), np.int64))
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_named: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Files looked at: images, left out and failed."""
        return len(self.names) + self.left_out.total() + len(self.failed)

    def location(self, row: int) -> Location:
        """Say where the bytes of image `row` are."""
        if len(self.members):
            archive, *rest = self.members[row].tolist()
            return Member(*self.archives[archive], *rest)
        return self.path(row)

    def path(self, row: int) -> bytes:
        """Return the path of image `row`, where images are plain files."""
        if self.paths:
            return os.path.join(os.fsencode(self.root), self.paths[row])
        return os.path.join(os.fsencode(self.root), self.class_paths[self.labels[row]], self.names[row])

    def in_reading_order(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Order images as they lie in their archives, so that each is read from its beginning to its end."""
        if not len(self.members):
            return rows
        archives, offsets = self.members[rows, 0], self.members[rows, 1]
        return rows[np.lexsort((offsets, archives))]

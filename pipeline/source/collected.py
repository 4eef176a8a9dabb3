"""What a look at a source finds, before it is put in order, and which names are those of images."""

import os
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.format.tables import Failed
from pipeline.source.manifest import MEMBER_COLUMNS, SUFFIXES
from pipeline.source.packed import PackedNames
from pipeline.source.reader import Location, Stat
from pipeline.text import show_path

OUTSIDE = "outside a class folder"
NOT_REGULAR = "not a regular file"
NOWHERE = "a link that leads nowhere"
ARCHIVE_SUFFIXES = (b".tar", b".zip")
NAME_FILES = (b"classes.csv", b"LOC_synset_mapping.txt")
SOLUTION = b"LOC_val_solution.csv"  # what ImageNet's validation images show
TABLES = (*NAME_FILES, SOLUTION)


class Files:
    """The images of one class, in columns: as they were met, and then in order."""

    def __init__(self) -> None:
        self.names = PackedNames()
        self.stats = array("q")
        self.members = array("q")

    def add(self, name: bytes, found: Stat, member: Iterable[int] = ()) -> None:
        """Note an image; `member` is a row of `Manifest.members`, for one in an archive."""
        self.names.append(name)
        self.stats.extend(found)
        self.members.extend(member)

    def take_over(self, other: "Files", number: int) -> None:
        """Note one image of another folder."""
        width, columns = len(Stat._fields), MEMBER_COLUMNS
        self.names.append(other.names[number])
        self.stats += other.stats[width * number : width * (number + 1)]
        self.members += other.members[columns * number : columns * (number + 1)]

    def add_all(self, other: "Files", below: bytes) -> None:
        """Take over the images of another folder, which is a folder in this class."""
        self.names.extend(below + b"/" + name for name in other.names)
        self.stats += other.stats
        self.members += other.members

    def in_order(self) -> NDArray[np.int64]:
        """Return the positions of the images by the bytes of their names; of equal names, the last counts."""
        names = self.names.table()
        order: NDArray[np.int64] = np.argsort(names, kind="stable")
        names = names[order]
        last: NDArray[np.bool_] = np.append(names[1:] != names[:-1], True)[: len(order)]
        return order[last]

    def columns(self, order: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (n, 4) stats and (n, 6) members of these positions; (0, 6) for plain files."""
        stats = np.frombuffer(self.stats, np.int64).reshape(-1, len(Stat._fields))[order]
        members = np.frombuffer(self.members, np.int64).reshape(-1, MEMBER_COLUMNS)
        return stats, members[order] if len(members) else members


@dataclass
class Found:
    """Images by class folder, and what else there was; see `Manifest`.

    `flat` are images in no class folder, of the class `flat_class` where that is not None and nothing says otherwise;
    `tables` the places of files that say what classes are, by their own name; `nearby`
    archives that lie beside class folders; `unwanted` classes that were not asked for; `labelled` where
    something else than folders says what the classes are.
    """

    files: dict[bytes, Files] = field(default_factory=dict)
    flat: Files = field(default_factory=Files)
    flat_class: bytes | None = None
    archives: list[tuple[bytes, Stat]] = field(default_factory=list)
    tables: dict[bytes, Location] = field(default_factory=dict)
    nearby: list[bytes] = field(default_factory=list)
    unwanted: set[bytes] = field(default_factory=set)
    labelled: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_named: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, name: bytes) -> None:
        """Note a file that may have been meant as an image."""
        self.left_out[reason] += 1
        self.left_out_named.append((os.fsdecode(name), reason))


def hidden(name: bytes) -> bool:
    """Tell names that no person chose for images."""
    return name.startswith(b".") or name == b"__MACOSX"


def not_an_image_name(name: bytes) -> str:
    """Say why a file is left out by its name alone; empty where it is not."""
    if name.startswith(b"."):
        return "hidden file"
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUFFIXES:
        return ""
    return f"suffix {show_path(suffix)}" if suffix else "no suffix"

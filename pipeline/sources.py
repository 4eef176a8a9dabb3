"""What a source is: classes, candidates in columns, and how the bytes of one are read.

All paths are bytes inside, so that a name that is not UTF-8 works like any other. Names and stat data are kept in
columns, not objects: a million images are a million short byte strings and one array.
"""

import errno
import hashlib
import os
import re
import stat
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (b".jpg", b".jpeg", b".jpe", b".jfif", b".png")
MAX_FILE_BYTES = 2**29

ClassId = int | str

_INTEGER = re.compile(rb"0|[1-9][0-9]*")


class Failed(NamedTuple):
    """A file that should have given an image and did not.

    `passing` failures are of the day (unreadable, changed meanwhile) and tried again by the next build; the others
    follow from the bytes and are stored. `source_sha256` is hexadecimal, empty where nothing could be read.
    """

    class_id: ClassId
    name: str
    reason: str
    passing: bool
    source_sha256: str = ""


class ChangedWhileReading(OSError):
    """Somebody wrote to the file between the first and the last byte that was read, twice."""


class Stat(NamedTuple):
    """What the file system says of a file; equal stats mean equal content, `UNSETTLED` equals nothing.

    The inode tells files apart that were written within one tick of the clock and then changed places by a rename of
    their folders, which leaves no trace in a file's own times.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


UNSETTLED = Stat(-1, -1, -1, -1)
_SETTLES_NS = 2 * 10**9  # a file changed so shortly ago may change again within one tick of its time stamps


@dataclass
class Scan:
    """What a look at the source found, without opening an image.

    Candidates are in the cache's order: by class position, then by the bytes of the name.

    Attributes:
        class_ids: (C,) in the order of their labels, 0..C-1.
        class_folders: (C,) the folders' names, as bytes.
        class_names: (C,) readable names, empty where there are none.
        labels: (M,) int32, each candidate's class position.
        names: (M,) path below the class folder, bytes, '/'-separated.
        stats: (M, 4) int64, size, times and inode of each; -1 where they could not be read.
        left_out: how many files, by reason.
        left_out_named: those that may have been meant as images, with the reason.
        failed: files that are candidates by name but lead nowhere.
        warnings: what a person should know.
    """

    root: Path
    class_ids: list[ClassId] = field(default_factory=list)
    class_folders: list[bytes] = field(default_factory=list)
    class_names: list[str] = field(default_factory=list)
    labels: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    names: list[bytes] = field(default_factory=list)
    stats: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, len(Stat._fields)), np.int64))
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_named: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def seen(self) -> int:
        """Files looked at: candidates, left out and failed."""
        return len(self.names) + self.left_out.total() + len(self.failed)

    def path(self, row: int) -> bytes:
        """Return the path of candidate `row`."""
        return os.path.join(os.fsencode(self.root), self.class_folders[self.labels[row]], self.names[row])


def read_image(path: bytes) -> tuple[bytes, Stat]:
    """Read a file whole, sure that it did not change meanwhile.

    Opening never blocks (a FIFO), and what is not a regular file is refused.

    Returns:
        The content, and the stat data by which it may be taken for unchanged later: `UNSETTLED` where the file is
        so new that it could still change without a trace in them.

    Raises:
        OSError: it cannot be read; `ChangedWhileReading` where the second try failed too.
    """
    for _ in range(2):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if before.st_size > MAX_FILE_BYTES:
                raise OSError(errno.EFBIG, f"{before.st_size} bytes; at most {MAX_FILE_BYTES} are read")
            data = _read(fd, before.st_size)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        if stat_of(before) == stat_of(after) and len(data) == after.st_size:
            settled = after.st_ctime_ns < time.time_ns() - _SETTLES_NS
            return data, stat_of(after) if settled else UNSETTLED
    raise ChangedWhileReading(errno.EAGAIN, "changed while reading")


def _read(fd: int, size: int) -> bytes:
    """Read up to `size` bytes, and one more where the file has grown."""
    parts = []
    while size and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    parts.append(os.read(fd, 1))
    return b"".join(part for part in parts if part) if len(parts) != 2 or parts[1] else parts[0]


def hash_image(path: bytes) -> tuple[bytes, Stat] | None:
    """Return a file's SHA-256 and stat, or None where it cannot be read now."""
    try:
        data, found = read_image(path)
    except (OSError, MemoryError):
        return None
    return hashlib.sha256(data).digest(), found


def _signed(number: int) -> int:
    """Fit an unsigned 64-bit number into the signed columns."""
    return number - 2**64 if number >= 2**63 else number


def stat_of(result: os.stat_result) -> Stat:
    """Keep what decides whether a file has to be read again."""
    return Stat(result.st_size, result.st_mtime_ns, result.st_ctime_ns, _signed(result.st_ino))


def class_order(folders: list[bytes]) -> list[bytes]:
    """Order class folders: as numbers where every name is one, else by bytes."""
    return sorted(folders, key=int) if _all_integers(folders) else sorted(folders)


def class_ids_of(folders: list[bytes]) -> list[ClassId]:
    """Return what a person calls the classes: integers where every folder's name is one, else strings."""
    return [int(f) for f in folders] if _all_integers(folders) else [os.fsdecode(f) for f in folders]


def _all_integers(folders: list[bytes]) -> bool:
    return all(_INTEGER.fullmatch(folder) for folder in folders)

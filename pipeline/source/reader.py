"""Read the bytes of an image: a file of its own, or a range of an archive."""

import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

from pipeline.errors import ArchiveDamaged, StorageError, TableDamaged, source_errors
from pipeline.source.tables.parquet_images import ImageRow, image_bytes
from pipeline.source.zip import unpack, zip_data_start
from pipeline.system import files
from pipeline.system.processes import usable_cores
from pipeline.text import show_path

MAX_FILE_BYTES = 2**29
_UNPACK = "Unpack the archive, and give the folder"
_AT_ONCE = 1024  # files in work at a time; a thread pool keeps more than a name for each


class ChangedWhileReading(OSError):
    """A file was written to while it was read, twice."""


class Stat(NamedTuple):
    """The stat data of a file: equal data mean equal content. `UNSETTLED` never counts as equal.

    The inode tells files apart whose times agree: those written within one tick of the clock, whose folders were then
    renamed. A renamed folder does not change the times of its files.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


UNSETTLED = Stat(-1, -1, -1, -1)
_SETTLES_NS = 2 * 10**9  # a recently changed file may change again within one tick of its time stamps


TAR = -1  # the method of a member of a tar; a zip's methods are numbers from 0, or `zip.ENCRYPTED`
PARQUET = -3  # that of an image in a row of a Parquet file


class Member(NamedTuple):
    """An image within an archive: a range of its bytes. Or one in a Parquet file: offset, packed and crc say its row.

    Attributes:
        archive: path of the outermost archive.
        archive_stat: of it, when its members were listed.
        offset: of the image's first byte in a tar; of the member's local header in a zip; the row in a Parquet file.
        packed: bytes that the image takes there; the row group.
        size: bytes of the image; 0 in a Parquet file, which does not tell.
        method: `TAR`, `PARQUET`, or how a zip packs it.
        crc: CRC-32 of the image; 0 in a tar, which has none; the row within its row group.
    """

    archive: bytes
    archive_stat: Stat
    offset: int
    packed: int
    size: int
    method: int
    crc: int


Location = bytes | Member


class Damaged(Exception):
    """A member cannot be unpacked from its archive; the message is the reason, for people.

    `stored` are its bytes in the archive: as long as they stay the same, it fails in the same way.
    """

    def __init__(self, reason: str, stored: bytes, found: Stat) -> None:
        super().__init__(reason, stored, found)
        self.reason = reason
        self.stored = stored
        self.found = found


def read_image(location: Location) -> tuple[bytes, Stat]:
    """Read all bytes of an image, and make sure that it did not change meanwhile.

    Opening never blocks (a FIFO), and what is not a regular file is refused.

    Returns:
        The content, and the stat data by which it may be taken for unchanged later: `UNSETTLED` where the file is
        so new that it could still change without a trace in them. A member has its archive's, and its own size.

    Raises:
        OSError: it cannot be read; `ChangedWhileReading` where the second try failed too.
        Damaged: it cannot be unpacked, now or later.
        StorageError: the archive is not what it was when its members were listed.
    """
    return _read_location(location)


def read_side_file(location: Location, what: str, where: "str | os.PathLike[str]") -> bytes:
    """Read a file that says something about images: a table, a label.

    Args:
        location: of the file.
        what: cannot be done without it, for errors.
        where: its path, for errors; of one in an archive, that within it too.

    Raises:
        ArchiveDamaged: it cannot be unpacked, or is too large for that.
        SourceError, AccessDenied, WorkerDied, StorageError: as `source_errors`.
    """
    try:
        with source_errors(what, where):
            if isinstance(location, Member) and (reason := _too_large(location.size, location.packed)):
                raise ArchiveDamaged(what, where, reason, _UNPACK)
            data, _ = _read_location(location)
    except Damaged as damaged:
        raise ArchiveDamaged(what, where, damaged.reason, _UNPACK) from damaged
    return data


def show_location(location: Location) -> str:
    """Return the location of an image as text."""
    if isinstance(location, Member):
        unit, number = ("row", location.offset + 1) if location.method == PARQUET else ("byte", location.offset)
        return f"{show_path(location.archive)}, {unit} {number}"
    return show_path(location)


def read_together(location: Location) -> tuple[bytes, int] | None:
    """Return what images share that one process should read, one after another: their row group; None for others."""
    if isinstance(location, Member) and location.method == PARQUET:
        return location.archive, location.packed
    return None


def _read_location(location: Location) -> tuple[bytes, Stat]:
    return _read_member(location) if isinstance(location, Member) else _read_file(location)


def _too_large(*sizes: int) -> str:
    """Return why a file is not read into memory; empty where it is."""
    return f"{max(sizes)} bytes; at most {MAX_FILE_BYTES} are read" if max(sizes) > MAX_FILE_BYTES else ""


def _read_file(path: bytes) -> tuple[bytes, Stat]:
    for _ in range(2):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise OSError(errno.EINVAL, "not a regular file")
            if reason := _too_large(before.st_size):
                raise OSError(errno.EFBIG, reason)
            data = _read(fd, before.st_size)
            after = os.fstat(fd)
        finally:
            os.close(fd)
        if stat_of(before) == stat_of(after) and len(data) == after.st_size:
            return data, _settled(stat_of(after))
    raise ChangedWhileReading(errno.EAGAIN, "changed while reading")


def _read(fd: int, size: int) -> bytes:
    """Read up to `size` bytes, and one more where the file has grown."""
    parts = []
    while size and (part := os.read(fd, size)):
        parts.append(part)
        size -= len(part)
    parts.append(os.read(fd, 1))
    return b"".join(part for part in parts if part) if len(parts) != 2 or parts[1] else parts[0]


def _read_member(member: Member) -> tuple[bytes, Stat]:
    if reason := _too_large(member.size, member.packed):
        raise OSError(errno.EFBIG, reason)
    fd = reopen_archive(member.archive, member.archive_stat)
    if member.method == PARQUET:
        os.close(fd)
        return _read_row(member)
    try:
        start = member.offset if member.method == TAR else zip_data_start(fd, member.offset)
        stored = b"" if start is None else files.read_at(fd, member.packed, start)
        changed = stat_of(os.fstat(fd)) != member.archive_stat
    finally:
        os.close(fd)
    if changed:
        raise _other_archive(member.archive, "it was changed while its images were read")
    found = _settled(member.archive_stat._replace(size=member.size))
    if start is None or len(stored) != member.packed:
        raise Damaged("damaged: not where the archive says", stored, found)
    if member.method == TAR:
        return stored, found
    try:
        return unpack(stored, member.method, member.size, member.crc), found
    except ValueError as error:
        raise Damaged(str(error), stored, found) from error


def _read_row(member: Member) -> tuple[bytes, Stat]:
    found = _settled(member.archive_stat._replace(size=member.size))
    try:
        data = image_bytes(member.archive, member.archive_stat, ImageRow(member.packed, member.crc))
    except TableDamaged as error:
        raise Damaged(f"not in the Parquet file: {error.reason}", b"", found) from error
    if data is None:
        raise Damaged("no bytes in the Parquet file", b"", found)
    return data, found


def reopen_archive(path: bytes, listed: Stat) -> int:
    """Open an archive again, if it did not change since its members were listed.

    Raises:
        StorageError: it is another one, or gone.
        OSError: the system has no resources, or the disk failed.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        raise _other_archive(path, error.strerror or str(error)) from error
    if stat_of(os.fstat(fd)) != listed:
        os.close(fd)
        raise _other_archive(path, "it was changed while its images were read")
    return fd


def _other_archive(path: bytes, why: str) -> StorageError:
    advice = "Run it again when the archive no longer changes; it continues where it stopped"
    return StorageError("the archive cannot be read any more", os.fsdecode(path), why, advice)


def hash_image(location: Location) -> tuple[bytes, Stat] | None:
    """Return the SHA-256 and stat data of an image; None if it cannot be read now.

    For a damaged member, it is the digest of its bytes in the archive.
    """
    try:
        data, found = read_image(location)
    except Damaged as damaged:
        data, found = damaged.stored, damaged.found
    except (OSError, MemoryError):
        return None
    return hashlib.sha256(data).digest(), found


def hash_images(locations: Iterable[Location]) -> Iterator[tuple[bytes, Stat] | None]:
    """Yield what `hash_image` returns for each image, in order; threads read, which release the interpreter's lock."""
    remaining = iter(locations)
    with ThreadPoolExecutor(min(8, usable_cores())) as pool:
        while some := list(islice(remaining, _AT_ONCE)):
            yield from pool.map(hash_image, some)


def _settled(found: Stat) -> Stat:
    return found if 0 <= found.ctime_ns < time.time_ns() - _SETTLES_NS else UNSETTLED


def _signed(number: int) -> int:
    """Fit a number into 64 bits with a sign: inodes may need all 64 without one, nanoseconds from 2262 on more."""
    return (number + 2**63) % 2**64 - 2**63


def stat_of(result: os.stat_result) -> Stat:
    """Return the numbers that decide whether a file has to be read again."""
    numbers = result.st_size, result.st_mtime_ns, result.st_ctime_ns, result.st_ino
    return Stat(*map(_signed, numbers))

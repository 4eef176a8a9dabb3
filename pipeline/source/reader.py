"""Where an image lies, and how its bytes are read: a file of its own, or a range of an archive."""

import errno
import hashlib
import os
import stat
import struct
import time
import zlib
from typing import NamedTuple

from pipeline.errors import StorageError
from pipeline.system import files
from pipeline.text import show_path

MAX_FILE_BYTES = 2**29


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


TAR, ENCRYPTED, STORED, DEFLATED = -1, -2, 0, 8  # the last two as a zip numbers them


class Member(NamedTuple):
    """An image within an archive: a range of its bytes.

    Attributes:
        archive: path of the outermost archive.
        archive_stat: of it, when its members were listed.
        offset: of the image's first byte in a tar; of the member's local header in a zip.
        packed: bytes that the image takes there.
        size: bytes of the image.
        method: `TAR`, or how a zip packs it.
        crc: CRC-32 of the image; 0 in a tar, which has none.
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
    """A member that its archive does not give back; the message is the reason, fit for a person.

    `stored` are the bytes that it has in the archive: as long as they are the same, so is the failure.
    """

    def __init__(self, reason: str, stored: bytes, found: Stat) -> None:
        super().__init__(reason, stored, found)
        self.reason = reason
        self.stored = stored
        self.found = found


def read_image(location: Location) -> tuple[bytes, Stat]:
    """Read an image whole, sure that it did not change meanwhile.

    Opening never blocks (a FIFO), and what is not a regular file is refused.

    Returns:
        The content, and the stat data by which it may be taken for unchanged later: `UNSETTLED` where the file is
        so new that it could still change without a trace in them. A member has its archive's, and its own size.

    Raises:
        OSError: it cannot be read; `ChangedWhileReading` where the second try failed too.
        Damaged: the archive does not give it back, and never will.
        StorageError: the archive is not what it was when its members were listed.
    """
    return _read_member(location) if isinstance(location, Member) else _read_file(location)


def show_location(location: Location) -> str:
    """Return where an image lies as text."""
    if isinstance(location, Member):
        return f"{show_path(location.archive)}, byte {location.offset}"
    return show_path(location)


def _read_file(path: bytes) -> tuple[bytes, Stat]:
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
    if max(member.size, member.packed) > MAX_FILE_BYTES:
        raise OSError(errno.EFBIG, f"{member.size} bytes; at most {MAX_FILE_BYTES} are read")
    fd = open_archive(member.archive, member.archive_stat)
    try:
        start = member.offset if member.method == TAR else zip_data_start(fd, member.offset)
        stored = b"" if start is None else files.read_at(fd, member.packed, start)
        changed = stat_of(os.fstat(fd)) != member.archive_stat
    finally:
        os.close(fd)
    if changed:
        raise _other_archive(member.archive, "it was changed while its images were read")
    found = _settled(member.archive_stat._replace(size=member.size))
    reason = "" if start is not None and len(stored) == member.packed else "damaged: not where the archive says"
    data = b"" if reason else _unpack(member, stored)
    if data is None:
        reason = _why_not_unpacked(member)
    if reason or data is None:
        raise Damaged(reason, stored, found)
    return data, found


def open_archive(path: bytes, listed: Stat) -> int:
    """Open an archive for reading, if it is still the one whose members were listed.

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
    advice = "Run it again when the archive stays as it is; it goes on where it stopped"
    return StorageError("the archive cannot be read any more", os.fsdecode(path), why, advice)


def zip_data_start(fd: int, offset: int) -> int | None:
    """Return where the bytes behind a zip's local header begin; None where there is no such header."""
    header = files.read_at(fd, _LOCAL_HEADER.size, offset)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        return None
    _, name, extra = _LOCAL_HEADER.unpack(header)
    return offset + _LOCAL_HEADER.size + int(name) + int(extra)


_LOCAL_HEADER = struct.Struct("<26sHH")


def _unpack(member: Member, stored: bytes) -> bytes | None:
    """Return the image; None where it is packed in another way, or is not what the archive says of it."""
    if member.method == TAR:
        return stored
    data = stored
    if member.method == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, member.size + 1)  # never more than declared
        except zlib.error:
            return None
    elif member.method != STORED:
        return None
    return data if len(data) == member.size and zlib.crc32(data) == member.crc else None


def _why_not_unpacked(member: Member) -> str:
    if member.method == ENCRYPTED:
        return "encrypted"
    if member.method in (STORED, DEFLATED):
        return "damaged: its size or checksum is not that of the archive"
    return f"packed by a zip's method {member.method}; only stored and deflated are read"


def hash_image(location: Location) -> tuple[bytes, Stat] | None:
    """Return an image's SHA-256 and stat, or None where it cannot be read now.

    Of a damaged member it is the digest of what the archive has of it.
    """
    try:
        data, found = read_image(location)
    except Damaged as damaged:
        data, found = damaged.stored, damaged.found
    except (OSError, MemoryError):
        return None
    return hashlib.sha256(data).digest(), found


def _settled(found: Stat) -> Stat:
    return found if found.ctime_ns < time.time_ns() - _SETTLES_NS else UNSETTLED


def _signed(number: int) -> int:
    """Fit an unsigned 64-bit number into the signed columns."""
    return number - 2**64 if number >= 2**63 else number


def stat_of(result: os.stat_result) -> Stat:
    """Keep what decides whether a file has to be read again."""
    return Stat(result.st_size, result.st_mtime_ns, result.st_ctime_ns, _signed(result.st_ino))

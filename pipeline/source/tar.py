"""The members of a tar and where their bytes lie, by the headers alone: ustar, GNU and PAX, read by `tarfile`."""

import io
import os
import re
import tarfile
from collections.abc import Generator
from typing import NamedTuple

from pipeline.errors import ArchiveDamaged
from pipeline.system.files import FileRange

BLOCK = tarfile.BLOCKSIZE
_LOOK_BEHIND = 1 << 16  # bytes; writers fill up to 10 kB with zeros
_LONGEST_HEADER = 1 << 20  # bytes of names and attributes before one member
_MOST_DIGITS = 4096  # in a row: before Python 3.11.10 `tarfile` takes the square of that (CVE-2024-6232)
_NAMES = ("utf-8", "surrogateescape")
_WITHOUT_CONTENT = {
    tarfile.LNKTYPE: "a hard link within the archive",
    tarfile.SYMTYPE: "a symbolic link within the archive",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a FIFO",
}


class TarMember(NamedTuple):
    """A member by its header.

    `unlike` says why it has no content of its own: empty for a file; "folder", a link, a device, a sparse file.
    """

    name: bytes
    offset: int  # of its first byte
    size: int
    unlike: str


def is_tar(header: bytes) -> bool:
    """Tell whether these 512 bytes begin a tar (an empty one is all zeros)."""
    try:
        tarfile.TarInfo.frombuf(header, *_NAMES)
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return True
    except tarfile.HeaderError:
        return False
    return True


def tar_members(fd: int, start: int, end: int, where: str) -> Generator[TarMember, None, str]:
    """Yield the members of the tar in bytes `start` to `end` of a file.

    Args:
        fd: the file.
        start, end: where the tar lies; a tar in a tar is a range of the outer one.
        where: what the tar is called in errors.

    Returns:
        (by `yield from`) what speaks for missing members, though nothing proves it: no mark of the end, or more
        behind it; empty where nothing does.

    Raises:
        ArchiveDamaged: a header is wrong, or the archive ends within a member.
    """
    headers, position = _Headers(FileRange(fd, start, end)), 0
    try:
        archive = tarfile.TarFile(fileobj=headers, encoding=_NAMES[0], errors=_NAMES[1])
        while member := archive.next():
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile would keep a million of them
            if member.size < 0 or archive.offset <= position:
                raise tarfile.ReadError(f"a size of {member.size}")
            if start + archive.offset > end:
                raise _cut(where, f"within {member.name!r}")
            position = archive.offset
            yield TarMember(member.name.encode(*_NAMES), start + member.offset_data, member.size, _unlike(member))
    except (ArchiveDamaged, OSError):
        raise
    except Exception as error:  # a damaged one raises nearly any type
        if start + headers.tell() >= end:
            raise _cut(where, "within a header") from error
        raise _damaged(where, f"no tar header at byte {position} ({error})") from error
    return _doubt(os.pread(fd, max(0, min(_LOOK_BEHIND, end - start - position)), start + position), position, where)


class _Headers(io.BufferedReader):
    """The file that `tarfile` reads: headers and names, with a limit on the bytes of names."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LONGEST_HEADER:
            raise tarfile.ReadError(f"a name of {size} bytes")
        data = super().read(size)
        if size > BLOCK and max(map(len, re.findall(rb"\d+", data)), default=0) > _MOST_DIGITS:
            raise tarfile.ReadError("a damaged PAX header")
        return data


def _doubt(behind: bytes, position: int, where: str) -> str:
    """Check the bytes at the next header: `tarfile` ends there silently, whatever they are."""
    header = behind[:BLOCK]
    if not header:
        return "has no end mark; it may have been cut off"
    if len(header) < BLOCK:
        raise _cut(where, "within a header")
    if any(header):
        raise _damaged(where, f"no tar header at byte {position}")
    return "continues after its end mark, where reading a tar stops: is it several archives?" * any(behind)


def _unlike(member: tarfile.TarInfo) -> str:
    if member.issparse():
        return "a sparse file within the archive"
    if member.isdir() or member.name.endswith("/"):
        return "folder"
    if member.isreg():
        return ""
    return _WITHOUT_CONTENT.get(member.type, f"a member of an unknown kind ({member.type!r})")


def _damaged(where: str, why: str) -> ArchiveDamaged:
    return ArchiveDamaged("the archive cannot be read", where, why)


def _cut(where: str, what: str) -> ArchiveDamaged:
    return ArchiveDamaged("the archive cannot be read", where, f"it ends {what}", "It was not copied whole")

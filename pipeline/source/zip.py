"""Zip archives: their members by the table of contents, and the bytes of one member.

Only the names and numbers of the table are taken from `zipfile`, which would unpack a member only into a new object.
"""

import errno
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import ArchiveDamaged
from pipeline.system import files

ENCRYPTED, STORED, DEFLATED = -2, 0, 8  # the last two as a zip numbers them
_MAGICS = b"PK\3\4", b"PK\5\6"  # the second begins an empty zip
_LARGEST = 2**62
_LOCAL_HEADER = struct.Struct("<26sHH")
_UNICODE_PATH = 0x7075
_DAMAGED = "damaged: its size or checksum is not that of the archive"
_UNIX = 3  # the number of Unix among a zip's systems


class ZipMember(NamedTuple):
    """A member by the table of contents.

    Attributes:
        name: its path.
        offset: of its local header, in the file that holds the zip.
        packed, size: bytes in the zip, and unpacked.
        method: how it is packed, or `ENCRYPTED`.
        crc: CRC-32 of its content.
        unlike: why it is not a file; empty for a file, "folder" for a folder.
    """

    name: bytes
    offset: int
    packed: int
    size: int
    method: int
    crc: int
    unlike: str


def is_zip(header: bytes) -> bool:
    """Tell whether a file that begins like this is a zip."""
    return header.startswith(_MAGICS)


def zip_members(fd: int, start: int, end: int, where: str) -> Iterator[ZipMember]:
    """Yield the members of the zip in bytes `start` to `end` of a file; `where` names it in errors.

    Raises:
        ArchiveDamaged: the table of contents is not whole, or names bytes beyond the end.
    """
    try:
        with zipfile.ZipFile(io.BufferedReader(files.FileRange(fd, start, end))) as archive:
            entries = archive.infolist()
    except Exception as error:  # a damaged one raises nearly any type
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        why = f"its table of contents, at its end, is not whole ({error})"
        raise ArchiveDamaged("the archive cannot be read", where, why, "It was not copied whole") from error
    for info in entries:
        name = _name(info)
        offset = start + info.header_offset
        if not start <= offset <= end or info.compress_size > end - offset:
            raise ArchiveDamaged("the archive cannot be read", where, f"it ends within {info.filename!r}")
        method = ENCRYPTED if info.flag_bits & 1 else info.compress_type
        size = min(info.file_size, _LARGEST)
        yield ZipMember(name, offset, info.compress_size, size, method, info.CRC, _unlike(info, name))


def _name(info: zipfile.ZipInfo) -> bytes:
    """Return a member's path as unpacking gives it: by UTF-8, its Unicode field, or its bytes as they are."""
    if info.flag_bits & 0x800:
        name = info.orig_filename.encode()
    else:
        name = info.orig_filename.encode("cp437")
        name = _unicode_path(info.extra, name) or name
    if info.create_system != _UNIX and b"/" not in name:  # some other systems write their own separator
        name = name.replace(b"\\", b"/")
    return name


def _unicode_path(extra: bytes, name: bytes) -> bytes:
    """Return the path of the extra field 0x7075; empty where there is none, or it belongs to another name."""
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        field, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == _UNICODE_PATH and len(field) > 5 and field[0] == 1:
            return field[5:] if int.from_bytes(field[1:5], "little") == zlib.crc32(name) else b""
    return b""


def _unlike(info: zipfile.ZipInfo, name: bytes) -> str:
    kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == _UNIX else 0
    if name.endswith(b"/") or kind == stat.S_IFDIR:
        return "folder"
    if kind in (0, stat.S_IFREG):
        return ""
    return "a symbolic link within the archive" if kind == stat.S_IFLNK else "not a regular file"


def zip_data_start(fd: int, offset: int) -> int | None:
    """Return where a member's bytes begin, behind its local header; None where there is no such header."""
    header = files.read_at(fd, _LOCAL_HEADER.size, offset)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_MAGICS[0]):
        return None
    _, name, extra = _LOCAL_HEADER.unpack(header)
    return offset + _LOCAL_HEADER.size + int(name) + int(extra)


def unpack(stored: bytes, method: int, size: int, crc: int) -> bytes:
    """Return a member's content.

    Raises:
        ValueError: it is packed in a way that is not read, or differs from size and CRC; the message is the reason.
    """
    if method == ENCRYPTED:
        raise ValueError("encrypted")
    if method not in (STORED, DEFLATED):
        raise ValueError(f"packed by a zip's method {method}; only stored and deflated are read")
    data = stored
    if method == DEFLATED:
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(stored, size + 1)  # never more than declared
        except zlib.error as error:
            raise ValueError(_DAMAGED) from error
    if len(data) != size or zlib.crc32(data) != crc:
        raise ValueError(_DAMAGED)
    return data

"""The headers of a tar, read by jumping over the contents: ustar, GNU and PAX, as tar itself unpacks them.

Python's `tarfile` makes an object of each member and takes 50 to 100 µs for it; ImageNet has 1.3 million.
"""

import os
from collections.abc import Generator, Iterator
from typing import NamedTuple

from pipeline.errors import ArchiveDamaged

BLOCK = 512
_ZEROS = bytes(BLOCK)
_SPACES = 8 * 0x20  # a header's checksum is taken with spaces in its own place
_LOOK_BEHIND = 1 << 16  # bytes; writers fill up to 10 kB with zeros
_MOST_EXTENDED = 1 << 20  # bytes of names and attributes before one member
_FILES = b"\0", b"0", b"7"
_WITHOUT_CONTENT = {
    b"1": "a hard link within the archive",
    b"2": "a symbolic link within the archive",
    b"3": "a device",
    b"4": "a device",
    b"6": "a FIFO",
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
    return len(header) == BLOCK and (header == _ZEROS or _checksum_fits(header))


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
    position, extended, common = start, _Extended(), _Extended()
    while position < end:
        header = os.pread(fd, min(BLOCK, end - position), position)
        if header == _ZEROS:
            behind = os.pread(fd, min(_LOOK_BEHIND, end - position), position)
            return (
                "goes on behind the mark of its end, which is where reading a tar ends: are these several?"
                if any(behind)
                else ""
            )
        if len(header) < BLOCK:
            raise _cut(where, "within a header")
        if not _checksum_fits(header):
            raise ArchiveDamaged("the archive cannot be read", where, f"no tar header at byte {position - start}")
        kind = header[156:157]
        size = _number(header[124:136], where)
        offset = position + BLOCK
        if kind in b"xgLKX" and kind:
            if size > _MOST_EXTENDED:
                raise ArchiveDamaged("the archive cannot be read", where, f"a name of {size} bytes")
            text = os.pread(fd, size, offset)
            if offset + size > end or len(text) < size:
                raise _cut(where, "within a name")
            (common if kind == b"g" else extended).take(kind, text, where)
        else:
            name = extended.name or common.name or _name(header)
            size = size if extended.size is None else extended.size
            if kind in _WITHOUT_CONTENT or kind == b"5":
                size = 0
            if kind == b"S":
                offset = _behind_sparse_map(fd, header, offset, where)
            if offset + size > end:
                raise _cut(where, f"within {os.fsdecode(name)!r}")
            yield TarMember(name, offset, size, _unlike(kind, name, extended.sparse))
            extended = _Extended()
        position = offset + (size + BLOCK - 1) // BLOCK * BLOCK
    if position > end or extended.begun:
        raise _cut(where, "within a member")
    return "has no mark of its end; it may have been cut there"


class _Extended:
    """What headers before a member say of it, or of all that follow."""

    def __init__(self) -> None:
        self.name = b""
        self.size: int | None = None
        self.sparse = False
        self.begun = False

    def take(self, kind: bytes, text: bytes, where: str) -> None:
        self.begun = True
        if kind == b"L":
            self.name = text.split(b"\0", 1)[0]
        elif kind != b"K":  # the target of a link
            for key, value in _records(text, where):
                if key == b"path":
                    self.name = value
                elif key == b"size":
                    self.size = _decimal(value, where)
                elif key.startswith(b"GNU.sparse."):
                    self.sparse = True


def _records(text: bytes, where: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a PAX header: each "length key=value" and a line's end, again and again."""
    position = 0
    while position < len(text) and text[position]:
        length = _decimal(text[position : position + 20].partition(b" ")[0], where)
        record = text[position : position + length]
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if len(record) != length or not equals or not value.endswith(b"\n"):
            raise ArchiveDamaged("the archive cannot be read", where, "a damaged PAX header")
        yield key, value[:-1]
        position += length


def _unlike(kind: bytes, name: bytes, sparse: bool) -> str:
    if kind in _WITHOUT_CONTENT:
        return _WITHOUT_CONTENT[kind]
    if kind == b"5" or name.endswith(b"/"):
        return "folder"
    if kind == b"S" or sparse:
        return "a sparse file within the archive"
    return "" if kind in _FILES else f"a member of an unknown kind ({kind!r})"


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0" and header[345]:  # GNU's own kind has times there
        return header[345:500].split(b"\0", 1)[0] + b"/" + name
    return name


def _behind_sparse_map(fd: int, header: bytes, offset: int, where: str) -> int:
    more = header[482]
    while more:
        block = os.pread(fd, BLOCK, offset)
        if len(block) < BLOCK:
            raise _cut(where, "within a header")
        more, offset = block[504], offset + BLOCK
    return offset


def _checksum_fits(header: bytes) -> bool:
    """Compare with the sum of all bytes; some old writers summed them as signed ones."""
    try:
        stated = int(header[148:156].strip(b" \0"), 8)
    except ValueError:
        return False
    total = sum(header) - sum(header[148:156]) + _SPACES
    return stated == total or stated == total - 256 * sum(byte > 127 for byte in header[:148] + header[156:])


def _number(field: bytes, where: str) -> int:
    """Read a size: octal digits, or from 8 GB on a binary number behind a set bit."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b" \0") or b"0", 8)
    except ValueError:
        raise ArchiveDamaged("the archive cannot be read", where, f"a size of {field!r}") from None


def _decimal(text: bytes, where: str) -> int:
    if not text.isdigit() or len(text) > 18 or not int(text):
        if text == b"0":
            return 0
        raise ArchiveDamaged("the archive cannot be read", where, f"a length of {text[:20]!r} in a PAX header")
    return int(text)


def _cut(where: str, what: str) -> ArchiveDamaged:
    return ArchiveDamaged("the archive cannot be read", where, f"it ends {what}", "It was not copied whole")

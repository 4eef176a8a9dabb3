"""What an archive holds, by its headers alone: images, archives, tables, labels, and what is left out."""

import errno
import io
import os
import stat
import zipfile
from array import array
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.errors import ArchiveDamaged, SourceError
from pipeline.source.collected import ARCHIVE_SUFFIXES, TABLES, hidden, not_an_image_name
from pipeline.source.reader import ENCRYPTED, TAR
from pipeline.source.tar import BLOCK, is_tar, tar_members
from pipeline.system import files
from pipeline.text import show_path

LABEL_SUFFIXES = (b".cls", b".json")
_ZIP = b"PK\3\4", b"PK\5\6"  # the second begins an empty one
_COMPRESSED = {
    b"\x1f\x8b": "gunzip -k",
    b"BZh": "bunzip2 -k",
    b"\xfd7zXZ\0": "unxz -k",
    b"\x28\xb5\x2f\xfd": "unzstd",
}
_LARGEST = 2**62


class Entry(NamedTuple):
    """A member of an archive; see `Member` for the numbers. `unlike` says why it is no file, "folder" for a folder."""

    name: bytes
    offset: int
    packed: int
    size: int
    method: int
    crc: int
    unlike: str = ""


class Listing:
    """The members of one archive; images in columns, since they may be millions."""

    def __init__(self) -> None:
        self.images: list[bytes] = []
        self.members = array("q")
        self.folders: set[bytes] = set()  # every one that holds something, or is named as a member
        self.archives: list[Entry] = []
        self.tables: list[Entry] = []
        self.labels: dict[bytes, list[Entry]] = {suffix: [] for suffix in LABEL_SUFFIXES}
        self.left_out: Counter[str] = Counter()
        self.left_out_named: list[tuple[bytes, str]] = []
        self.warnings: list[str] = []

    def member(self, number: int) -> tuple[int, ...]:
        """Return offset, packed, size, method and crc of an image."""
        return tuple(self.members[5 * number : 5 * number + 5])

    def take(self, entry: Entry) -> None:
        """Sort a member in."""
        name = _plain(entry.name)
        folder, _, base = name.rpartition(b"/")
        if b".." in name and b".." in name.split(b"/"):
            self.left_out_named.append((name, "a name with .."))
        elif folder and any(map(hidden, folder.split(b"/"))):
            self.left_out["in a hidden folder"] += 1
        elif entry.unlike == "folder":
            if base and not hidden(base):
                self.folders.add(name)
        else:
            self.folders.add(folder)
            self._take_file(entry, name, base)

    def _take_file(self, entry: Entry, name: bytes, base: bytes) -> None:
        reason = not_an_image_name(base)
        if entry.unlike:
            if reason:
                self.left_out[reason] += 1
            else:
                self.left_out_named.append((name, entry.unlike))
        elif not reason:
            self.images.append(name)
            self.members.extend(entry[1:6])
        elif base in TABLES:
            self.tables.append(entry._replace(name=name))
        elif base.startswith(b"."):
            self.left_out[reason] += 1
        else:
            suffix = os.path.splitext(base)[1].lower()
            if suffix in ARCHIVE_SUFFIXES:
                self.archives.append(entry._replace(name=name))
            elif suffix in LABEL_SUFFIXES:
                self.labels[suffix].append(entry._replace(name=name))
            else:
                self.left_out[reason] += 1


def _plain(name: bytes) -> bytes:
    """Return a name without what says nothing: "./", "//", a "/" in front or behind."""
    if name[:1] not in b"./" and b"//" not in name and b"/." not in name and not name.endswith(b"/"):
        return name
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))


def list_archive(fd: int, start: int, end: int, where: str) -> Listing:
    """List the tar or zip in bytes `start` to `end` of a file; its content decides which it is.

    Raises:
        ArchiveDamaged: it ends early, or is damaged.
        SourceError: it is compressed as a whole, so that nothing in it can be found without unpacking it.
    """
    head = files.read_at(fd, min(BLOCK, end - start), start)
    listing = Listing()
    if head.startswith(_ZIP):
        for entry in _zip_entries(fd, start, end, where):
            listing.take(entry)
    elif is_tar(head):
        members = tar_members(fd, start, end, where)
        while True:
            try:
                name, offset, size, unlike = next(members)
            except StopIteration as ended:
                if ended.value:
                    listing.warnings.append(f"{show_path(where)} {ended.value}")
                break
            listing.take(Entry(name, offset, size, size, TAR, 0, unlike))
    else:
        _refuse(head, where)
    return listing


def _refuse(head: bytes, where: str) -> None:
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            raise SourceError(
                "no images to read",
                where,
                "it is compressed as a whole, so no image in it can be found without unpacking all before it",
                f"Undo that first: {command} FILE; JPEGs hardly get smaller by it",
            )
    if not os.fsencode(where).lower().endswith(ARCHIVE_SUFFIXES):
        advice = "Give a folder of class folders, or a tar or zip of them"
        raise SourceError("no images to read", where, "this is a file, and no tar or zip", advice)
    raise ArchiveDamaged("the archive cannot be read", where, "it is no tar or zip, whatever its name says")


def _zip_entries(fd: int, start: int, end: int, where: str) -> Iterator[Entry]:
    try:
        with zipfile.ZipFile(io.BufferedReader(_Part(fd, start, end))) as archive:
            entries = archive.infolist()
    except Exception as error:  # a damaged one raises nearly any type
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        why = f"its table of contents, at its end, is not whole ({error})"
        raise ArchiveDamaged("the archive cannot be read", where, why, "It was not copied whole") from error
    for info in entries:
        name = info.orig_filename.encode("utf-8" if info.flag_bits & 0x800 else "cp437")
        if info.create_system != 3 and b"/" not in name:  # some writers of other systems use their own separator
            name = name.replace(b"\\", b"/")
        kind = stat.S_IFMT(info.external_attr >> 16) if info.create_system == 3 else 0
        unlike = ""
        if name.endswith(b"/") or kind == stat.S_IFDIR:
            unlike = "folder"
        elif kind not in (0, stat.S_IFREG):
            unlike = "a symbolic link within the archive" if kind == stat.S_IFLNK else "not a regular file"
        offset = start + info.header_offset
        if not start <= offset <= end or info.compress_size > end - offset:
            raise ArchiveDamaged("the archive cannot be read", where, f"it ends within {info.filename!r}")
        method = ENCRYPTED if info.flag_bits & 1 else info.compress_type
        yield Entry(name, offset, info.compress_size, min(info.file_size, _LARGEST), method, info.CRC, unlike)


class _Part(io.RawIOBase):
    """Some bytes of a file as a file of their own."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self.fd, self.start, self.end, self.position = fd, start, end, start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = (self.start, self.position, self.end)[whence]
        if base + offset < self.start:
            raise OSError(errno.EINVAL, "a place before the beginning")
        self.position = base + offset
        return self.position - self.start

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # typeshed asks for any buffer; io gives these
        data = os.pread(self.fd, max(0, min(len(buffer), self.end - self.position)), self.position)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)

"""The contents of an archive by its headers alone: nothing is unpacked, and nothing is ever written.

An archive stands for the folder that it would be unpacked into.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

from pipeline.errors import ArchiveDamaged, SourceError, StorageError, source_errors
from pipeline.source.contents import Contents
from pipeline.source.file_names import (
    ARCHIVE_SUFFIXES,
    KNOWN_TABLES,
    hidden_folder,
    not_an_image_name,
    suffix_of,
)
from pipeline.source.reader import TAR, Location, Member, reopen_archive, stat_of
from pipeline.source.tar import BLOCK, is_tar, tar_members
from pipeline.source.zip import STORED, is_zip, zip_data_start, zip_members
from pipeline.system import files
from pipeline.text import show_path

_NO_IMAGES = "no images to read"
_UNREADABLE = "the archive cannot be read"
_COMPRESSED = {b"\x1f\x8b": "gunzip -k", b"BZh": "bunzip2 -k", b"\xfd7zXZ\0": "unxz -k", b"\x28\xb5\x2f\xfd": "unzstd"}


@contextmanager
def open_archive(path: bytes, inside: bytes = b"", name: bytes = b"", part: bool = False) -> Iterator[Contents]:
    """Yield the contents of a tar or zip; its content decides which it is.

    Args:
        path: of the archive.
        inside: the folder within it that is wanted; empty for all of it.
        name, part: as in `Contents`.

    Raises:
        SourceError: no archive that can be read in place, or it has no such folder.
        ArchiveDamaged: it ends early: what is whole of it is not taken for all.
        StorageError, WorkerDied, AccessDenied: the system failed, or the archive was changed meanwhile.
    """
    where = os.fsdecode(path)
    with source_errors(_UNREADABLE, where):
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with source_errors(_UNREADABLE, where):
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise SourceError(_NO_IMAGES, where, "not a regular file", "Give a folder or an archive")
            contents = Contents(where, path, stat_of(before), b"" if inside else name, part, depth=0)
            _list(contents, fd, 0, before.st_size, inside)
        yield contents
        with source_errors(_UNREADABLE, where):
            changed = stat_of(os.fstat(fd)) != contents.archive_stat
    finally:
        os.close(fd)
    if changed:
        raise StorageError(_UNREADABLE, where, "it was changed meanwhile", "Run it again")


@contextmanager
def open_inner_archive(outer: Contents, row: int, name: bytes) -> Iterator[Contents]:
    """Yield the contents of an archive within a folder or archive: the one in this row of `outer.archives`.

    Raises:
        SourceError: it is compressed within the outer archive.
        Whatever `open_archive` raises.
    """
    location = outer.location(outer.archives, row)
    if not isinstance(location, Member):
        with open_archive(location, name=name, part=True) as contents:
            yield contents
        return
    contents = Contents(f"{outer.where}/{os.fsdecode(outer.archives.paths[row])}", outer.root, outer.archive_stat)
    contents.name, contents.part, contents.depth = name, True, outer.depth + 1
    assert outer.archive_stat is not None  # a member lies in an archive
    with source_errors(_UNREADABLE, outer.where):
        fd = reopen_archive(outer.root, outer.archive_stat)
        try:
            start = location.offset if location.method == TAR else zip_data_start(fd, location.offset)
            if location.method not in (TAR, STORED) or start is None:
                why = "it is compressed within the archive"
                raise SourceError(_NO_IMAGES, contents.where, why, "Unpack the outer one first")
            _list(contents, fd, start, start + location.packed, b"")
        finally:
            os.close(fd)
    yield contents


def _list(contents: Contents, fd: int, start: int, end: int, inside: bytes) -> None:
    """Sort the members of the archive in bytes `start` to `end` of a file into `contents`."""
    listing = _Listing(contents, inside)
    head = files.read_at(fd, min(BLOCK, end - start), start)
    if is_zip(head):
        for name, offset, packed, size, method, crc, unlike in zip_members(fd, start, end, contents.where):
            listing.take(name, (offset, packed, size, method, crc), unlike)
    elif is_tar(head):
        members = tar_members(fd, start, end, contents.where)
        while True:
            try:
                name, offset, size, unlike = next(members)
            except StopIteration as ended:
                if ended.value:
                    contents.warnings.append(f"{show_path(contents.where)} {ended.value}")
                break
            listing.take(name, (offset, size, size, TAR, 0), unlike)
    else:
        _refuse(head, contents.where)
    listing.finish()


def _refuse(head: bytes, where: str) -> None:
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            raise SourceError(
                _NO_IMAGES,
                where,
                "it is compressed as a whole, so no image in it can be found without unpacking all before it",
                f"Undo that first: {command} FILE; JPEGs hardly get smaller by it",
            )
    if not os.fsencode(where).lower().endswith(ARCHIVE_SUFFIXES):
        advice = "Give a folder of class folders, or a tar or zip of them"
        raise SourceError(_NO_IMAGES, where, "this is a file, and no tar or zip", advice)
    raise ArchiveDamaged(_UNREADABLE, where, "it is no tar or zip, although its name says so")


class _Listing:
    """Sorts the members of one archive into its contents."""

    def __init__(self, contents: Contents, inside: bytes) -> None:
        self.contents = contents
        self.inside = inside + b"/" if inside else b""
        self.there = not inside
        self.tables: list[tuple[bytes, Location]] = []  # by their whole path

    def take(self, name: bytes, numbers: tuple[int, ...], unlike: str) -> None:
        """Take a member: its name, the numbers of its `Member`, and why it is not a file ("folder" for a folder)."""
        contents = self.contents
        path = _plain(name)
        folder, _, base = path.rpartition(b"/")
        if self.inside and not path.startswith(self.inside):
            self.there = self.there or path + b"/" == self.inside
            if not unlike and base in KNOWN_TABLES and (not folder or self.inside.startswith(folder + b"/")):
                self.tables.append((path, self._location(numbers)))
            return
        self.there = True
        path, folder = path[len(self.inside) :], folder[len(self.inside) :]
        if b".." in path and b".." in path.split(b"/"):
            contents.leave_out("a name with ..", path)
        elif b"\0" in path:  # which no cache can store, nor any folder hold
            contents.leave_out("a name with NUL", path)
        elif folder and (hidden := _hidden(folder)):
            if unlike != "folder":
                contents.left_out[f"in a {hidden}"] += 1
        elif unlike == "folder":
            if base and not hidden_folder(base):
                contents.folders.add(path)
        else:
            if folder:
                contents.folders.add(folder)
            self._take_file(path, base, numbers, unlike)

    def _take_file(self, path: bytes, base: bytes, numbers: tuple[int, ...], unlike: str) -> None:
        contents = self.contents
        reason, suffix = not_an_image_name(base), suffix_of(base)
        if unlike and reason:
            contents.left_out[reason] += 1
        elif unlike:
            contents.leave_out(unlike, path)
        elif not reason:
            contents.images.add(path, numbers)
        elif base in KNOWN_TABLES:
            self.tables.append((self.inside + path, self._location(numbers)))
        elif base.startswith(b"."):
            contents.left_out[reason] += 1
        else:
            contents.add_other(path, suffix, reason, numbers)

    def _location(self, numbers: tuple[int, ...]) -> Location:
        assert self.contents.archive_stat is not None
        return Member(self.contents.root, self.contents.archive_stat, *numbers)

    def finish(self) -> None:
        """Sort the tables, and see that the folder asked for is there.

        Raises:
            SourceError: there is no such folder.
        """
        contents = self.contents
        if not self.there:
            where = f"{contents.where}/{os.fsdecode(self.inside[:-1])}"
            raise SourceError(_NO_IMAGES, where, "there is no such folder in the archive")
        if self.inside:
            contents.where += "/" + os.fsdecode(self.inside[:-1])
        for path, location in sorted(self.tables, key=lambda table: -table[0].count(b"/")):
            folder, _, base = path.rpartition(b"/")
            contents.tables.append((folder[len(self.inside) :], base, location))


@lru_cache(maxsize=1024)
def _hidden(folder: bytes) -> str:
    for name in folder.split(b"/"):
        if reason := hidden_folder(name):
            return reason
    return ""


def _plain(name: bytes) -> bytes:
    """Return a name without "./", "//", and a "/" at its beginning or end."""
    if name[:1] not in b"./" and b"//" not in name and b"/." not in name and not name.endswith(b"/"):
        return name
    return b"/".join(part for part in name.split(b"/") if part not in (b"", b"."))

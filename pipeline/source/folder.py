"""A walk over a folder of class folders: every file is a candidate, left out for a reason, or failed."""

import errno
import os
import stat
from collections.abc import Container, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import AccessDenied, StorageError
from pipeline.format.header import MAGIC, SIDE_FILES
from pipeline.format.paths import is_shard_of
from pipeline.format.tables import Failed
from pipeline.source.collected import (
    ARCHIVE_SUFFIXES,
    NOT_REGULAR,
    NOWHERE,
    OUTSIDE,
    TABLES,
    Files,
    Found,
    hidden,
    not_an_image_name,
)
from pipeline.source.reader import stat_of
from pipeline.text import show_path


def walk_folder(root: bytes, output: Path | None, wanted: Container[bytes] | None = None) -> Found:
    """List the images below `root`, a class a folder, following links but visiting each real folder once.

    Args:
        root: the folder of class folders.
        output: the cache to be built; it and the files beside it are no part of the source.
        wanted: the class folders to look into; None for all.

    Raises:
        AccessDenied: a folder that may not be read: a class lost in silence would be worse.
        StorageError: the disk failed.
    """
    walk = _Walk(output, wanted)
    walk.look(root)
    return walk.found


class _Folder(NamedTuple):
    class_folder: bytes
    path: bytes
    below: bytes  # its path below the class folder, empty or ending in /


class _Walk:
    """One walk over the tree: images by class folder, each real directory once, real ones before linked ones."""

    def __init__(self, output: Path | None, wanted: Container[bytes] | None) -> None:
        self.wanted = wanted
        self.found = Found()
        self.output = None if output is None else os.fsencode(os.path.realpath(output.parent) / Path(output.name))
        self.visited: set[tuple[int, int]] = set()
        self.holds_caches: set[bytes] = set()

    def look(self, root: bytes) -> None:
        """Walk the whole tree."""
        self.visited.add(_identity(os.stat(root)))
        real: list[_Folder] = []
        linked: list[_Folder] = []
        for entry in _entries(root):
            if not _is_folder(entry):
                if entry.name in TABLES:
                    self.found.tables[entry.name] = entry.path
                elif _leads_nowhere(entry):
                    self.found.leave_out(NOWHERE, entry.name)
                elif not self._is_ours(entry):
                    self._look_at_top(entry)
            elif hidden(entry.name):
                self.found.left_out["hidden folder"] += 1
            elif self.wanted is not None and entry.name not in self.wanted:
                self.found.unwanted.add(entry.name)
            else:
                (linked if entry.is_symlink() else real).append(_Folder(entry.name, entry.path, b""))
        real, linked = sorted(real), sorted(linked)
        self.found.files = {folder.class_folder: Files() for folder in real + linked}
        while real or linked:
            folders, links = self._walk((real or linked).pop(0))
            real = folders + real
            linked += links
        self.found.left_out_named.sort()
        failed = {os.fsencode(str(f.class_id)) for f in self.found.failed}
        for folder in self.holds_caches - failed:
            if not self.found.files[folder].names:  # no class, but a place for caches
                del self.found.files[folder]

    def _walk(self, folder: _Folder) -> tuple[list[_Folder], list[_Folder]]:
        """Look at one folder's files; return the real and the linked folders in it, in byte order."""
        real: list[_Folder] = []
        linked: list[_Folder] = []
        try:
            identity = _identity(os.stat(folder.path))
            if identity in self.visited:
                self.found.left_out["link to a folder that is read already"] += 1
                if not folder.below:
                    why = "leads to a folder that is read already, in another class or as the source"
                    self.found.warnings.append(f"class {show_path(folder.class_folder)} {why}")
                return [], []
            self.visited.add(identity)
            for entry in _entries(folder.path):
                name = folder.below + entry.name
                if self._is_ours(entry):
                    self.holds_caches.add(folder.class_folder)
                elif not _is_folder(entry):
                    self._look_at(folder.class_folder, entry, name)
                elif hidden(entry.name):
                    self.found.left_out["hidden folder"] += 1
                else:
                    inner = _Folder(folder.class_folder, entry.path, name + b"/")
                    (linked if entry.is_symlink() else real).append(inner)
        except PermissionError as error:
            raise _closed(folder.path) from error
        except OSError as error:
            self._fail(folder.class_folder, folder.below, error.strerror or str(error))
        return sorted(real), sorted(linked)

    def _look_at(self, class_folder: bytes, entry: "os.DirEntry[bytes]", name: bytes) -> None:
        reason = not_an_image_name(entry.name)
        if reason:
            if _leads_nowhere(entry):
                self.found.leave_out(NOWHERE, os.path.join(class_folder, name))
            else:
                self.found.left_out[reason] += 1
            return
        try:
            result = entry.stat()
        except FileNotFoundError:
            self._fail(class_folder, name, NOWHERE if entry.is_symlink() else "vanished")
        except OSError as error:
            if isinstance(error, PermissionError) and not entry.is_symlink():
                raise _closed(os.path.dirname(entry.path)) from error
            self._fail(class_folder, name, error.strerror or str(error))
        else:
            if stat.S_ISREG(result.st_mode):
                self.found.files[class_folder].add(name, stat_of(result))
            else:
                self.found.leave_out(NOT_REGULAR, os.path.join(class_folder, name))

    def _look_at_top(self, entry: "os.DirEntry[bytes]") -> None:
        reason = not_an_image_name(entry.name)
        if not reason and _is_file(entry):
            self.found.flat.add(entry.name, stat_of(entry.stat()))
        elif not reason:
            self.found.leave_out(OUTSIDE, entry.name)
        elif entry.name.lower().endswith(ARCHIVE_SUFFIXES) and not hidden(entry.name) and _is_file(entry):
            self.found.nearby.append(entry.path)
        else:
            self.found.left_out[reason] += 1

    def _fail(self, class_folder: bytes, name: bytes, reason: str) -> None:
        self.found.failed.append(Failed(os.fsdecode(class_folder), os.fsdecode(name), reason, transient=True))

    def _is_ours(self, entry: "os.DirEntry[bytes]") -> bool:
        """Tell the output, what stands beside it while it is built, and other caches from the user's files."""
        if self.output and entry.name.startswith(os.path.basename(self.output)):
            place = os.path.join(os.path.realpath(os.path.dirname(entry.path)), entry.name)
            if place in (self.output, *(self.output + os.fsencode(suffix) for suffix in SIDE_FILES)):
                return True
        if self.output and is_shard_of(entry.name, os.path.basename(self.output)):
            return os.path.realpath(os.path.dirname(entry.path)) == os.path.dirname(self.output)
        if not entry.name.endswith((b".h5", b".hdf5")) or not entry.is_file():
            return False
        try:
            with Path(os.fsdecode(entry.path)).open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except OSError:
            return False


def _entries(path: bytes) -> Iterator["os.DirEntry[bytes]"]:
    """List a folder, in any order."""
    try:
        with os.scandir(path) as entries:
            yield from entries
    except PermissionError as error:
        raise _closed(path) from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise StorageError("a folder cannot be read", os.fsdecode(path), error.strerror or str(error)) from error
        raise


def _closed(path: bytes) -> AccessDenied:
    return AccessDenied("a folder cannot be read", os.fsdecode(path), "permission denied")


def _identity(result: os.stat_result) -> tuple[int, int]:
    return result.st_dev, result.st_ino


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except PermissionError as error:  # a link to where one may not look
        if not hidden(entry.name) and not os.path.splitext(entry.name)[1]:  # called like a class
            raise _closed(entry.path) from error
        return False
    except OSError:  # a loop of links
        return False


def _leads_nowhere(entry: "os.DirEntry[bytes]") -> bool:
    """Tell a link to what is gone, perhaps on a disk that is not mounted: it may have been a class."""
    return not hidden(entry.name) and entry.is_symlink() and not os.path.exists(entry.path)


def _is_file(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False

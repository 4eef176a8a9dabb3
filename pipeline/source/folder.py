"""Walk a folder: every file is an image, left out for a reason, or failed."""

import os
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import AccessDenied, PipelineError, SourceError, WorkerDied, source_errors
from pipeline.format.header import MAGIC, SIDE_FILES
from pipeline.format.paths import is_shard_of
from pipeline.source.contents import Contents
from pipeline.source.file_names import KNOWN_TABLES, hidden_folder, not_an_image_name, suffix_of
from pipeline.source.reader import stat_of
from pipeline.text import show_path

_UNREADABLE = "a folder cannot be read"
NOT_REGULAR = "not a regular file"
NOWHERE = "a link that leads nowhere"


def walk_folder(root: bytes, output: Path | None = None, wanted: Collection[bytes] | None = None) -> Contents:
    """List the files below a folder, following links but visiting each real folder once, real ones before linked ones.

    Args:
        root: the folder.
        output: the cache to be built; it and the files beside it do not belong to the source.
        wanted: the class folders to read. Only if one of them lies directly in `root`, the others are not read.

    Raises:
        AccessDenied: a folder that may not be read: a class lost in silence would be worse.
        WorkerDied, StorageError: the system has no file handles left, or the disk failed.
    """
    walk = _Walk(root, output)
    with source_errors(_UNREADABLE, os.fsdecode(root)):
        walk.walk(wanted)
    return walk.contents


class _Folder(NamedTuple):
    path: bytes  # below the root
    real_path: bytes


class _Walk:
    """One walk over a tree."""

    def __init__(self, root: bytes, output: Path | None) -> None:
        self.root = root
        self.contents = Contents(os.fsdecode(root), root)
        self.output = None if output is None else os.fsencode(os.path.realpath(output.parent) / Path(output.name))
        self.visited: set[tuple[int, int]] = set()

    def walk(self, wanted: Collection[bytes] | None) -> None:
        """Walk the whole tree."""
        self.visited.add(_identity(os.stat(self.root)))
        real, linked = self._read(b"", self.root)
        top = {folder.path for folder in real + linked}
        if wanted is not None and not top.isdisjoint(wanted):
            self.contents.unread = top.difference(wanted)
            self.contents.folders -= self.contents.unread
            real, linked = ([f for f in folders if f.path in wanted] for folders in (real, linked))
        while real or linked:
            folders, links = self._enter((real or linked).pop(0))
            real = folders + real
            linked += links
        self.contents.left_out_named.sort()
        self.contents.tables.sort(key=lambda table: -len(table[0].split(b"/")) if table[0] else 0)

    def _enter(self, folder: _Folder) -> tuple[list[_Folder], list[_Folder]]:
        """Read a folder, unless it was read under another name."""
        contents = self.contents
        try:
            with source_errors(_UNREADABLE, os.fsdecode(folder.real_path)):
                identity = _identity(os.stat(folder.real_path))
            if identity not in self.visited:
                self.visited.add(identity)
                return self._read(folder.path + b"/", folder.real_path)
            contents.left_out["link to a folder that is read already"] += 1
            if b"/" not in folder.path:
                why = "leads to a folder that is read already, in another class or as the source"
                contents.warnings.append(f"class {show_path(folder.path)} {why}")
        except SourceError as error:  # of this path, as one that is gone or too long
            contents.failed.append((folder.path + b"/", error.reason))
        return [], []

    def _read(self, below: bytes, real_path: bytes) -> tuple[list[_Folder], list[_Folder]]:
        """Take the files of a folder; return the real and the linked folders in it, in byte order."""
        real: list[_Folder] = []
        linked: list[_Folder] = []
        for entry in _entries(real_path):
            path = below + entry.name
            if self._is_ours(entry):
                self.contents.cache_folders.add(below[:-1])
            elif not _is_folder(entry):
                self._take_file(entry, path)
            elif reason := hidden_folder(entry.name):
                self.contents.left_out[reason] += 1
            else:
                self.contents.folders.add(path)
                (linked if entry.is_symlink() else real).append(_Folder(path, entry.path))
        return sorted(real), sorted(linked)

    def _take_file(self, entry: "os.DirEntry[bytes]", path: bytes) -> None:
        contents = self.contents
        reason = not_an_image_name(entry.name)
        if entry.name in KNOWN_TABLES and not _leads_nowhere(entry):
            contents.tables.append((path.rpartition(b"/")[0], entry.name, entry.path))
        elif reason and _leads_nowhere(entry):
            contents.leave_out(NOWHERE, path)
        elif reason and (entry.name.startswith(b".") or not _is_file(entry)):
            contents.left_out[reason] += 1
        elif reason:
            contents.add_other(path, suffix_of(entry.name), reason)
        else:
            self._take_image(entry, path)

    def _take_image(self, entry: "os.DirEntry[bytes]", path: bytes) -> None:
        try:
            result = entry.stat()
        except FileNotFoundError:
            self.contents.failed.append((path, NOWHERE if entry.is_symlink() else "vanished"))
        except OSError as error:
            if isinstance(error, PermissionError) and not entry.is_symlink():
                raise _closed(os.path.dirname(entry.path)) from error
            self.contents.failed.append((path, error.strerror or str(error)))
        else:
            if stat.S_ISREG(result.st_mode):
                self.contents.images.add(path, stat_of(result))
            else:
                self.contents.leave_out(NOT_REGULAR, path)

    def _is_ours(self, entry: "os.DirEntry[bytes]") -> bool:
        """Tell the output, the files beside it during a build, and other caches from the user's files."""
        if self.output and entry.name.startswith(os.path.basename(self.output)):
            path = os.path.join(os.path.realpath(os.path.dirname(entry.path)), entry.name)
            if path in (self.output, *(self.output + os.fsencode(suffix) for suffix in SIDE_FILES)):
                return True
        if self.output and is_shard_of(entry.name, os.path.basename(self.output)):
            return os.path.realpath(os.path.dirname(entry.path)) == os.path.dirname(self.output)
        if not entry.name.endswith((b".h5", b".hdf5")) or not _is_file(entry):
            return False
        where = Path(os.fsdecode(entry.path))
        try:
            with source_errors(_UNREADABLE, where), where.open("rb") as file:
                is_cache = file.read(len(MAGIC)) == MAGIC
        except WorkerDied:
            raise
        except PipelineError:
            return False
        return is_cache


def _entries(path: bytes) -> Iterator["os.DirEntry[bytes]"]:
    """List a folder, in any order."""
    with source_errors(_UNREADABLE, os.fsdecode(path)), os.scandir(path) as entries:
        yield from entries


def _closed(path: bytes) -> AccessDenied:
    return AccessDenied(_UNREADABLE, os.fsdecode(path), "permission denied")


def _identity(result: os.stat_result) -> tuple[int, int]:
    return result.st_dev, result.st_ino


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except PermissionError as error:  # a link to an unreadable folder
        if not hidden_folder(entry.name) and not os.path.splitext(entry.name)[1]:  # named like a class
            raise _closed(entry.path) from error
        return False
    except OSError:  # a loop of links
        return False


def _leads_nowhere(entry: "os.DirEntry[bytes]") -> bool:
    """Tell a link whose target is gone, perhaps on an unmounted disk: it may have been a class."""
    return not entry.name.startswith(b".") and entry.is_symlink() and not os.path.exists(entry.path)


def _is_file(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_file()
    except OSError:
        return False

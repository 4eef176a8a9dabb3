"""The images below a folder, a class a folder: every file is a candidate, left out for a reason, or failed.

All paths are bytes inside, so that a name that is not UTF-8 works like any other. Names and stat data are kept in
columns, not objects: a million images are a million short byte strings and one array.
"""

import csv
import errno
import hashlib
import os
import re
import stat
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import AccessDenied, SourceError, StorageError, show_path
from pipeline.format import MAGIC, SIDE_FILES

SUFFIXES = (b".jpg", b".jpeg", b".jpe", b".jfif", b".png")
MAX_FILE_BYTES = 2**29
LONGEST_NAME = 200  # characters of a class's readable name

ClassId = int | str

_INTEGER = re.compile(rb"0|[1-9][0-9]*")
_NAME_FILES = (b"classes.csv", b"LOC_synset_mapping.txt")


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


def scan_folder(root: Path, output: Path | None = None) -> Scan:
    """List the images below `root`, a class a folder, following links but visiting each real folder once.

    Args:
        root: the folder of class folders.
        output: the cache to be built; it and the files beside it are no part of the source.

    Raises:
        SourceError: no such folder, no images, or folders of folders (train/ and val/).
        AccessDenied: a folder that may not be read: a class lost in silence would be worse.
    """
    scan = Scan(root)
    try:
        there = root.exists()
    except PermissionError as error:
        raise AccessDenied("no images to read", root, "permission denied") from error
    except OSError as error:
        raise SourceError("no images to read", root, error.strerror or str(error)) from error
    if not there:
        raise SourceError("no images to read", root, "there is no such folder", "Give a folder of class folders")
    if not root.is_dir():
        raise SourceError("no images to read", root, "this is a file", "Give a folder of class folders")
    walk = _Walk(scan, output)
    folders = walk.class_folders(os.fsencode(root))
    if not any(walk.found[folder].names for folder in folders) and not scan.failed:
        found = f"no files ending in {', '.join(s.decode() for s in SUFFIXES)} in its class folders"
        hint = "; images lie directly in it" if any(r == _OUTSIDE for _, r in scan.left_out_named) else ""
        raise SourceError(
            "no images to read", root, found + hint, "Put the images of each class into a folder of its own"
        )
    _refuse_folders_of_folders(root, walk, folders)
    scan.class_folders = class_order(folders)
    scan.class_ids = class_ids_of(scan.class_folders)
    _read_class_names(scan)
    _warn_of_classes(scan, walk)
    _fill_columns(scan, walk)
    return scan


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


_OUTSIDE = "outside a class folder"


class _Files:
    """The images of one class folder, in columns."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.stats = array("q")

    def sorted(self) -> tuple[list[bytes], NDArray[np.int64]]:
        """Return names in byte order and their (n, 4) stats."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        return [self.names[i] for i in order], np.array(self.stats, np.int64).reshape(-1, len(Stat._fields))[order]


class _Folder(NamedTuple):
    class_folder: bytes
    path: bytes
    below: bytes  # its path below the class folder, empty or ending in /


class _Walk:
    """One walk over the tree: images by class folder, each real directory once, real ones before linked ones."""

    def __init__(self, scan: Scan, output: Path | None) -> None:
        self.scan = scan
        self.output = None if output is None else os.fsencode(os.path.realpath(output.parent) / Path(output.name))
        self.visited: set[tuple[int, int]] = set()
        self.found: dict[bytes, _Files] = {}
        self.holds_caches: set[bytes] = set()

    def class_folders(self, root: bytes) -> list[bytes]:
        """Walk the whole tree and return the names of the class folders."""
        self.visited.add(_identity(os.stat(root)))
        real: list[_Folder] = []
        linked: list[_Folder] = []
        for entry in _entries(root):
            if not _is_folder(entry):
                if entry.name not in _NAME_FILES and not self._is_ours(entry):
                    self._leave_out_at_top(entry)
            elif _hidden(entry.name):
                self.scan.left_out["hidden folder"] += 1
            else:
                (linked if entry.is_symlink() else real).append(_Folder(entry.name, entry.path, b""))
        real, linked = sorted(real), sorted(linked)
        self.found = {folder.class_folder: _Files() for folder in real + linked}
        while real or linked:
            folders, links = self._walk((real or linked).pop(0))
            real = folders + real
            linked += links
        self.scan.left_out_named.sort()
        failed = {os.fsencode(str(f.class_id)) for f in self.scan.failed}
        return [f for f, files in self.found.items() if files.names or f in failed or f not in self.holds_caches]

    def _walk(self, folder: _Folder) -> tuple[list[_Folder], list[_Folder]]:
        """Look at one folder's files; return the real and the linked folders in it, in byte order."""
        real: list[_Folder] = []
        linked: list[_Folder] = []
        try:
            identity = _identity(os.stat(folder.path))
            if identity in self.visited:
                self.scan.left_out["link to a folder that is read already"] += 1
                return [], []
            self.visited.add(identity)
            for entry in _entries(folder.path):
                name = folder.below + entry.name
                if self._is_ours(entry):
                    self.holds_caches.add(folder.class_folder)
                elif not _is_folder(entry):
                    self._look_at(folder.class_folder, entry, name)
                elif _hidden(entry.name):
                    self.scan.left_out["hidden folder"] += 1
                else:
                    inner = _Folder(folder.class_folder, entry.path, name + b"/")
                    (linked if entry.is_symlink() else real).append(inner)
        except OSError as error:
            self._fail(folder.class_folder, folder.below, error.strerror or str(error))
        return sorted(real), sorted(linked)

    def _look_at(self, class_folder: bytes, entry: "os.DirEntry[bytes]", name: bytes) -> None:
        reason = _not_an_image_name(entry.name)
        if reason:
            self.scan.left_out[reason] += 1
            return
        try:
            result = entry.stat()
        except FileNotFoundError:
            self._fail(class_folder, name, "a link that leads nowhere" if entry.is_symlink() else "vanished")
        except OSError as error:
            self._fail(class_folder, name, error.strerror or str(error))
        else:
            if stat.S_ISREG(result.st_mode):
                self.found[class_folder].names.append(name)
                self.found[class_folder].stats.extend(stat_of(result))
            else:
                self._leave_out(_NOT_REGULAR, os.path.join(class_folder, name))

    def _leave_out_at_top(self, entry: "os.DirEntry[bytes]") -> None:
        reason = _not_an_image_name(entry.name)
        if reason:
            self.scan.left_out[reason] += 1
        else:
            self._leave_out(_OUTSIDE, entry.name)

    def _leave_out(self, reason: str, name: bytes) -> None:
        self.scan.left_out[reason] += 1
        self.scan.left_out_named.append((os.fsdecode(name), reason))

    def _fail(self, class_folder: bytes, name: bytes, reason: str) -> None:
        self.scan.failed.append(Failed(os.fsdecode(class_folder), os.fsdecode(name), reason, passing=True))

    def _is_ours(self, entry: "os.DirEntry[bytes]") -> bool:
        """Tell the output, what stands beside it while it is built, and other caches from the user's files."""
        if self.output and entry.name.startswith(os.path.basename(self.output)):
            place = os.path.join(os.path.realpath(os.path.dirname(entry.path)), entry.name)
            if place in (self.output, *(self.output + os.fsencode(suffix) for suffix in SIDE_FILES)):
                return True
        if not entry.name.endswith((b".h5", b".hdf5")) or not entry.is_file():
            return False
        try:
            with Path(os.fsdecode(entry.path)).open("rb") as file:
                return file.read(len(MAGIC)) == MAGIC
        except OSError:
            return False


_NOT_REGULAR = "not a regular file"


def _entries(path: bytes) -> Iterator["os.DirEntry[bytes]"]:
    """List a folder, in any order."""
    try:
        with os.scandir(path) as entries:
            yield from entries
    except PermissionError as error:
        raise AccessDenied("a folder cannot be read", os.fsdecode(path), "permission denied") from error
    except OSError as error:
        if error.errno == errno.EIO:
            raise StorageError("a folder cannot be read", os.fsdecode(path), error.strerror or str(error)) from error
        raise


def _identity(result: os.stat_result) -> tuple[int, int]:
    return result.st_dev, result.st_ino


def _is_folder(entry: "os.DirEntry[bytes]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop of links
        return False


def _hidden(name: bytes) -> bool:
    return name.startswith(b".") or name == b"__MACOSX"


def _not_an_image_name(name: bytes) -> str:
    """Say why a file is left out by its name alone; empty where it is not."""
    if name.startswith(b"."):
        return "hidden file"
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUFFIXES:
        return ""
    return f"suffix {show_path(suffix)}" if suffix else "no suffix"


_SPLITS = {b"train", b"training", b"val", b"valid", b"validation", b"test", b"testing"}


def _refuse_folders_of_folders(root: Path, walk: _Walk, folders: Iterable[bytes]) -> None:
    names = [name for folder in folders for name in walk.found[folder].names]
    nested = [b"/" in name for name in names]
    splits = {folder.lower() for folder in folders} <= _SPLITS  # where a stray image does not make it a class
    if any(nested) and (all(nested) or splits):
        inside = sorted(folder for folder in folders if walk.found[folder].names)
        shown = " and ".join(show_path(folder) + "/" for folder in inside[:3])
        raise SourceError(
            "no classes to read",
            root,
            f"its folders hold only folders of images: it looks like {shown}"
            if {b"train", b"val"} & set(inside)
            else f"its folders ({shown}) hold only folders of images; it looks like train/ and val/",
            f"Build each: build-cache {show_path(os.path.join(os.fsencode(root), inside[0]))}",
        )


def class_order(folders: list[bytes]) -> list[bytes]:
    """Order class folders: as numbers where every name is one, else by bytes."""
    return sorted(folders, key=int) if _all_integers(folders) else sorted(folders)


def class_ids_of(folders: list[bytes]) -> list[ClassId]:
    """Return what a person calls the classes: integers where every folder's name is one, else strings."""
    return [int(f) for f in folders] if _all_integers(folders) else [os.fsdecode(f) for f in folders]


def _all_integers(folders: list[bytes]) -> bool:
    return all(_INTEGER.fullmatch(folder) for folder in folders)


def _read_class_names(scan: Scan) -> None:
    names: dict[str, str] = {}
    table, synsets = (scan.root / os.fsdecode(name) for name in _NAME_FILES)
    try:
        if table.is_file():
            with table.open(newline="", encoding="utf-8-sig") as file:
                rows = csv.DictReader(file)
                if not {"id", "name"} <= set(rows.fieldnames or ()):
                    raise SourceError("class names cannot be read", table, "its first line is not id,name")
                names = {row["id"].strip(): (row["name"] or "").strip() for row in rows if row["id"]}
        elif synsets.is_file():
            lines = synsets.read_text("utf-8").splitlines()
            parts = (line.partition(" ") for line in lines)
            names = {synset: words.split(",")[0].strip() for synset, _, words in parts}
    except PermissionError as error:
        raise AccessDenied("class names cannot be read", error.filename, "permission denied") from error
    except OSError as error:
        raise SourceError("class names cannot be read", error.filename, error.strerror or str(error)) from error
    except (UnicodeDecodeError, csv.Error) as error:
        path = table if table.is_file() else synsets
        raise SourceError("class names cannot be read", path, f"not a table in UTF-8: {error}") from error
    scan.class_names = [
        names.get(os.fsdecode(folder), "").replace("\0", "")[:LONGEST_NAME] for folder in scan.class_folders
    ]


def _warn_of_classes(scan: Scan, walk: _Walk) -> None:
    for folder in scan.class_folders:
        if not walk.found[folder].names:
            scan.warnings.append(f"class {show_path(folder)} is empty; it keeps its place among the classes")
    alike = Counter(os.fsdecode(folder).casefold() for folder in scan.class_folders)
    for name in sorted(name for name, count in alike.items() if count > 1):
        same = [show_path(f) for f in scan.class_folders if os.fsdecode(f).casefold() == name]
        scan.warnings.append(f"classes {' and '.join(same)} differ only in case; they are kept apart")


def _fill_columns(scan: Scan, walk: _Walk) -> None:
    counts = []
    stats = []
    for folder in scan.class_folders:
        names, folder_stats = walk.found.pop(folder).sorted()
        counts.append(len(names))
        scan.names += names
        stats.append(folder_stats)
    scan.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    scan.stats = np.concatenate(stats) if stats else scan.stats
    ids = {os.fsdecode(f): class_id for f, class_id in zip(scan.class_folders, scan.class_ids, strict=True)}
    scan.failed = [f._replace(class_id=ids.get(str(f.class_id), f.class_id)) for f in scan.failed]

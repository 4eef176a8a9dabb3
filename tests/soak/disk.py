"""Records the file operations of a build, and says what a disk may hold after a power cut among them.

The model is a pessimistic disk: of a file's bytes only those are sure that were written before its last `fsync`; later
writes may each be there, be lost or be torn at sectors, its size may lag behind, and a lost sector may hold anything.
Of names only those are sure that were made before the folder's last `fsync`; later creations, renames and deletions
may each have happened or not, in order or not.
"""

import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.system import files

SECTOR = 512


class Operation(NamedTuple):
    """One file operation: `kind`, the file that it is about (a number), and what is done."""

    kind: str  # write, resize, reserve, sync; name, unname; sync_folder
    file: int = -1
    offset: int = 0
    data: bytes = b""
    name: str = ""


class Recorder:
    """Wraps the operations of `pipeline.system.files` and notes what they do in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.operations: list[Operation] = []
        self.start: dict[str, bytes] = {}
        self._numbers: dict[int, int] = {}
        for entry in sorted(folder.iterdir()):
            self.start[entry.name] = entry.read_bytes()
            self._numbers[entry.stat().st_ino] = len(self._numbers)
        self._next = len(self._numbers)

    def note(self, kind: str, fd: int, offset: int = 0, data: "bytes | memoryview" = b"") -> None:
        """Note an operation on an open file, if it is one of the folder's."""
        number = self._numbers.get(os.fstat(fd).st_ino)
        if number is not None:
            self.operations.append(Operation(kind, number, offset, bytes(data)))

    def created(self, path: Path, fd: int) -> None:
        """Note a new file and its name."""
        self._numbers[os.fstat(fd).st_ino] = self._next
        self.operations.append(Operation("name", self._next, name=path.name))
        self._next += 1

    def renamed(self, source: Path, target: Path) -> None:
        """Note both halves of a rename."""
        number = self._numbers[target.stat().st_ino]
        self.operations.append(Operation("name", number, name=target.name, data=source.name.encode()))

    def removed(self, path: Path) -> None:
        """Note a deletion."""
        self.operations.append(Operation("unname", name=path.name))


@contextmanager
def recording(folder: Path, leave_out: str = "") -> Iterator[Recorder]:
    """Record what `pipeline.system.files` does in `folder`; an operation named in `leave_out` is not done at all."""
    recorder = Recorder(folder)
    real = {name: getattr(files, name) for name in _WATCHED}
    try:
        for name, watch in _WATCHED.items():
            setattr(files, name, (lambda *_: None) if name == leave_out else watch(recorder, real[name]))
        yield recorder
    finally:
        for name, function in real.items():
            setattr(files, name, function)


Real = Callable[..., Any]


def _create(recorder: Recorder, real: Real) -> Real:
    def create(path: Path) -> int:
        fd: int = real(path)
        recorder.created(path, fd)
        return fd

    return create


def _write_all(recorder: Recorder, real: Real) -> Real:
    def write_all(fd: int, data: bytes, offset: int) -> None:
        real(fd, data, offset)
        recorder.note("write", fd, offset, memoryview(data).cast("B"))

    return write_all


def _append_all(recorder: Recorder, real: Real) -> Real:
    def append_all(fd: int, data: bytes) -> None:
        end = os.fstat(fd).st_size
        real(fd, data)
        recorder.note("write", fd, end, data)

    return append_all


def _sized(kind: str) -> Callable[[Recorder, Real], Real]:
    def watch(recorder: Recorder, real: Real) -> Real:
        def watched(fd: int, size: int) -> None:
            real(fd, size)
            recorder.note(kind, fd, size)

        return watched

    return watch


def _sync(recorder: Recorder, real: Real) -> Real:
    def sync(fd: int) -> None:
        real(fd)
        recorder.note("sync", fd)

    return sync


def _rename(recorder: Recorder, real: Real) -> Real:
    def rename(source: Path, target: Path) -> None:
        real(source, target)
        recorder.renamed(source, target)

    return rename


def _remove(recorder: Recorder, real: Real) -> Real:
    def remove(path: Path) -> None:
        there = path.exists()
        real(path)
        if there:
            recorder.removed(path)

    return remove


def _sync_folder(recorder: Recorder, real: Real) -> Real:
    def sync_folder(path: Path) -> None:
        real(path)
        recorder.operations.append(Operation("sync_folder"))

    return sync_folder


_WATCHED: dict[str, Callable[[Recorder, Real], Real]] = {
    "create": _create,
    "write_all": _write_all,
    "append_all": _append_all,
    "reserve": _sized("reserve"),
    "resize": _sized("resize"),
    "sync": _sync,
    "rename": _rename,
    "remove": _remove,
    "sync_folder": _sync_folder,
}


def after_power_cut(recorder: Recorder, cut: int, rng: random.Random) -> dict[str, int | bytes]:
    """Say what the folder may hold if the power fails after `cut` operations.

    Returns:
        For each name the file's bytes, or the number of another name's file where both name the same one.
    """
    ordered = rng.random() < 0.3  # a journalling file system keeps operations on names in order
    durable: dict[int, bytearray] = {number: bytearray(data) for number, data in enumerate(recorder.start.values())}
    names = {name: number for number, name in enumerate(recorder.start)}
    pending_data: dict[int, list[Operation]] = {}
    pending_names: list[Operation] = []
    for operation in recorder.operations[:cut]:
        if operation.kind in ("name", "unname"):
            pending_names.append(operation)
        elif operation.kind == "sync_folder":
            for change in pending_names:
                _rename_in(names, change, both=False)
            pending_names = []
        elif operation.kind == "sync":
            _apply(durable.setdefault(operation.file, bytearray()), pending_data.pop(operation.file, []))
        else:
            pending_data.setdefault(operation.file, []).append(operation)
    if ordered:
        pending_names = pending_names[: rng.randint(0, len(pending_names))]
    else:
        chance = rng.choice([0.1, 0.5, 0.9, 1])
        pending_names = [change for change in pending_names if rng.random() < chance]
    for change in pending_names:
        _rename_in(names, change, both=rng.random() < 0.1)
    state: dict[str, int | bytes] = {}
    seen: dict[int, str] = {}
    for name, number in names.items():
        if number in seen:
            state[name] = list(names).index(seen[number])
            continue
        seen[number] = name
        data = durable.get(number, bytearray())
        _survive(data, pending_data.get(number, []), rng)
        state[name] = bytes(data)
    return state


def _rename_in(names: dict[str, int], change: Operation, both: bool) -> None:
    if change.kind == "unname":
        names.pop(change.name, None)
        return
    if change.data and not both:
        names.pop(change.data.decode(), None)
    names[change.name] = change.file


def _apply(data: bytearray, operations: list[Operation]) -> None:
    for operation in operations:
        end = operation.offset + len(operation.data)
        if operation.kind == "resize":
            del data[end:]
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        if operation.kind == "write":
            data[operation.offset : end] = operation.data


def _survive(data: bytearray, operations: list[Operation], rng: random.Random) -> None:
    """Apply what may have reached the disk of operations that nobody waited for."""
    fate = rng.choice(["all", "none", "some", "some", "prefix"])
    if fate == "none":
        return
    if fate == "prefix":
        operations = operations[: rng.randint(0, len(operations))]
    if fate in ("all", "prefix"):
        _apply(data, operations)
        return
    before = len(data)
    whole = bytearray(data)
    _apply(whole, operations)
    chance = rng.choice([0.3, 0.7, 0.97])
    garbage = rng.random() < 0.2
    torn = bytearray(whole if rng.random() < 0.5 else data.ljust(len(whole), b"\0")[: len(whole)])
    if len(torn) == len(whole):
        for operation in operations:
            if operation.kind != "write":
                continue
            end = operation.offset + len(operation.data)
            for start in range(operation.offset - operation.offset % SECTOR, end, SECTOR):
                first, last = max(start, operation.offset), min(start + SECTOR, end, len(torn))
                if rng.random() < chance:
                    torn[first:last] = operation.data[first - operation.offset : last - operation.offset]
                elif garbage:
                    torn[first:last] = rng.randbytes(max(0, last - first))
                elif first < last:
                    old = bytes(data[first:last])
                    torn[first:last] = old.ljust(last - first, b"\0")
    if rng.random() < 0.3:  # the size lags behind
        del torn[rng.randint(min(before, len(torn)), len(torn)) :]
    data[:] = torn

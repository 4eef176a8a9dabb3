"""File operations that do all they say or raise: no short writes, no unsynced renames."""

import ctypes
import errno
import io
import os
import sys
from contextlib import suppress
from pathlib import Path

BLOCK = 1 << 20
NOT_POSSIBLE = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS)  # errors of a file system that does not support it

_begin_writing = getattr(ctypes.CDLL(None), "sync_file_range", None) if sys.platform == "linux" else None


def create(path: Path) -> int:
    """Open a new file for reading and writing; an existing one is an error, whatever it is."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)


def open_for_writing(path: Path) -> int:
    """Open a file of ours that is unfinished, for reading and writing; never follows a link."""
    return os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)


def open_for_reading(path: "str | os.PathLike[str]") -> int:
    """Open without ever blocking (a FIFO)."""
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def write_all(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`: `pwrite` may return having written less, without an error."""
    rest = memoryview(data).cast("B")
    while rest:
        written = os.pwrite(fd, rest, offset)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest, offset = rest[written:], offset + written


def append_all(fd: int, data: bytes) -> None:
    """Write all of `data` at the end of a file opened for appending."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def read_at(fd: int, count: int, offset: int) -> bytes:
    """Read `count` bytes at `offset`; fewer only where the file ends."""
    parts = []
    while count and (part := os.pread(fd, count, offset)):
        parts.append(part)
        count, offset = count - len(part), offset + len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


class FileRange(io.RawIOBase):
    """Bytes `start` to `end` of an open file as a file of their own, for `zipfile` and `tarfile`."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self.fd, self.start, self.end, self.position = fd, start, end, start

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, as `io.RawIOBase.seek`."""
        base = (self.start, self.position, self.end)[whence]
        if base + offset < self.start:
            raise OSError(errno.EINVAL, "a position before the beginning")
        self.position = base + offset
        return self.position - self.start

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # typeshed asks for any buffer; io gives these
        """Read, as `io.RawIOBase.readinto`."""
        data = os.pread(self.fd, max(0, min(len(buffer), self.end - self.position)), self.position)
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)


def reserve(fd: int, size: int) -> None:
    """Give the file `size` bytes that the disk really has, so that a full disk is known at once.

    Where the system cannot, the file only has that size.
    """
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in NOT_POSSIBLE:
                raise
    if os.fstat(fd).st_size < size:  # as on macOS
        os.truncate(fd, size)


def resize(fd: int, size: int) -> None:
    """Cut or lengthen the file; new bytes are zero."""
    os.ftruncate(fd, size)


def begin_writing(fd: int, count: int, offset: int) -> None:
    """Ask the system to begin with these bytes, so that `sync` has less to wait for; a hint."""
    if _begin_writing is not None:
        sync_file_range_write = 2
        _begin_writing(fd, ctypes.c_int64(offset), ctypes.c_int64(count), sync_file_range_write)


def sync(fd: int) -> None:
    """Wait until the file's bytes are on the disk; where the file system cannot do that, it is not asked for."""
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in NOT_POSSIBLE:
            raise


def rename(source: Path, target: Path) -> None:
    """Replace `target` by `source` in one step."""
    os.rename(source, target)


def sync_folder(path: Path) -> None:
    """Wait until the names in a folder are on the disk; not all file systems can."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """Delete a file of ours, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)


def check_can_publish(path: Path) -> None:
    """Raise OSError now where `publish` would after the work: the folder is made, a file in it created and removed."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise NotADirectoryError(errno.ENOTDIR, "a part of its path is a file, and no folder") from None
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    aside = path.with_name(path.name + ".new")
    remove(aside)
    os.close(create(aside))
    remove(aside)


def publish(data: bytes, path: Path) -> None:
    """Write a small file aside and rename it into place: a reader sees the old bytes or the new ones."""
    aside = path.with_name(path.name + ".new")
    remove(aside)
    fd = create(aside)
    try:
        try:
            write_all(fd, data, 0)
            sync(fd)
        finally:
            os.close(fd)
        rename(aside, path)
    except OSError:
        with suppress(OSError):
            remove(aside)
        raise

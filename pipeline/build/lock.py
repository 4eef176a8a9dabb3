"""Lock a cache for one build: an advisory lock that ends with its holder and names it."""

import errno
import fcntl
import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import AccessDenied, CacheBusy, OutputError
from pipeline.system import files


@contextmanager
def build_lock(cache: Path, wait: bool = False) -> Iterator[None]:
    """Hold `<cache>.lock`. Worker processes that are forked meanwhile hold it too; they die with their parent.

    The file names its holder and is emptied at the end. It stays beside a cache. If the build made no cache, the file
    is deleted while it is still locked, and a waiting build notices that.

    Args:
        cache: the cache to be built.
        wait: wait for another builder instead of raising.

    Raises:
        CacheBusy: another process builds this cache.
        OutputError: the file system knows no locks, or the lock cannot be created.
        AccessDenied: no permission.
    """
    path = cache.with_name(cache.name + ".lock")
    try:
        fd = _open_and_lock(path, cache, wait)
    except PermissionError as error:
        raise AccessDenied("the cache cannot be created", cache, "permission denied", "Give another --out") from error
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.EIO):
            raise
        why = error.strerror or str(error)
        raise OutputError("the cache cannot be created", cache, why, "Give another --out") from error
    try:
        try:
            with suppress(OSError):  # on a full disk: the holder's name is only for messages
                os.ftruncate(fd, 0)
                files.write_all(fd, _ourselves(), 0)
            yield
        finally:
            with suppress(OSError):
                os.ftruncate(fd, 0)
            if not any(os.access(cache.with_name(cache.name + suffix), os.F_OK) for suffix in ("", ".building")):
                files.remove(path)
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)  # a process that other code forked meanwhile would still hold it
        os.close(fd)


def _open_and_lock(path: Path, cache: Path, wait: bool) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise OSError(errno.EINVAL, f"{path.name} is no regular file")
            _lock(fd, cache, wait)
            with suppress(FileNotFoundError):
                if os.path.samestat(path.stat(), os.fstat(fd)):
                    return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its holder deleted it meanwhile, and another build may hold a new one


def _lock(fd: int, cache: Path, wait: bool) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        advice = "Wait for it, or give --wait"
        raise CacheBusy("the cache is being built", cache, f"another build{_holder(fd)} is running", advice) from error
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        advice = "Build on a local disk and copy the cache"
        raise OutputError("the cache cannot be built there", cache, "its file system has no locks", advice) from error


def _ourselves() -> bytes:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()


def _holder(fd: int) -> str:
    try:
        holder = json.loads(files.read_at(fd, 4096, 0))
        return f" (pid {holder['pid']:d} on {holder['host']!s}, since {holder['since']!s})"
    except (ValueError, KeyError, TypeError):  # it has the lock, but has not written its name yet
        return ""

"""Decide whether a cache may be created or replaced at its path, and turn failing file operations into errors."""

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import (
    AccessDenied,
    CacheDamaged,
    CacheError,
    CacheMissing,
    CacheUnsafe,
    OutputError,
    StorageError,
    WorkerDied,
)
from pipeline.format.header import COMMANDS, MAGIC
from pipeline.format.paths import shards_at
from pipeline.format.reader import CacheReader


def refuse_beside_shards(path: Path) -> None:
    """Refuse a single cache with the name of a sharded one.

    Raises:
        OutputError: there are shards of that name.
    """
    if not os.path.lexists(path) and (sets := shards_at(path)):
        count = next(iter(sets))
        why = f"there is a cache of that name in {count} shards"
        raise OutputError("the cache cannot be created", path, why, f"Give --shards {count}, or another --out")


def identity(path: Path) -> tuple[int, int] | None:
    """Return numbers that tell a file from the one that replaces it, on every machine that sees it; None without."""
    with suppress(OSError):
        found = path.lstat()
        return found.st_ino, found.st_ctime_ns  # the number of a network's disk differs between machines
    return None


def refuse_place(path: Path) -> None:
    """Refuse a path that cannot become a cache: a link, a folder, a device, a path below a file.

    Raises:
        OutputError, AccessDenied: says which.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _no_place(path, error) from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else kind
        raise OutputError("the cache cannot be created", path, f"there is {kind} of that name", "Give another --out")


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """Make the folder of a cache; if the work fails, remove new folders that are still empty.

    Raises:
        OutputError, AccessDenied: it cannot be made.
    """
    made = [folder for folder in (path, *path.parents) if not os.path.lexists(folder)]
    try:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_place(path, error) from error
        yield
    except BaseException:
        with suppress(OSError):
            for folder in made:
                folder.rmdir()
        raise


def _no_place(path: Path, error: OSError) -> AccessDenied | OutputError:
    kind = AccessDenied if isinstance(error, PermissionError) else OutputError
    return kind("the cache cannot be created", path, error.strerror or str(error), "Give another --out")


_LIMITS = {
    errno.EMFILE: "ulimit -n",
    errno.ENFILE: "fs.file-max of the system",
    errno.EAGAIN: "ulimit -u",
    errno.ENOMEM: "ulimit -v, ulimit -d",
}


@contextmanager
def storage_errors(path: Path, content: str = "images") -> Iterator[None]:
    """Turn an OSError of a file operation into the error that the build ends with.

    Args:
        path: the cache.
        content: "images" or "features", which another command builds.
    """
    images, again = content == "images", f"run {COMMANDS[content]} again"
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in _LIMITS:
            if error.errno == errno.EMFILE:
                why += f" (the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
            fewer = ", or use fewer --workers, and" if images else " and"
            advice = f"Raise the limit ({_LIMITS[error.errno]}){fewer} {again}"
            raise WorkerDied("the build stopped", path, why, advice) from error
        if error.errno in (errno.EACCES, errno.EPERM):
            raise AccessDenied("the cache cannot be written", path, why, "Give another --out") from error
        if error.errno in (errno.EROFS, errno.ENAMETOOLONG):
            raise OutputError("the cache cannot be written", path, why, "Give another --out") from error
        advice = f"Fix it, then {again}; it {'continues where it stopped' if images else 'begins anew'}"
        raise StorageError("the build stopped", path, why, advice) from error


def open_old_cache(path: Path, rebuild: bool) -> tuple[CacheReader | None, str]:
    """Open the cache at `path`. Without a usable one, return None, and why the file that is there cannot be used.

    Raises:
        OutputError: a file that is no cache of ours, which is never replaced, or one of a newer version.
    """
    try:
        return CacheReader(path), ""
    except CacheMissing:
        return None, ""
    except CacheError as error:
        with path.open("rb") as file:
            ours = file.read(len(MAGIC)) == MAGIC
        newer = not isinstance(error, CacheDamaged | CacheUnsafe)
        if not ours or (newer and not rebuild):
            why = f"there is a file that is no cache of this version ({error.reason})"
            raise OutputError("the cache cannot be created", path, why, "Give another --out") from error
        return None, f"the cache was {'made by a newer version' if newer else 'damaged'}: {error.reason}"


def refuse_other_content(old: CacheReader, content: str) -> None:
    """Refuse to replace features by images, or images by features.

    Raises:
        OutputError: the cache does not hold `content`.
    """
    if old.header.content != content:
        why = f"holds {old.header.content}, not {content}"
        raise OutputError("the cache would be lost", old.path, why, "Give another --out, or --rebuild to replace it")


def refuse_other_photographs(path: Path, shared: int, count: int, kind: str = "") -> None:
    """Refuse to replace the cache of another source.

    Args:
        path: of the cache.
        shared: number of its images that are in the source too.
        count: number of its images.
        kind: "features of " for a cache of features.

    Raises:
        OutputError: the source has less than half of its images.
    """
    if 2 * shared < count:
        why = f"holds {kind}other photographs ({shared} of {count} shared)"
        raise OutputError("the cache would be lost", path, why, "Give another --out, or --rebuild to replace it")

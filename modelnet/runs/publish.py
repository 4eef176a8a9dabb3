"""Publish the files of a run folder, each by one rename; a failure names the file, and leaves nothing beside it."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import AccessDenied, StorageError
from pipeline.system import files

_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS, errno.EXDEV, errno.EINVAL)


def publish(data: bytes, path: Path) -> None:
    """Write a file of a run: a reader sees the old bytes or the new ones."""
    with storage_errors(path), clean_aside(path):
        files.publish(data, path)


def keep_previous(path: Path, previous: Path) -> None:
    """Let `previous` be the file that `path` is, by a hard link, or by a copy where the file system has no links."""
    with storage_errors(previous), clean_aside(previous) as aside:
        files.remove(aside)
        try:
            os.link(path, aside)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            files.publish(path.read_bytes(), previous)
            return
        files.rename(aside, previous)
        files.remove(aside)  # rename does nothing if both are the same file: an earlier run was killed here


@contextmanager
def clean_aside(path: Path) -> Iterator[Path]:
    """Leave nothing of a file that is written beside `path` and could not be renamed to it."""
    aside = path.with_name(path.name + ".new")
    try:
        yield aside
    except OSError:
        with suppress(OSError):
            files.remove(aside)
        raise


@contextmanager
def storage_errors(path: Path, what: str = "the run cannot be written", advice: str = "") -> Iterator[None]:
    """Name the file that could not be written: a run that loses its results must not seem well.

    Args:
        path: of the file.
        what: the error says.
        advice: where it is no file of a run; a run is told what of it is saved.
    """
    try:
        yield
    except OSError as error:
        denied = isinstance(error, PermissionError) or error.errno == errno.EROFS
        kind = AccessDenied if denied else StorageError
        raise kind(what, path, error.strerror or str(error), advice or _saved_of_run(path)) from error


def _saved_of_run(path: Path) -> str:
    """Say what of a run is saved where one of its files could not be written."""
    if not path.parent.exists():
        return "The folder is no longer there; if it was renamed or moved, give --resume its new path"
    is_saved = any((folder / "checkpoints" / "last.pt").exists() for folder in (path.parent, path.parent.parent))
    return "Earlier files are whole; --resume continues from there" if is_saved else "Nothing was saved; train again"

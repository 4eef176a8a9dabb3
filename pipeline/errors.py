"""Every failure a user can meet, in one tree, each with the exit code that the command line ends with.

PipelineError
├── SourceError              66  input missing or empty
│   ├── ArchiveDamaged       65  an archive that ends early, is none, or cannot be unpacked
│   └── TableDamaged         65  a table of labels or a split with a row that cannot be used
├── OutputError              73  the output cannot be created there
├── StorageError             74  reading or writing failed half-way
├── AccessDenied             77  the system refused permission
├── WorkerDied               71  a worker process died, or the system refused a resource
├── CacheError               65
│   ├── CacheDamaged         65  bytes are not what was written
│   ├── CacheUnsafe          65  crafted to reach outside itself, or not a cache at all
│   ├── CacheStale           65  rebuilt meanwhile, or of another recipe or other classes
│   ├── CacheMissing         66  no cache there (perhaps an unfinished build)
│   └── CacheBusy            75  another build holds it
├── OptionsError              2  options that do not go together, or not with the data
├── DeviceError              71  the accelerator is not there, or its memory is too small
│   └── OutOfMemory          71  a step of this network needs more memory
├── RunError                 66  a run folder or image that a command needs is not there
│   ├── RunBusy              75  another process trains in this run folder
│   └── RunDamaged           65  a file of a run is not what a run writes
├── CheckpointError          65
│   ├── CheckpointDamaged    65
│   └── CheckpointUnsafe     65  a pickle that would run code
├── CodeError                65  a person's own code raised an error, does not fit, or is not trusted
├── TrainingDiverged         76  the loss is NaN or infinite
└── RankFailed                   another process of the same training failed, with that one's exit code
"""

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from pipeline.text import show_path


class PipelineError(Exception):
    """Base of all errors: `what` failed, at which `path`, for which `reason`, and what to do (`advice`)."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str = "",
        path: "str | os.PathLike[str] | None" = None,
        reason: str = "",
        advice: str = "",
        *,
        message: str = "",
    ) -> None:
        if message:
            what, _, reason = message.splitlines()[-1].partition(": ")[2].partition(": ")
        super().__init__(what, path, reason, advice)
        self.what = what
        self.path = None if path is None else Path(path)
        self.reason = reason
        self.advice = advice

    @property
    def message(self) -> str:
        """The text of the error; torch uses it to raise an error of a DataLoader's worker again in the main process.

        torch calls a class with this attribute with the keyword `message`, and raises a RuntimeError otherwise. Class,
        exit code and text survive; path and advice are part of the text then.
        """
        return str(self)

    def __str__(self) -> str:
        where = "" if self.path is None else f"{show_path(self.path)}: "
        reason = self.reason if self.reason.isprintable() else repr(self.reason)  # it may quote a crafted file
        text = f"{self.what}: {where}{reason}"
        return f"{text}. {self.advice}" if self.advice else text


class SourceError(PipelineError):
    """The images asked for are not there."""

    exit_code = 66


class ArchiveDamaged(SourceError):
    """An archive of images ends early, is damaged, is no archive, or a table in it cannot be unpacked."""

    exit_code = 65


class TableDamaged(SourceError):
    """A row of a table or a split cannot be read, contradicts another, or names what is not there."""

    exit_code = 65


class OutputError(PipelineError):
    """The output cannot be created where it was asked for."""

    exit_code = 73


class StorageError(PipelineError):
    """The disk failed or filled up while reading or writing."""

    exit_code = 74


class AccessDenied(PipelineError):
    """The system refused to open something."""

    exit_code = 77


class WorkerDied(PipelineError):
    """Worker processes died again and again, or the system gave them no resources."""

    exit_code = 71


class CacheError(PipelineError):
    """A cache cannot be used."""

    exit_code = 65


class CacheDamaged(CacheError):
    """The bytes of a cache have changed since they were written."""


class CacheUnsafe(CacheError):
    """The file is no cache, or was crafted to reach outside itself."""


class CacheStale(CacheError):
    """The cache does not fit its use: other classes, another recipe, or it was rebuilt meanwhile."""


class CacheMissing(CacheError):
    """There is no cache at that path."""

    exit_code = 66


class CacheBusy(CacheError):
    """Another process is building this cache."""

    exit_code = 75


class OptionsError(PipelineError, ValueError):
    """Options that do not go together, or not with the data."""

    exit_code = 2


class DeviceError(PipelineError):
    """The accelerator asked for is not there, or its memory is too small."""

    exit_code = 71


class OutOfMemory(DeviceError):
    """The memory of the device, or of the machine, is too small for a step of this network."""


class RunError(PipelineError):
    """A run folder, or something in it, is not there or does not fit."""

    exit_code = 66


class RunBusy(RunError):
    """Another process trains in this run folder."""

    exit_code = 75


class RunDamaged(RunError):
    """A file of a run folder is not what a run writes: a value is missing, or of another kind."""

    exit_code = 65


class CheckpointError(PipelineError):
    """A checkpoint cannot be used."""

    exit_code = 65


class CheckpointDamaged(CheckpointError):
    """The bytes of a checkpoint have changed since they were written."""


class CheckpointUnsafe(CheckpointError):
    """The file holds a pickle that would run code. It is never loaded."""


class CodeError(PipelineError):
    """Code of a person's own raised an error, is not what is needed, or is not trusted."""

    exit_code = 65


class TrainingDiverged(PipelineError):
    """The loss became NaN or infinite."""

    exit_code = 76


class RankFailed(PipelineError):
    """Another process of the same training failed, and has reported its error."""


_NO_FILE = (errno.EISDIR, errno.ENXIO, errno.EINVAL, errno.EFBIG)  # a folder, a socket, a pipe, too large
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, *_NO_FILE)


@contextmanager
def source_errors(
    what: str, path: "str | os.PathLike[str]", missing: type[PipelineError] | None = None
) -> Iterator[None]:
    """Turn an error of the system, while a person's file or folder is read, into the one that the command ends with.

    Args:
        what: cannot be done.
        path: of the file or folder, for the message.
        missing: what a file that is not there is; None for `SourceError`.

    Raises:
        AccessDenied: the system refuses it.
        WorkerDied: the system has no memory or no file handles left.
        SourceError or `missing`: there is no such file, or it is none that can be read.
        StorageError: the disk failed.
    """
    try:
        yield
    except PermissionError as error:
        raise AccessDenied(what, path, "permission denied") from error
    except MemoryError as error:
        raise WorkerDied(what, path, "out of memory", "Give it more, or raise the limit (ulimit -v)") from error
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.ENOMEM:
            raise WorkerDied(what, path, why, "Give it more, or raise the limit (ulimit -v)") from error
        if error.errno == errno.EMFILE:
            why += f" (the limit is {resource.getrlimit(resource.RLIMIT_NOFILE)[0]})"
            raise WorkerDied(what, path, why, "Raise the limit (ulimit -n)") from error
        if error.errno == errno.ENFILE:  # of all processes of the system
            raise WorkerDied(what, path, why, "End other programs that hold files open") from error
        kind = (missing or SourceError) if error.errno in _NOT_THERE else StorageError
        raise kind(what, path, why) from error

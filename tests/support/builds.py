"""Watch and run builds within the test process."""

import os
import resource
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import staleness, worker
from pipeline.source import reader


def note_reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note the place of every image that is read from now on, by this process."""
    read: list[Any] = []
    real = reader.read_image

    def noting(place: Any) -> Any:
        read.append(place)
        return real(place)

    for module in (reader, worker, staleness):
        monkeypatch.setattr(module, "read_image", noting)
    return read


def names_in(folder: Path) -> set[str]:
    """Return what is in a folder."""
    return {entry.name for entry in folder.iterdir()}


class InThisProcess(Executor):
    """Does the work of a build at once, without a process for it: quick, and within reach of a monkeypatch."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def appending_read(times: int) -> Any:
    """An `os.read` in whose course somebody appends to `changing.jpg`, so many times."""
    real, left = os.read, [times]

    def read(fd: int, count: int) -> bytes:
        place = Path(f"/proc/self/fd/{fd}").readlink()
        data = real(fd, count)
        if place.name == "changing.jpg" and left[0]:
            left[0] -= 1
            with place.open("ab") as file:
                file.write(b"!")
        return data

    return read


@contextmanager
def files_left(count: int) -> Iterator[None]:
    """Let this process open so many more files at a time."""

    def is_free(number: int) -> bool:
        try:
            os.fstat(number)
        except OSError:
            return True
        return False

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (list(filter(is_free, range(1000)))[count], before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

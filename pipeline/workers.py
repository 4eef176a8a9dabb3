"""The work on single images, and the local pool of processes that does it.

`fill_rows` is what any `concurrent.futures.Executor` runs; everything it needs travels in its arguments.
"""

import ctypes
import errno
import hashlib
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline import files
from pipeline.decode import Undecodable, decode
from pipeline.places import Damaged, Place, Stat, read_image
from pipeline.recipe import Recipe, pixels_to_row, row_to_pixels
from pipeline.similar import image_hash
from pipeline.stored import StoredCache, row_hash

SECONDS_AN_IMAGE = 60
BYTES_AN_IMAGE = 2 * 10**9


class Item(NamedTuple):
    """One image to be done: where it is read, which row it fills.

    `source_sha256` is empty where the content is not known yet; where it is, a row may be copied without reading
    the file.
    """

    row: int
    place: Place
    source_sha256: bytes = b""


class Result(NamedTuple):
    """What became of one image. `how`: "decoded", "copied", "failed" (for good) or "passing" (a failure of the day)."""

    row: int
    how: str
    source_sha256: bytes = b""
    stat: Stat | None = None
    row_hash: int = 0
    image_hash: int = 0
    remarks: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class Job:
    """What all images of one build share.

    Attributes:
        target: the unfinished file that rows are written into.
        offset: byte of row 0 in it.
        recipe: how an image becomes a row.
        donor: an older cache with the same pixels, to copy or derive rows from, with its fingerprint; or None.
    """

    target: Path
    offset: int
    recipe: Recipe
    donor: tuple[Path, str] | None = None


def fill_rows(job: Job, items: Sequence[Item]) -> list[Result]:
    """Read, decode and write the rows of `items`.

    Raises:
        OSError: the rows could not be written, or the system is out of file handles; a file that cannot be *read* is
            a failure of that image.
    """
    donor = None if job.donor is None else _donor(*job.donor)
    fd = files.open_for_writing(job.target)
    try:
        results = []
        for item in items:
            signal_limit(SECONDS_AN_IMAGE)
            results.append(_fill_row(job, fd, donor, item))
        return results
    finally:
        signal_limit(0)
        os.close(fd)


def _fill_row(job: Job, fd: int, donor: "Donor | None", item: Item) -> Result:
    row: NDArray[Any] | None = None
    sha256, found, how = item.source_sha256, None, "copied"
    looks = 0
    remarks: tuple[str, ...] = ()
    if donor and sha256:
        row, looks, remarks = donor.find(sha256, job.recipe)
    if row is None:
        try:
            data, found = read_image(item.place)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return Result(item.row, "passing", reason=_why(error))
        except MemoryError:
            return Result(item.row, "passing", reason="no memory to read it")
        except Damaged as damaged:
            sha256 = hashlib.sha256(damaged.stored).digest()
            return Result(item.row, "failed", sha256, damaged.found, reason=damaged.reason)
        sha256 = hashlib.sha256(data).digest()
        if donor and sha256 != item.source_sha256:
            row, looks, remarks = donor.find(sha256, job.recipe)
    if row is None:
        how = "decoded"
        try:
            pixels_HWC, remarks = decode(data, job.recipe)
        except Undecodable as error:
            return Result(item.row, "failed", sha256, found, reason=str(error))
        except MemoryError:
            reason = f"needs more than {BYTES_AN_IMAGE / 1e9:g} GB of memory"
            return Result(item.row, "passing", sha256, found, reason=reason)
        row, looks = pixels_to_row(pixels_HWC, job.recipe), image_hash(pixels_HWC)
    place = job.offset + item.row * job.recipe.row_bytes
    files.write_all(fd, row.reshape(-1).view(np.uint8).data, place)
    files.begin_writing(fd, job.recipe.row_bytes, place)
    return Result(item.row, how, sha256, found, row_hash(row), looks, remarks)


def _why(error: OSError) -> str:
    known = {
        errno.ENOENT: "vanished",
        errno.ELOOP: "a link that leads nowhere",
        errno.EACCES: "permission denied",
    }
    return known.get(error.errno or 0) or error.strerror or str(error)


class Donor:
    """An older cache as a source of rows, found by the content of the image file."""

    def __init__(self, path: Path) -> None:
        self.cache = StoredCache(path)
        self.recipe = self.cache.header.recipe
        keys = np.ascontiguousarray(self.cache.table("source_sha256")[:, :8]).view(np.uint64).reshape(-1)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]  # eight bytes of each digest find it, all 32 decide
        self.remarks: dict[int, tuple[str, ...]] = {}
        for row, remark in self.cache.remarks:
            self.remarks[row] = (*self.remarks.get(row, ()), remark)

    def find(self, sha256: bytes, recipe: Recipe) -> tuple[NDArray[Any] | None, int, tuple[str, ...]]:
        """Return (row as `recipe` stores it, image hash, remarks); the row is None where none is good."""
        key = np.frombuffer(sha256, np.uint64)[0]
        first, end = (int(np.searchsorted(self.keys, key, side)) for side in ("left", "right"))
        for row in self.order[first:end].tolist():
            if self.cache.table("source_sha256")[row].tobytes() == sha256 and self.cache.row_is_good(row):
                stored = self._derive(row, recipe)
                if stored is not None:
                    return stored, int(self.cache.table("image_hash")[row]), self.remarks.get(row, ())
        return None, 0, ()

    def _derive(self, row: int, recipe: Recipe) -> NDArray[Any] | None:
        stored: NDArray[Any] = self.cache.images[row]
        if recipe == self.recipe:
            return stored
        pixels_HWC = row_to_pixels(stored, self.recipe)
        return None if pixels_HWC is None else pixels_to_row(pixels_HWC, recipe)


@lru_cache(maxsize=1)
def _donor(path: Path, fingerprint: str) -> Donor:
    """Open a donor once a process; the fingerprint tells it from a later cache of the same path."""
    return Donor(path)


def signal_limit(seconds: float) -> None:
    """Let the system end this worker if an image takes longer; a decoder that hangs cannot be asked to stop.

    Only where the default action of SIGALRM is in force, which `start_worker` sees to in a worker of our own.
    """
    if threading.current_thread() is threading.main_thread() and _in_our_worker:
        signal.setitimer(signal.ITIMER_REAL, seconds)


_in_our_worker = False


class LocalPool(ProcessPoolExecutor):
    """A pool that a build has started itself, and may shut down."""


def local_pool(workers: int) -> LocalPool:
    """Start processes that ignore Ctrl-C, hold to limits, and die with this one.

    They are forked where that is safe: they inherit the build's lock, so that no second builder starts while one of
    them still writes, and need no importable `__main__`.
    """
    method = "fork" if sys.platform == "linux" else "spawn"
    pool = LocalPool(workers, multiprocessing.get_context(method), initializer=start_worker, initargs=(os.getpid(),))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads, of which the children use none
        pool.submit(int)  # a pool forks when it is first used
    return pool


def start_worker(parent: int) -> None:
    """Prepare a worker process: signals, limits, death with its parent."""
    global _in_our_worker
    _in_our_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    die_with(parent)
    _limit_memory()


def die_with(parent: int) -> None:
    """End this process when its parent ends, however that comes about; on Linux at once."""
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _limit_memory() -> None:
    """Allow `BYTES_AN_IMAGE` on top of what a forked worker has from its parent."""
    if sys.platform != "linux":
        return
    with Path("/proc/self/status").open() as status:
        now = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    limit = now + BYTES_AN_IMAGE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))

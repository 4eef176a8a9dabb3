"""Loader workers: room for their batches, waits that end, and errors for dead workers."""

import ctypes
import multiprocessing
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import queues
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor
from torch.utils.data import DataLoader

from modelnet.runtime.interrupt import Stop, begin_worker
from pipeline.errors import StorageError, WorkerDied
from pipeline.text import show_bytes

SHARED_MEMORY = Path("/dev/shm")
PREFETCH = 2  # batches that torch requests from each worker in advance
SECONDS_WITHOUT_A_BATCH = 600.0  # after which a worker counts as hanging
_POLL_SECONDS = 1.0
_NOTE_BYTES = 400
_NO_WORKERS = "--workers 0 needs no workers"

T = TypeVar("T")


def worker_options(note: "ctypes.Array[ctypes.c_char]") -> dict[str, Any]:
    """Return the arguments of a DataLoader with workers.

    Args:
        note: where a worker that cannot send a batch says why.
    """
    options: dict[str, Any] = {"persistent_workers": True, "timeout": _POLL_SECONDS, "prefetch_factor": PREFETCH}
    options["worker_init_fn"] = partial(_begin, os.getpid(), note)
    if sys.platform == "linux":  # starting it in a forked process would be slow, and it would outlive this process
        options["multiprocessing_context"] = "fork"
    return options


def new_note() -> "ctypes.Array[ctypes.c_char]":
    """Return memory that workers share with this process, for a line of text."""
    return multiprocessing.RawArray(ctypes.c_char, _NOTE_BYTES)


def _begin(parent: int, note: Any, worker: int) -> None:
    """Prepare a worker: it ends if it cannot send a batch. Python would drop the batch, and the reader wait for it."""
    begin_worker(parent, worker)

    def end(error: BaseException, _: Any) -> None:
        note.value = str(error).splitlines()[0].encode()[: _NOTE_BYTES - 1] if str(error) else b"no reason"
        os._exit(1)

    queues.Queue._on_queue_feeder_error = staticmethod(end)  # type: ignore[attr-defined]


def check_shared_memory(workers: int, batch_bytes: int) -> None:
    """Refuse workers whose batches do not fit into shared memory.

    Containers often have 64 MB of shared memory. A batch that does not fit would never come.

    Args:
        workers: their number.
        batch_bytes: of a whole batch.

    Raises:
        WorkerDied: says what is missing.
    """
    if not SHARED_MEMORY.is_dir():
        return
    needed, free = (PREFETCH * workers + 1) * batch_bytes, shutil.disk_usage(SHARED_MEMORY).free
    if needed > free:
        reason = f"batches of {workers} workers need {show_bytes(needed)}, and {show_bytes(free)} are free"
        advice = f"{_NO_WORKERS}; a smaller --batch-size needs less; docker run --shm-size gives more"
        raise WorkerDied("too little shared memory for workers", SHARED_MEMORY, reason, advice)


class _Stopped(Exception):
    """A stop was asked for while this process waited for a worker."""


def wait_for_batches(loader: DataLoader[Any], stop: Stop | None) -> Iterator[Sequence[Tensor]]:
    """Yield the batches of a DataLoader with workers; a request to stop ends the wait for one, and the batches.

    Args:
        loader: made with `worker_options`.
        stop: the request, or None where only a batch or a failure ends a wait.

    Raises:
        RuntimeError: no batch for `SECONDS_WITHOUT_A_BATCH`, or as torch.
    """
    try:
        batches = _next_epoch(loader, stop)
        while (batch := _wait(lambda: next(batches, None), stop)) is not None:
            yield batch
    except _Stopped:
        return


def _next_epoch(loader: DataLoader[Any], stop: Stop | None) -> Iterator[Sequence[Tensor]]:
    """Begin an epoch. Workers of the epoch before answer first, and on a busy machine that takes them a while."""
    workers: Any = getattr(loader, "_iterator", None)
    if workers is None:
        return iter(loader)
    answer = workers._get_data
    workers._get_data = lambda: _wait(answer, stop)
    try:
        return iter(loader)
    finally:
        del workers._get_data


def _wait(answer: Callable[[], T], stop: Stop | None) -> T:
    """Ask again where torch gives up after `_POLL_SECONDS`."""
    since = time.monotonic()
    while True:
        try:
            return answer()
        except RuntimeError as error:
            if not str(error).startswith("DataLoader timed out"):
                raise
            if stop is not None and stop.signal:
                raise _Stopped from None
            if time.monotonic() - since > SECONDS_WITHOUT_A_BATCH:
                raise RuntimeError(f"no batch came for {SECONDS_WITHOUT_A_BATCH:g} seconds") from error


_DEATH = re.compile(r"DataLoader worker \(pid.*?\) (is killed by signal: ([\w ]+)|exited unexpectedly)")


def death_of_a_worker(
    error: Exception, cache: Path, signals: Sequence[signal.Signals] = (), note: str = ""
) -> WorkerDied | StorageError:
    """Return the error for an exception that torch raises when a loader worker has died.

    Args:
        error: one of several kinds, by chance.
        cache: that was read.
        signals: that killed workers, as far as is known.
        note: what the worker says itself.
    """
    found = _DEATH.search(str(error))
    named = found.group(2) if found else None
    if named == "Bus error" or signal.SIGBUS in signals:
        reason = "the cache was changed or its disk failed while a worker read it (bus error)"
        return StorageError("the cache cannot be read", cache, reason, "Run verify on it; train --resume continues")
    if signals:
        named = signal.strsignal(signals[0])
    how = f"killed by signal: {named}" if named else str(error) or type(error).__name__
    how = f"it cannot send a batch: {note}" if note else how
    return WorkerDied("a loader worker died", cache, how, f"train --resume continues; {_NO_WORKERS}")


@contextmanager
def worker_deaths(cache: Path) -> Iterator[None]:
    """Catch the death of a worker that torch reports, by a signal handler, in the midst of anything else."""
    try:
        yield
    except RuntimeError as error:
        if not _DEATH.search(str(error)):
            raise
        raise death_of_a_worker(error, cache) from error

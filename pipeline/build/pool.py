"""Run the work on many images in an executor, and survive crashes and hangs of its processes."""

import math
import os
import signal
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from typing import Any

from pipeline.build.worker import Item, Job, Result, fill_rows
from pipeline.errors import WorkerDied
from pipeline.source.reader import read_together, show_location
from pipeline.system.processes import SECONDS_AN_IMAGE, LocalPool, local_pool
from pipeline.system.signals import held_signals

LARGEST_CHUNK = 8  # images; if a worker is killed, its whole chunk is done again
LARGEST_GROUP = 128  # images that are read together: each worker unpacks all before the one that it wants
CRASHES_IN_A_ROW = 3
_AHEAD = 3  # small chunks per worker, so that no worker waits for the parent
_SIGNALS_WAIT = 0.2  # seconds until Ctrl-C is answered, at most
_GRACE_SECONDS = 10  # for workers to end after a stop


def run_items(
    job: Job, items: Iterable[Item], total: int, workers: int, executor: Executor | None = None
) -> Generator[list[Result]]:
    """Do the work on `items`, in any order.

    A worker process that dies takes its pool with it. Its images are then done one by one, each in a process of its
    own. If that crashes, the image has failed, and the build goes on.

    Args:
        job: the options that all images share.
        items: the images, read lazily.
        total: their number.
        workers: processes of the local pool.
        executor: used instead of a local pool.

    Raises:
        WorkerDied: the executor broke, or more than `CRASHES_IN_A_ROW` images crashed their worker one after another.
        OSError: rows could not be written.
    """
    workers = min(workers, total)
    chunks = chunks_of(items, max(1, math.ceil(total / (4 * workers))))
    suspects: list[Item] = []
    with held_signals() as answer_signals:
        if executor is not None:
            yield from _run(executor, job, chunks, _AHEAD * workers, suspects, answer_signals)
            if suspects:
                raise WorkerDied("the build stopped", job.output, "the executor broke", _GO_ON)
            return
        while True:
            with _pool(workers) as pool:
                yield from _run(pool, job, chunks, _AHEAD * workers, suspects, answer_signals)
            if not suspects:
                return
            yield from _one_by_one(job, suspects, answer_signals)
            suspects.clear()


def chunks_of(items: Iterable[Item], most: int) -> Iterator[Sequence[Item]]:
    """Divide items into chunks, each for one worker; images of a row group lie in one, as far as it is not too large.

    Args:
        items: in the order in which they are read.
        most: largest number of items in a chunk, so that all workers get some.
    """
    for group, some in groupby(items, lambda item: read_together(item.location)):
        size = min(most, LARGEST_CHUNK if group is None else LARGEST_GROUP)
        while chunk := tuple(islice(some, size)):
            yield chunk


_GO_ON = "Run build-cache again; it continues where it stopped"


def _run(
    executor: Executor,
    job: Job,
    chunks: Iterator[Sequence[Item]],
    ahead: int,
    suspects: list[Item],
    answer_signals: Callable[[], None],
) -> Iterator[list[Result]]:
    """Keep `ahead` small chunks in work. If the executor breaks, add the items without a result to `suspects`.

    However it ends, the results of running chunks are yielded first, so that no work is done twice. Workers that need
    more than `_GRACE_SECONDS` for that are killed.
    """
    in_work: dict[Future[list[Result]], Sequence[Item]] = {}
    chunk: Sequence[Item] = ()
    answered = time.monotonic()
    try:
        while True:
            while _has_room(in_work.values(), ahead) and (chunk := next(chunks, ())):
                in_work[executor.submit(fill_rows, job, chunk)] = chunk
                chunk = ()
            if not in_work:
                return
            done = wait(in_work, _SIGNALS_WAIT, FIRST_COMPLETED).done
            answer_signals()
            if done:
                answered = time.monotonic()
            elif isinstance(executor, LocalPool) and time.monotonic() - answered > _patience(in_work.values()):
                kill_workers(executor)  # stopped, or waiting for a dead disk: its own limits cannot end it
                answered = time.monotonic()
            for future in done:
                results = future.result()
                del in_work[future]
                yield results
    except BrokenExecutor:
        suspects.extend(chunk)
        for future, items in in_work.items():
            if future.done() and future.exception() is None:
                yield future.result()
            else:
                suspects.extend(items)
    except GeneratorExit:  # the parent no longer reads
        raise
    except BaseException:
        _finish(executor, in_work)
        for future in in_work:
            if not future.cancelled() and future.exception() is None:
                yield future.result()
        raise
    finally:  # no process may write rows after the build releases its lock
        _finish(executor, in_work)


def _has_room(in_work: Collection[Sequence[Item]], ahead: int) -> bool:
    """Say whether one more chunk may be begun. Of large ones each worker gets one, and one waits for the first of them.

    A crash makes all that are in work suspects, which are then done one by one.
    """
    workers = math.ceil(ahead / _AHEAD)
    return len(in_work) < ahead and (len(in_work) <= workers or sum(map(len, in_work)) < ahead * LARGEST_CHUNK)


def _patience(in_work: Iterable[Sequence[Item]]) -> float:
    """Return how many seconds may pass without a finished chunk; after more, a worker hangs."""
    return SECONDS_AN_IMAGE * max([LARGEST_CHUNK, *(len(chunk) / 4 for chunk in in_work)]) + 20


def _finish(executor: Executor, in_work: Mapping[Future[list[Result]], Sequence[Item]]) -> None:
    """Wait for the running chunks, and let no other begin."""
    if isinstance(executor, LocalPool):
        shut_down(executor)
    for future in in_work:
        future.cancel()
    deadline = time.monotonic() + _patience(in_work.values())
    while not all(future.done() for future in in_work):  # not `wait`: a second signal may end this
        if time.monotonic() > deadline:
            raise WorkerDied("the build stopped", None, "its executor does not end", _GO_ON)
        time.sleep(0.01)


def _one_by_one(job: Job, suspects: Sequence[Item], answer_signals: Callable[[], None]) -> Iterator[list[Result]]:
    """Do each image in a pool of its own. An image that breaks its pool has failed."""
    crashes = 0
    for item in suspects:
        crashed: list[Item] = []
        with _pool(1) as pool:
            yield from _run(pool, job, iter([[item]]), 1, crashed, answer_signals)
        crashes = crashes + 1 if crashed else 0
        if crashes > CRASHES_IN_A_ROW:
            why = f"{crashes} workers died one after another, the last at {show_location(item.location)}"
            raise WorkerDied("the build stopped", job.output, why, _GO_ON)
        if crashed:
            yield [Result(item.row, "transient", reason=_CRASHED)]


_CRASHED = f"its decoder crashed, or took over {SECONDS_AN_IMAGE} s"


@contextmanager
def _pool(workers: int) -> Iterator[LocalPool]:
    pool = local_pool(workers)
    try:
        yield pool
    finally:
        shut_down(pool)


def shut_down(pool: LocalPool) -> None:
    """End a pool's processes, each after the chunk that it works on, or after `_GRACE_SECONDS`.

    A second Ctrl-C is answered after that. Were it answered by an exception in `shutdown`, the thread that manages the
    pool would count as ended and lose its pipes, and its chunks would never end.
    """
    with held_signals():
        manager: Any = pool._executor_manager_thread  # a thread, or None
        workers = dict(pool._processes or {})
        pool.shutdown(wait=False, cancel_futures=True)
        if manager is None:
            return
        manager.join(_GRACE_SECONDS)
        if manager.is_alive():
            _kill(workers)
            manager.join(_GRACE_SECONDS)


def kill_workers(pool: LocalPool) -> None:
    """Kill a pool's processes, which breaks the pool; Python has a method for it only from 3.14 on."""
    _kill(dict(pool._processes or {}))


def _kill(processes: Iterable[int]) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)

"""Build shards on this machine, four at a time: while one begins, or waits for the disk, the others have all cores."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from types import FrameType

from pipeline.build.build import build_file
from pipeline.build.pool import shut_down
from pipeline.build.task import Task
from pipeline.shards.remote import BuiltShard
from pipeline.system.processes import local_pool

AT_A_TIME = 4


def share(workers: int, shards: int) -> tuple[int, int]:
    """Divide worker processes among shards, and leave as few as can be without work.

    Args:
        workers: their number.
        shards: to build.

    Returns:
        How many shards are built at a time, and how many workers each of these has.
    """
    most = min(AT_A_TIME, shards, workers)
    at_a_time = max(range(min(2, most), most + 1), key=lambda count: (workers // count * count, count))
    return at_a_time, workers // at_a_time


@contextmanager
def builders(count: int) -> Iterator[Executor]:
    """Start processes for `build_here`. After an error, each stops soon and keeps the images that it has finished."""
    pool = local_pool(count, limited=False)  # each builds a whole shard; its own workers have the limit
    processes = list(pool._processes)
    try:
        yield pool
    except BaseException:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)
        raise
    finally:
        shut_down(pool)


def build_here(task: Task, wait: bool) -> BuiltShard:
    """Build one shard with worker processes of its own, as `build_file` does.

    SIGTERM stops it like Ctrl-C, and ends this process: the pool's queue may hold another shard, and an idle process
    that the same signal has ended may hold the lock of that queue.
    """
    start = time.monotonic()
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        report = build_file(task, wait=wait)
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert task.shard is not None
    return BuiltShard(task.shard.index, report, "", time.monotonic() - start)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the pool sends another when a process of it ends
    signal.default_int_handler(number, frame)

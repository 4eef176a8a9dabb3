"""Start, limit and end worker processes, and count the cores for them."""

import ctypes
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing.util import get_temp_dir
from pathlib import Path

SECONDS_AN_IMAGE, BYTES_AN_IMAGE = 60, 2 * 10**9

_LONGEST_FOLDER = 70  # bytes; with /pymp-12345678/listener-12345678 a socket's path has 103


def signal_limit(seconds: float) -> None:
    """Let the system end this worker if an image takes longer; a decoder that hangs cannot be asked to stop.

    Only where the default action of SIGALRM is in force, which `start_worker` sees to in a worker of our own.
    """
    if threading.current_thread() is threading.main_thread() and _in_our_worker:
        signal.setitimer(signal.ITIMER_REAL, seconds)


_in_our_worker = False


_QUOTAS = (  # where a container finds how many microseconds of processor time it may use in a period, and the period
    ("/sys/fs/cgroup/cpu.max",),
    ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.cfs_period_us"),
)


def usable_cores() -> int:
    """Return how many cores this process may use: taskset, Slurm or a container may leave it fewer than there are.

    A container may have a set of cores, or a share of the time of all (`docker run --cpus`, limits of Kubernetes).
    """
    return max(1, min(len(bound_cores()) or os.cpu_count() or 1, _cores_of_time()))


def bound_cores() -> list[int]:
    """Return the numbers of the cores that this process is bound to; none where the system binds no process."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def _cores_of_time() -> int:
    """Return how many cores can work in the processor time that this container may use."""
    for files in _QUOTAS:
        with suppress(OSError, ValueError):  # another system, or "max": no limit
            quota, period = map(int, " ".join(Path(file).read_text() for file in files).split())
            if quota > 0 < period:
                return -(-quota // period)
    return sys.maxsize


class LocalPool(ProcessPoolExecutor):
    """A pool that a build has started itself, and may shut down."""


def local_pool(workers: int, limited: bool = True) -> LocalPool:
    """Start processes that ignore Ctrl-C, hold to limits, and die with this one.

    They are forked where that is safe: they inherit the build's lock, so that no second builder starts while one of
    them still writes, and need no importable `__main__`.

    Args:
        workers: their number.
        limited: each has memory for one image after another, `BYTES_AN_IMAGE`; else as much as this process.
    """
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    pool = LocalPool(workers, context, initializer=start_worker, initargs=(os.getpid(), limited))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a warning about threads, which the children do not use
        pool.submit(int)  # a pool forks when it is first used
    return pool


def start_worker(parent: int, limited: bool = True) -> None:
    """Prepare a worker process: signals, limits, death with its parent."""
    global _in_our_worker
    _in_our_worker = True
    for number in (signal.SIGINT, signal.SIGHUP):  # the parent answers Ctrl-C and the end of its terminal
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    die_with(parent)
    if limited:
        _limit_memory()


def has_room_for_sockets() -> bool:
    """Make sure that worker processes have a folder for their sockets; return whether there is one.

    The path of a socket has at most 107 bytes. In a longer $TMPDIR a loader worker could not send its first batch,
    and who waits for the batch would wait for ever.
    """
    if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_FOLDER:
        return True
    short = [folder for folder in ("/tmp", "/var/tmp", "/dev/shm") if os.access(folder, os.W_OK)]
    usual = tempfile.tempdir
    tempfile.tempdir = short[0] if short else usual
    try:
        return len(os.fsencode(get_temp_dir())) <= _LONGEST_FOLDER + 14  # made once for this process and its workers
    finally:
        tempfile.tempdir = usual


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
    """Allow `BYTES_AN_IMAGE` beyond the memory that a forked worker has from its parent."""
    if sys.platform != "linux":
        return
    with Path("/proc/self/status").open() as status:
        now = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    limit = now + BYTES_AN_IMAGE
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard == resource.RLIM_INFINITY or hard > limit:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))

"""A Dask cluster as an executor: its workers build shards."""

import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any

from pipeline.errors import WorkerDied
from pipeline.text import how_to_install

_NO = "the cluster cannot be used"
_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 60  # without any worker, before a message says so: a job queue may take longer
_LOOK_SECONDS = 2


@contextmanager
def dask_executor(scheduler: str) -> Iterator[Executor]:
    """Connect to a scheduler, and yield an executor that runs functions on its workers.

    A function whose worker dies is run again by another one. A cluster that has no worker for a minute cancels all.

    Raises:
        WorkerDied: `distributed` is not installed, no scheduler answers, or no worker is there.
    """
    try:
        import distributed
        from distributed.comm.addressing import get_address_host_port
    except ImportError as error:
        raise WorkerDied(_NO, None, "dask.distributed is not installed", how_to_install("dask")) from error
    try:
        get_address_host_port(scheduler)  # otherwise a failing client first waits, and then reports why
    except ValueError as error:
        raise WorkerDied(_NO, None, f"{scheduler!r} is no address: {error}", "One is tcp://head:8786") from error
    try:
        client = distributed.Client(  # type: ignore[no-untyped-call]  # Dask has types for some
            scheduler, timeout=_CONNECT_SECONDS, set_as_default=False
        )
    except (OSError, ValueError, TypeError) as error:
        why = f"no scheduler answers at {scheduler} ({type(error).__name__}: {error})"
        raise WorkerDied(_NO, None, why, "Start one: dask scheduler") from error
    with client:
        try:
            client.wait_for_workers(1, _WORKERS_SECONDS)
        except TimeoutError as error:
            why = f"its scheduler has had no worker for {_WORKERS_SECONDS} s"
            raise WorkerDied(_NO, None, why, "Start one: dask worker ADDRESS") from error
        client.get_versions(check=True)  # warns of those that differ
        executor: Executor = client.get_executor(pure=False)  # type: ignore[no-untyped-call]
        ended = threading.Event()
        threading.Thread(target=_watch_workers, args=(client, executor, ended), daemon=True).start()
        try:
            yield executor
        finally:
            ended.set()
            executor.shutdown(wait=False)  # its workers finish the tasks that they have begun


def _watch_workers(client: Any, executor: Executor, ended: threading.Event) -> None:
    """Cancel the tasks if there has been no worker for long, so that nobody waits forever."""
    while not ended.wait(_LOOK_SECONDS):
        try:
            client.wait_for_workers(1, _WORKERS_SECONDS)
        except Exception:  # no worker; or the scheduler is gone, which Dask reports by several exceptions
            if not ended.is_set():
                executor.shutdown(wait=False)
            return

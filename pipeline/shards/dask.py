"""A Dask cluster as an executor whose failures say which worker, and what to do."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from pipeline.errors import PipelineError, WorkerDied
from pipeline.text import how_to_install

_NO = "the cluster cannot be used"
_CONNECT_SECONDS = 10
_WORKERS_SECONDS = 60  # without any worker: a queue of jobs may take longer, so say that it has to be waited for
_LOOK_SECONDS = 2


@contextmanager
def dask_executor(scheduler: str) -> Iterator["DaskExecutor"]:
    """Connect to a scheduler, and yield an executor that runs functions on its workers.

    Raises:
        WorkerDied: `distributed` is not installed, no scheduler answers, no worker is there, or their versions do not
            go together with these.
    """
    try:
        import distributed
        from distributed.comm.addressing import get_address_host_port
    except ImportError as error:
        raise WorkerDied(_NO, None, "dask.distributed is not installed", how_to_install("dask")) from error
    try:
        get_address_host_port(scheduler)  # a client that cannot be made would first wait, and then say why it gave up
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
        executor = DaskExecutor(client)
        executor.check()
        with executor:
            yield executor


class DaskExecutor(Executor):
    """Runs functions on the workers of a cluster; a function whose worker dies is run again by another one."""

    def __init__(self, client: Any, patience: float = _WORKERS_SECONDS) -> None:
        self._client = client
        self._inner: Executor = client.get_executor(pure=False)
        self._patience = patience
        self._waiting: dict[Future[Any], Future[Any]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._watch = threading.Thread(target=self._watch_workers, daemon=True)
        self._watch.start()

    def check(self) -> None:
        """Wait for a worker, and compare versions.

        Raises:
            WorkerDied: there is none, or another Python or distributed.
        """
        deadline = time.monotonic() + self._patience
        while not self._workers():
            if time.monotonic() > deadline:
                why = f"its scheduler has had no worker for {self._patience:.0f} s"
                raise WorkerDied(_NO, None, why, "Start one: dask worker ADDRESS")
            time.sleep(0.1)
        differences = version_differences(self._client.get_versions())
        if differences:
            raise WorkerDied(_NO, None, "; ".join(differences[:3]), "Install the same versions everywhere")

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **options: Any) -> "Future[Any]":
        """Run a function on some worker; a failure that is not the function's own becomes `WorkerDied`."""
        outer: Future[Any] = Future()
        inner = self._inner.submit(function, *arguments, **options)
        with self._lock:
            self._waiting[outer] = inner
        inner.add_done_callback(lambda done: self._pass_on(done, outer))
        return outer

    def _pass_on(self, inner: "Future[Any]", outer: "Future[Any]") -> None:
        with self._lock:
            self._waiting.pop(outer, None)
        if inner.cancelled() or not outer.set_running_or_notify_cancel():
            return
        error = inner.exception()
        if error is None:
            outer.set_result(inner.result())
        else:
            outer.set_exception(explained(error))

    def _workers(self) -> dict[str, Any]:
        found: dict[str, Any] = self._client.scheduler_info(n_workers=-1)["workers"]
        return found

    def _watch_workers(self) -> None:
        """Fail what is waited for where no worker has been there for long: it would wait for ever."""
        seen = time.monotonic()
        while not self._ended.wait(_LOOK_SECONDS):
            if self._workers():
                seen = time.monotonic()
            elif time.monotonic() - seen > self._patience:
                with self._lock:
                    waiting = list(self._waiting)
                    self._waiting.clear()
                for outer in waiting:
                    if outer.set_running_or_notify_cancel():
                        why = f"the cluster has had no worker for {self._patience:.0f} s"
                        outer.set_exception(WorkerDied("the build stopped", None, why, _GO_ON))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; what its workers have begun they finish."""
        self._ended.set()
        with self._lock:
            waiting = list(self._waiting.values())
            self._waiting.clear()
        for inner in waiting:
            inner.cancel()
        self._inner.shutdown(wait=False)
        self._watch.join()


_GO_ON = "Start workers and run build-cache again; it goes on where it stopped"


def explained(error: BaseException) -> PipelineError:
    """Say what an exception of the cluster means; one of ours stays as it is."""
    if isinstance(error, PipelineError):
        return error
    name = type(error).__name__
    if name == "KilledWorker":
        worker = getattr(error, "last_worker", None)
        why = f"its workers died one after another, the last {getattr(worker, 'name', None) or worker}"
        advice = "Look at the workers' logs, then run build-cache again; it goes on where it stopped"
        return WorkerDied("the build stopped", None, why, advice)
    if isinstance(error, ModuleNotFoundError):
        why = f"a worker has no package {error.name!r}"
        return WorkerDied("the build stopped", None, why, "Install modelnet-cache in the workers' environment")
    return WorkerDied("the build stopped", None, f"the cluster failed: {name}: {error}", _GO_ON)


def version_differences(versions: dict[str, Any]) -> list[str]:
    """List the workers (and the scheduler) whose Python or distributed is not that of this process.

    Args:
        versions: as `distributed.Client.get_versions` returns them.

    Returns:
        Phrases: "worker tcp://10.0.0.3:4711 has Python 3.12, this process 3.11".
    """
    found = []
    here = _versions(versions["client"])
    others = {"the scheduler": versions["scheduler"]} | {f"worker {a}": v for a, v in versions["workers"].items()}
    for who, theirs in others.items():
        there = _versions(theirs)
        found += [
            f"{who} has {what} {there[what]}, this process {here[what]}" for what in here if there[what] != here[what]
        ]
    return found


def _versions(described: dict[str, Any]) -> dict[str, str]:
    packages = described["packages"]
    python = ".".join(str(packages["python"]).split(".")[:2])
    return {"Python": python, "distributed": str(packages["distributed"])}

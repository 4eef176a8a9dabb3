"""Build shards in the workers of an executor, each in a process of its own on the worker's machine.

A worker of a cluster may be one of several threads, or a process that may have no children or must not be lost. So it
starts an ordinary process for each shard. There, limits of decoders hold and crashes are survived as in any build. The
process dies with its worker, and its lock is free then.
"""

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.build.build import build_file
from pipeline.build.report import BuildReport
from pipeline.build.task import Progress, Task
from pipeline.decode.decode import decoder_identity
from pipeline.decode.formats import FORMATS
from pipeline.errors import OutputError, PipelineError, SourceError, WorkerDied
from pipeline.format.header import VERSION
from pipeline.format.reader import CacheReader
from pipeline.source.manifest import Manifest
from pipeline.system.processes import die_with
from pipeline.system.signals import held_signals
from pipeline.text import show_path

_GO_ON = "Run build-cache again; it continues where it stopped"
_LOOK_SECONDS = 0.5  # between two checks of the progress
_SEEN_SECONDS = 60  # until a file that a worker has published must be seen here: network file systems take their time


_MAIN = "from pipeline.shards.remote import main; main()"


@dataclass(frozen=True)
class BuiltShard:
    """A finished shard: its report, the worker that built it (empty: this process), and the time that it took."""

    index: int
    report: BuildReport
    worker: str
    seconds: float


def run_tasks(
    executor: Executor, build: Callable[[Task], BuiltShard], tasks: Sequence[Task], progress: Progress | None
) -> Iterator[BuiltShard]:
    """Build shards in an executor, each by `build`, in any order.

    Raises:
        WorkerDied: a worker died, or cannot do the work; names the worker if it is known.
        PipelineError: the error that a worker raised.
    """
    far = _Progress(tasks, progress)
    futures: dict[Future[BuiltShard], Task] = {}
    with held_signals() as answer_signals:
        try:
            far.look()
            for task in tasks:
                try:
                    futures[executor.submit(build, task)] = task
                except RuntimeError as error:  # it was shut down in the meantime, or is broken
                    raise _no_workers(task) from error
            while futures:
                done = wait(futures, _LOOK_SECONDS, FIRST_COMPLETED).done
                answer_signals()
                for future in done:
                    task = futures.pop(future)
                    finished = _result(future, task, answer_signals)
                    far.finished(task)
                    yield finished
                far.look()
        finally:  # running tasks end by themselves, under their own locks
            for future in futures:
                future.cancel()


def _result(future: "Future[BuiltShard]", task: Task, answer_signals: Callable[[], None]) -> BuiltShard:
    try:
        done = future.result()
    except PipelineError:
        raise
    except CancelledError as error:
        raise _no_workers(task) from error
    except BrokenExecutor as error:
        raise WorkerDied("the build stopped", task.path, "the executor broke", _GO_ON) from error
    except Exception as error:
        why = f"a worker failed: {type(error).__name__}: {error}"
        raise WorkerDied("the build stopped", task.path, why, _GO_ON) from error
    _wait_until_seen(task, done, answer_signals)
    return done


def _no_workers(task: Task) -> WorkerDied:
    why = "the cluster has no workers any more"
    return WorkerDied("the build stopped", task.path, why, f"Start workers. {_GO_ON}")


def _wait_until_seen(task: Task, done: BuiltShard, answer_signals: Callable[[], None]) -> None:
    """Wait until the file that a worker has published is seen here."""
    deadline = time.monotonic() + _SEEN_SECONDS
    while True:
        with suppress(PipelineError):
            if CacheReader(task.path).header.file_size == done.report.file_bytes:
                return
        if time.monotonic() > deadline:
            why = f"worker {done.worker} has published it, and it is not seen here"
            raise OutputError("the build stopped", task.path, why, "Workers need the same folder under the same path")
        time.sleep(0.2)
        answer_signals()


class _Progress:
    """Count the finished images by the journals of the shards in work."""

    def __init__(self, tasks: Sequence[Task], progress: Progress | None) -> None:
        self.progress = progress
        self.sizes = {task.path: len(task.manifest.names) for task in tasks}
        self.total = sum(self.sizes.values())
        self.done = 0
        self.read: dict[Path, tuple[int, int]] = dict.fromkeys(self.sizes, (0, 0))  # bytes, lines about images

    def finished(self, task: Task) -> None:
        self.done += self.sizes.pop(task.path)

    def look(self) -> None:
        if self.progress is not None:
            self.progress(self.done + sum(map(self._lines, self.sizes)), self.total)

    def _lines(self, path: Path) -> int:
        start, lines = self.read[path]
        try:
            with path.with_name(path.name + ".journal").open("rb") as file:
                file.seek(start)
                new = file.read()
        except OSError:  # not begun, or just published
            return min(lines, self.sizes[path])
        lines += new.count(b'"source_sha256"')
        self.read[path] = (start + len(new), lines)
        return min(lines, self.sizes[path])


def build_shard(task: Task) -> BuiltShard:
    """Build one shard, in a process of its own; this is what an executor's worker runs.

    Raises:
        WorkerDied: this machine decodes to other pixels, does not see the paths, or the process died.
        PipelineError: as `build_file`; the worker's name is in the reason.
    """
    start = time.monotonic()
    worker = worker_name()
    try:
        _check_worker(task)
        report = _in_own_process(task)
    except PipelineError as error:
        why = f"{error.reason} (worker {worker})"
        raise type(error)(error.what, error.path, why, error.advice) from error
    assert task.shard is not None
    return BuiltShard(task.shard.index, report, worker, time.monotonic() - start)


def _check_worker(task: Task) -> None:
    if task.format != VERSION or task.decoder != installed_decoders():
        why = f"its installation decodes to other pixels, or writes another format than {task.format}"
        raise WorkerDied("the build stopped", task.path, why, "Install the same versions on all workers")
    archives = [Path(os.fsdecode(archive)) for archive, _ in task.manifest.archives]
    unseen = [needed for needed in (task.manifest.root, *archives, task.path.parent) if not needed.exists()]
    if unseen or (unseen := _others_here(task.manifest)):
        why = f"it does not see {show_path(unseen[0])}"
        raise SourceError("the build stopped", task.path, why, "Workers need the same paths: a shared file system")


def installed_decoders() -> dict[str, str]:
    """Return the identity of this installation's decoder of every format."""
    return {form.name: decoder_identity(form.name) for form in FORMATS}


def _others_here(manifest: Manifest) -> list[Path]:
    """Return three images of the source if none of them is here with its size; else nothing.

    Where a file system is not mounted its folder is empty, and every image would count as vanished.
    """
    if not manifest.names or len(manifest.members):
        return []
    rows = {0, len(manifest.names) // 2, len(manifest.names) - 1}
    sizes = {Path(os.fsdecode(manifest.path(row))): int(manifest.stats[row, 0]) for row in sorted(rows)}
    return [] if any(_has_size(path, size) for path, size in sizes.items()) else list(sizes)


def _has_size(path: Path, size: int) -> bool:
    try:
        return path.stat().st_size == size
    except OSError:
        return False


def _in_own_process(task: Task) -> BuildReport:
    place = os.fspath(Path(__file__).parents[2])
    paths = [place, *filter(None, [os.environ.get("PYTHONPATH")])]
    ended = subprocess.run(
        [sys.executable, "-c", _MAIN, str(os.getpid())],
        input=pickle.dumps(task),
        capture_output=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        answer = pickle.loads(ended.stdout)  # in our own process
    except (EOFError, pickle.UnpicklingError):
        said = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        how = f"signal {-ended.returncode}" if ended.returncode < 0 else f"exit code {ended.returncode}"
        why = f"its process ended with {how}{f' ({said})' if said else ''}"
        raise WorkerDied("the build stopped", task.path, why, _GO_ON) from None
    if isinstance(answer, PipelineError):
        raise answer
    assert isinstance(answer, BuildReport)
    return answer


def main() -> None:
    """Build the shard of the task on stdin, and write its report or error to stdout."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever waits for the shards answers Ctrl-C
    die_with(int(sys.argv[1]))
    task: Task = pickle.load(sys.stdin.buffer)
    answer: BuildReport | PipelineError
    try:
        # a single process where nothing else is said; wait for a worker that was lost, until its process is gone
        answer = build_file(replace(task, workers=task.workers or 1), wait=True)
    except PipelineError as error:
        answer = error
    sys.stdout.buffer.write(pickle.dumps(answer))


def worker_name() -> str:
    """Name this worker: as the cluster calls it, or by host and process."""
    here = f"{socket.gethostname()}:{os.getpid()}"
    if "distributed" not in sys.modules:
        return here
    from distributed import get_worker

    try:
        worker = get_worker()
    except ValueError:  # no task of a cluster
        return here
    return f"{worker.name} on {socket.gethostname()}" if worker.name != worker.address else str(worker.address)

"""Forks builders that die at a chosen moment; being forked from a prepared process, they start in milliseconds.

Reads one JSON line a round from stdin, a list of builds to run at once; answers with one JSON line, a list of what
became of each.
"""

import ctypes
import json
import mmap
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py  # noqa: F401  (here, so that no builder has to import it)

import cli
from pipeline.build import lock, partial, worker
from pipeline.build.build import build_cache
from pipeline.decode.decode import decoder_identity
from pipeline.errors import PipelineError
from pipeline.system import files, processes

Order = dict[str, Any]

OPERATIONS = ("create", "write_all", "append_all", "reserve", "resize", "sync", "rename", "sync_folder", "remove")


def main() -> None:
    """Serve rounds until stdin ends."""
    decoder_identity("JPEG"), decoder_identity("PNG")
    become_subreaper = 36
    ctypes.CDLL(None).prctl(become_subreaper, 1)
    for line in sys.stdin:
        running = [_start(order) for order in json.loads(line)]
        print(json.dumps([_wait(pid, answer, order) for pid, answer, order in running]), flush=True)


def _start(order: Order) -> tuple[int, int, Order]:
    answer, say = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(say)
        return pid, answer, order
    os.setpgid(0, 0)
    quiet = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(quiet, standard)
    code = 1  # of what must not happen: an exception here
    try:
        if "command" in order:
            os.dup2(say, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if "command" in order:
            sys.argv = ["cli.py", *order["command"]]
            cli.main()
        os.write(say, json.dumps(_build(order)).encode())
        code = 0
    except SystemExit as ended:
        code = int(ended.code or 0)
    except KeyboardInterrupt:
        traceback.print_exc()  # says whether the command had begun
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait(pid: int, answer: int, order: Order) -> Order:
    if "seconds" in order:
        time.sleep(order["seconds"])
        with suppress(ProcessLookupError):
            (os.killpg if order["who"] == "group" else os.kill)(pid, order["signal"])
    _, status = os.waitpid(pid, 0)
    os.set_blocking(answer, False)  # an orphan may hold the other end
    try:
        said = os.read(answer, 1 << 20)
    except BlockingIOError:
        said = b""
    os.close(answer)
    orphans = _orphans(pid, order.get("patience", 10))
    if "command" in order:
        return {"code": os.waitstatus_to_exitcode(status), "said": said.decode(), "orphans": orphans}
    return {"pid": pid, "killed": os.WIFSIGNALED(status), "orphans": orphans, **json.loads(said or b"{}")}


def _orphans(group: int, patience: float) -> int:
    """Wait until nothing of a process group is left; kill and count what does not go by itself."""
    end = time.monotonic() + patience
    while True:
        try:
            while os.waitpid(-group, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return 0
        if time.monotonic() > end:
            break
        time.sleep(0.002)
    os.killpg(group, signal.SIGKILL)
    count = 0
    while True:
        try:
            os.waitpid(-group, 0)
        except ChildProcessError:
            return count
        count += 1


def _build(order: Order) -> Order:
    if "without" in order:
        _PROTECTIONS[order["without"]]()
    moment = _Moment(order)
    if "row" in order:
        moment.watch_row(order["row"])
    moment.watch_operations(order.get("operation", -1))
    try:
        report = build_cache(
            order["source"], order["path"], size=8, workers=order["workers"], wait=order.get("wait", False)
        )
    except PipelineError as error:
        return {"code": error.exit_code, "said": str(error), "operations": moment.operations}
    except BaseException as error:
        return {"code": 1, "said": repr(error), "operations": moment.operations}
    names = ("cached", "kept", "decoded", "copied", "up_to_date")
    found = {name: getattr(report, name) for name in names}
    transient = sum(failed.transient for failed in report.failed)
    return found | {"code": 0, "said": "", "transient": transient, "operations": moment.operations}


class _Moment:
    """The moment at which somebody is killed, once: a row (in the worker) or a file operation (in the parent)."""

    def __init__(self, order: Order) -> None:
        self.who = order.get("who", "")
        self.stage = order.get("stage", "before")
        self.parent = os.getpid()
        self.done = mmap.mmap(-1, 1)  # shared with the workers
        self.operations: list[str] = []

    def watch_row(self, row: int) -> None:
        """Kill when a worker is at the row: before it, with half of it written, or with all of it."""
        fill_row = worker._fill_row

        def watched(job: Any, fd: int, donor: Any, item: worker.Item) -> worker.Result:
            if item.row != row or self.done[0]:
                return fill_row(job, fd, donor, item)
            if self.stage == "before":
                self._kill()
            if self.stage == "half":
                files.write_all = self._half(files.write_all)
            result = fill_row(job, fd, donor, item)
            self._kill()
            return result

        worker._fill_row = watched

    def watch_operations(self, number: int) -> None:
        """Kill before, in the middle of, or after the parent's operation of that number."""
        for name in OPERATIONS:
            setattr(files, name, self._watched(name, getattr(files, name), number))

    def _watched(self, name: str, operation: Callable[..., Any], number: int) -> Callable[..., Any]:
        def watched(*arguments: Any) -> Any:
            if os.getpid() != self.parent:
                return operation(*arguments)
            self.operations.append(name)
            if len(self.operations) - 1 != number or self.done[0]:
                return operation(*arguments)
            if self.stage == "before":
                self._kill()
            if self.stage == "half" and name in ("write_all", "append_all"):
                return self._half(operation)(*arguments)
            result = operation(*arguments)
            self._kill()
            return result

        return watched

    def _half(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def half(fd: int, data: bytes, *offset: int) -> None:
            write(fd, memoryview(data).cast("B")[: len(data) // 2], *offset)
            self._kill()
            write(fd, data, *offset)

        return half

    def _kill(self) -> None:
        if self.done[0]:
            return
        self.done[0] = 1
        if self.who == "group":
            os.killpg(self.parent, signal.SIGKILL)
        elif self.who == "parent":
            os.kill(self.parent, signal.SIGKILL)
        elif os.getpid() != self.parent:
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            for worker in multiprocessing.active_children()[:1]:
                os.kill(worker.pid or 0, signal.SIGKILL)
        if os.getpid() != self.parent:
            time.sleep(60)  # a worker whose parent is gone has to be ended by the system


def _survive_the_parent() -> None:
    processes.die_with = lambda parent: None


def _forget_the_journal() -> None:
    partial.PartialBuild._resume = lambda self, images: False  # type: ignore[method-assign]


def _build_in_place() -> None:
    begin = partial.PartialBuild.__init__

    def in_place(self: partial.PartialBuild, cache: Path, *rest: Any, **options: Any) -> None:
        begin(self, cache, *rest, **options)
        self.building = cache

    partial.PartialBuild.__init__ = in_place  # type: ignore[method-assign]


def _lock_nothing() -> None:
    lock._lock = lambda fd, cache, wait: None


_PROTECTIONS: dict[str, Callable[[], None]] = {
    "death with the parent": _survive_the_parent,
    "the journal": _forget_the_journal,
    "the name aside": _build_in_place,
    "the lock": _lock_nothing,
}

if __name__ == "__main__":
    main()

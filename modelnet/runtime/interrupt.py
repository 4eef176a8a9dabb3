"""Ctrl-C, SIGTERM and SIGHUP: the first asks the loop to stop after its step, the second stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from pipeline.system.processes import die_with

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Stop:
    """A request to stop after the current step: the signal that asked for it, or None."""

    signal: int | None = None

    def poll(self) -> int | None:
        """Return the signal, where the training of several processes has to agree on it once a step."""
        return self.signal

    @property
    def exit_code(self) -> int:
        """130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP, 0 where nobody asked."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Turn the first Ctrl-C, SIGTERM or SIGHUP in the block into a request; a second ends the process at once.

    A signal that is ignored, as SIGHUP under nohup, stays so.

    Python allows signal handlers in the main thread alone; elsewhere nothing is changed.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    process = os.getpid()

    def ask(signum: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a forked worker before `begin_worker` has run
            return
        if stop.signal is not None:
            os._exit(128 + signum)
        stop.signal = signum

    heard = [signum for signum in SIGNALS if signal.getsignal(signum) is not signal.SIG_IGN]
    before = {signum: signal.signal(signum, ask) for signum in heard}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def begin_worker(parent: int, worker: int) -> None:
    """Make a loader worker end with the main process, and not before: not by a Ctrl-C to the whole process group.

    Args:
        parent: id of the main process.
        worker: number of the worker.
    """
    die_with(parent)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_IGN)

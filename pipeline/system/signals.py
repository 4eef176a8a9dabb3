"""Ctrl-C, SIGTERM and SIGHUP, answered where it is safe and nowhere else."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_signals() -> Iterator[Callable[[], None]]:
    """Hold back Ctrl-C, SIGTERM and SIGHUP, and yield a function that answers those that came.

    A handler that raises does so between any two instructions of the main thread: while the interpreter forks, which
    loses the exception, or inside `concurrent.futures.wait`, which then leaves locks behind that its threads wait for.
    Call the function often, at points that may be left by an exception. What came after the last call is answered at
    the end. In another thread than the main one no handler runs, and nothing is held.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def hold(number: int, _frame: FrameType | None) -> None:
        came.append(number)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def answer() -> None:
        if came:
            restore()  # ends at once: a second signal need not wait
            signal.raise_signal(came.pop(0))

    for number in before:
        signal.signal(number, hold)
    try:
        yield answer
    finally:
        restore()
    answer()

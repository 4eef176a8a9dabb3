"""Signals are answered where it is safe, each once, and never lost."""

import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from pipeline.system.signals import held_signals


class Came(Exception):
    """A handler of the program that uses the library."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request: pytest.FixtureRequest) -> Iterator[int]:
    def handle(number: int, frame: FrameType | None) -> None:
        raise Came

    before = signal.signal(request.param, handle)
    yield request.param
    signal.signal(request.param, before)


def test_a_signal_is_answered_where_the_program_asks_for_it(number: int) -> None:
    reached = []
    with pytest.raises(Came), held_signals() as answer:
        os.kill(os.getpid(), number)
        reached.append("after the signal")
        answer()
        reached.append("after the answer")

    assert reached == ["after the signal"]


def test_a_signal_that_nobody_asked_for_is_answered_at_the_end(number: int) -> None:
    reached = []
    with pytest.raises(Came):
        with held_signals():
            os.kill(os.getpid(), number)
            reached.append("inside")
        reached.append("behind")

    assert reached == ["inside"]


def test_a_second_signal_does_not_wait(number: int) -> None:
    with held_signals() as answer:
        os.kill(os.getpid(), number)
        with pytest.raises(Came):
            answer()
        with pytest.raises(Came):
            os.kill(os.getpid(), number)


def test_the_programs_own_handlers_are_back_afterwards(number: int) -> None:
    before = signal.getsignal(number)
    with held_signals() as answer:
        assert signal.getsignal(number) is not before
        answer()

    assert signal.getsignal(number) is before


def test_in_another_thread_nothing_is_held_since_no_handler_runs_there(number: int) -> None:
    before = signal.getsignal(number)
    seen = []

    def work() -> None:
        with held_signals() as answer:
            answer()
            seen.append(signal.getsignal(number))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert seen == [before]

"""Cores that a process may use (processes.py); its workers are tested with the builds that start them."""

import os

import pytest

from pipeline.system.processes import usable_cores
from tests.support.command_line import REPOSITORY


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_process_that_is_bound_to_a_core_uses_one() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


def test_where_processes_are_not_bound_all_cores_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, usable in ((3, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert usable_cores() == usable


def test_no_other_module_counts_the_cores_of_the_machine() -> None:
    """`doctor` shows them beside the usable ones."""
    counts = ("cpu_count", "sched_getaffinity")
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("pipeline", "modelnet")
        for path in (REPOSITORY / package).rglob("*.py")
        if any(name in path.read_text("utf-8") for name in counts)
    }
    assert found == {"pipeline/system/processes.py", "modelnet/training/machine.py"}

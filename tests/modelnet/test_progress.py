"""What a training from Python shows: nothing in a program, a bar in a notebook."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from modelnet.progress import EpochRow, Progress, ProgressBar, usual_progress


def test_a_bar_is_shown_in_notebooks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(usual_progress()) is Progress
    ipython = ModuleType("IPython")
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    for shell, kind in ((None, Progress), ({}, Progress), ({"IPKernelApp": {}}, ProgressBar)):
        found = None if shell is None else SimpleNamespace(config=shell)
        monkeypatch.setattr(ipython, "get_ipython", lambda found=found: found, raising=False)
        assert type(usual_progress()) is kind


def test_a_bar_says_how_it_goes(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as progress:
        progress.step(3)
        progress.epoch(EpochRow(1, 0.5, 0.5, None, None, 0.1, 1, 0, 1), 2)
        progress.note("a note")
        progress.warn("careful")
        progress.started(Path("runs/mine"), 16, 0)
        progress.step(8)
        progress.epoch(EpochRow(1, 0.51, 0.5, 0.4, 0.75, 0.1, 1, 0, 1), 2)
        progress.step(8)
        progress.epoch(EpochRow(2, 0.41, 0.5, None, None, 0.1, 1, 0, 1), 2)
    printed = capsys.readouterr()
    assert printed.out == "" and "a note\nwarning: careful\n" in printed.err
    assert "mine: 100%" in printed.err and "16/16" in printed.err and "loss=0.41" in printed.err

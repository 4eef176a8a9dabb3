"""Where the repository is, and how a command ended."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


class Ended(NamedTuple):
    """How a run of the command line ended."""

    code: int
    stdout: str
    stderr: str


RunCli = Callable[..., Ended]


def one_line(stderr: str) -> str:
    """Check that a failure was told in one line, without a traceback, and return it."""
    assert stderr.startswith("error: ") and stderr.endswith("\n") and stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    return stderr.rstrip("\n")


def start_training(cwd: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, str(REPOSITORY / "cli.py"), "train", *arguments]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epochs(process: "subprocess.Popen[str]", count: int = 2) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            count -= 1
            if count == 0:
                return
    pytest.fail(f"ended early: {process.communicate()}")

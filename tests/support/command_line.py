"""Where the repository is, and how a command ended."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

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

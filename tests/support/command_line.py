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

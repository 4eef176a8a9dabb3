"""The suites' end of `builder_process`."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Builders:
    """Runs builds in processes of their own, alone or several at once."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def run(self, *orders: dict[str, Any]) -> list[dict[str, Any]]:
        """Run these builds at once and return what became of each."""
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(orders) + "\n")
        self.process.stdin.flush()
        answers: list[dict[str, Any]] = json.loads(self.process.stdout.readline())
        return answers


@contextmanager
def builder_process() -> Iterator[Builders]:
    """Start the process that forks builders."""
    program = [sys.executable, str(Path(__file__).with_name("builder_process.py"))]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Builders(process)
        assert process.stdin
        process.stdin.close()
        process.wait(60)

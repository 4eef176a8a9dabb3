"""Run commands in processes forked from one that has imported everything: importing torch costs more than they do.

The process reads orders of `CommandServer.run`, one a line, and answers each with the exit code.
"""

import atexit
import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cli
import modelnet
import pipeline
from tests.support.command_line import REPOSITORY


class CommandServer:
    """Runs `cli.py` as `subprocess.run` does, but without a new interpreter."""

    def __init__(self) -> None:
        start = [sys.executable, "-c", "from tests.support.command_server import serve; serve()"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            start, cwd=REPOSITORY, stdin=pipe, stdout=pipe, text=True, start_new_session=True
        )

    def run(
        self, arguments: list[str], cwd: Path, stdout: Path, stderr: Path, env: Mapping[str, str] = os.environ
    ) -> int:
        """Run a command whose streams go to the ends of files; return its exit code, or minus the signal's number."""
        streams = [str(stdout), str(stderr)]
        order = {"arguments": arguments, "cwd": str(cwd), "streams": streams, "env": dict(env)}
        assert self.process.stdin and self.process.stdout
        print(json.dumps(order), file=self.process.stdin, flush=True)
        try:
            return int(self.process.stdout.readline())
        except BaseException:  # a test took too long; its command ends too, and the next test gets another server
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
            self.__init__()  # type: ignore[misc]
            raise

    def close(self) -> None:
        """End the server."""
        self.process.communicate()


def import_everything() -> None:
    """Import what commands import when they run."""
    for package in (modelnet, pipeline):
        for name in package.__all__:
            getattr(package, name)
    importlib.import_module("torchvision.models")
    assert all(cli.cli.get_command(None, name) for name in cli.COMMANDS)  # type: ignore[arg-type]
    assert threading.active_count() == 1  # others would not be there after a fork


def obey(order: dict[str, Any]) -> None:
    """Become the process of a command, and end as it does."""
    os.chdir(order["cwd"])
    os.environ.clear()
    os.environ.update(order["env"])
    for number, file in enumerate((os.devnull, *order["streams"])):
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, number)
        os.close(fd)
    sys.argv = [str(REPOSITORY / "cli.py"), *order["arguments"]]
    try:
        cli.main()
    except SystemExit as ended:
        # This is how Python ends, but for taking modules apart, which needs 0.3 s.
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        assert isinstance(ended.code, int)
        os._exit(ended.code)


def serve() -> None:
    """Run orders one after another."""
    import_everything()
    for line in sys.stdin:
        if not (child := os.fork()):
            obey(json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)

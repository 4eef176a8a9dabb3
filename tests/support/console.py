"""The console blocks of a document: what it says to type, what it says is printed, and whether that is so."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support.command_line import REPOSITORY
from tests.support.command_server import CommandServer

BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Typed(NamedTuple):
    """A command of a document and the lines that it shows; "..." stands for any number of lines."""

    command: str
    shown: list[str]


def typed_commands(document: Path) -> list[Typed]:
    commands: list[Typed] = []
    for block in BLOCK.findall(document.read_text("utf-8")):
        for line in block.splitlines():
            if line.startswith("$ "):
                commands.append(Typed(line.removeprefix("$ "), []))
            else:
                commands[-1].shown.append(line)
    return [typed for typed in commands if not typed.command.startswith(("make ", "source ", "pip "))]


def without_numbers(line: str) -> str:
    """Mask what differs from machine to machine: every number, its unit of size, and padding."""
    return " ".join(re.sub(r"[\d,]*\.?\d+( [kMG]B)?", "#", line).split())


def matches(shown: list[str], printed: list[str]) -> bool:
    pattern = "".join(
        r"(?:.*\n)*?" if line == "..." else re.escape(without_numbers(line)) + "\n" for line in shown if line.strip()
    )
    text = "".join(without_numbers(line) + "\n" for line in printed if line.strip())
    return re.fullmatch(pattern, text) is not None


def type_in(typed: Typed, folder: Path, server: CommandServer | None = None) -> list[str]:
    """Run a command in a folder, which must succeed, and return the lines that it prints; a server makes it quick."""
    if server and typed.command.startswith("python cli.py "):
        printed = folder.parent / "printed"
        printed.unlink(missing_ok=True)
        code = server.run(shlex.split(typed.command)[2:], folder, printed, printed)
        text = printed.read_text("utf-8")
    else:
        command = typed.command.replace("python ", f"{sys.executable} ", 1)
        pipe, both = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(command, shell=True, cwd=folder, stdout=pipe, stderr=both, text=True)
        code, text = done.returncode, done.stdout
    assert code == 0, f"{typed.command}\n{text}"
    return text.splitlines()


def check_out(place: Path) -> None:
    """Make a folder with what a reader types commands in after cloning."""
    place.mkdir()
    for name in ("cli.py", "pipeline", "modelnet"):
        (place / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "data" / "example", place / "data" / "example")

"""The console blocks of a document: what it says to type, what it says is printed, and whether that is so."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.support.command_line import REPOSITORY

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


def type_in(typed: Typed, folder: Path) -> list[str]:
    """Run a command in a folder, which must succeed, and return the lines that it prints."""
    command = typed.command.replace("python ", f"{sys.executable} ", 1)
    done = subprocess.run(command, shell=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{typed.command}\n{done.stdout}"
    return done.stdout.splitlines()


def check_out(place: Path) -> None:
    """Make a folder with what a reader types commands in after cloning."""
    place.mkdir()
    for name in ("cli.py", "pipeline", "modelnet"):
        (place / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "data" / "example", place / "data" / "example")

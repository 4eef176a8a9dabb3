"""What README says to type works, and prints what README shows, numbers of the machine aside."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Typed(NamedTuple):
    """A command of README and the lines that it shows; "..." stands for any number of lines."""

    command: str
    shown: list[str]


def typed_commands() -> list[Typed]:
    commands: list[Typed] = []
    for block in BLOCK.findall((REPOSITORY / "README.md").read_text("utf-8")):
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


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it after cloning, with a folder of photographs, split in two, beside it."""
    place = tmp_path_factory.mktemp("readme") / "checkout"
    place.mkdir()
    for name in ("cli.py", "pipeline", "modelnet"):
        (place / name).symlink_to(REPOSITORY / name)
    shutil.copytree(REPOSITORY / "data" / "example", place / "data" / "example")
    for part, digits in (("train", "02468"), ("val", "13579")):
        for class_id, name in (("1", "paddles"), ("2", "snakes")):
            folder = place.parent / "photos" / part / name
            folder.mkdir(parents=True)
            for image in (place / "data" / "example" / class_id).iterdir():
                if image.stem[-1] in digits:
                    shutil.copy(image, folder)
    return place


@pytest.mark.timeout(240)
def test_the_commands_of_readme_print_what_it_shows(checkout: Path) -> None:
    commands = typed_commands()
    assert len(commands) >= 4

    for typed in commands:
        command = typed.command.replace("python ", f"{sys.executable} ", 1)
        done = subprocess.run(
            command, shell=True, cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        printed = done.stdout.splitlines()
        assert done.returncode == 0, f"{typed.command}\n{done.stdout}"
        assert matches(typed.shown, printed), f"{typed.command}\n" + "\n".join(printed)


def test_output_that_differs_in_more_than_numbers_is_noticed() -> None:
    assert matches(["a: 3 images, 1.2 MB", "...", "end"], ["a:  12 images, 3 kB", "x", "y", "end"])
    assert not matches(["a: 3 images"], ["a: 3 pictures"])
    assert not matches(["a: 3 images"], ["a: 3 images", "warning: more"])

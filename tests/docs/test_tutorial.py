"""The tutorial's commands, the same in both languages, work and print what it shows, numbers of the machine aside."""

import re
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY
from tests.support.command_server import CommandServer
from tests.support.console import check_out, matches, type_in, typed_commands

ENGLISH, CHINESE = REPOSITORY / "docs" / "tutorial.md", REPOSITORY / "docs" / "tutorial.zh-CN.md"
RECORD = REPOSITORY / "benchmarks" / "results" / "photographs.md"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a reader has it after cloning."""
    place = tmp_path_factory.mktemp("tutorial") / "checkout"
    check_out(place)
    return place


def of_those_that_stayed_finite(line: str) -> str:
    """Leave out how many networks diverged: where gradients are never cleared, rounding decides it."""
    return re.sub(r", \d+ diverged$", "", line)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_the_ten_commands_print_what_the_tutorial_shows(checkout: Path, command_server: CommandServer) -> None:
    commands = typed_commands(ENGLISH)
    assert len(commands) == 10

    for typed in commands:
        printed = [of_those_that_stayed_finite(line) for line in type_in(typed, checkout, command_server)]
        assert matches(typed.shown, printed), f"{typed.command}\n" + "\n".join(printed)


def test_both_languages_type_the_same_and_show_the_same() -> None:
    assert typed_commands(CHINESE) == typed_commands(ENGLISH)


def indented_and_tabled(document: Path) -> list[list[str]]:
    """The numbers in each line of the commands on the reader's own images, and of the table."""
    text = document.read_text("utf-8")
    lines = [line for line in text.splitlines() if line.startswith(("    ", "| ")) and "```" not in line]
    return [re.findall(r"\d+(?:\.\d+)?|--[a-z-]+", line) for line in lines]


def test_the_figures_of_the_photographs_are_the_recorded_ones() -> None:
    def rows(text: str) -> list[list[str]]:
        table = [line.replace("*", "").strip("| ").split(" | ") for line in text.splitlines() if line[:2] == "| "]
        return [cells[1:] for cells in table if "%" in cells[-1]]

    assert rows(ENGLISH.read_text("utf-8")) == rows(RECORD.read_text("utf-8"))[:4]


def test_both_languages_have_the_same_figures_of_the_photographs() -> None:
    assert any("68.2" in line for line in indented_and_tabled(ENGLISH))
    assert indented_and_tabled(CHINESE) == indented_and_tabled(ENGLISH)

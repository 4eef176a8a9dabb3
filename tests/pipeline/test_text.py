"""Texts for people, against the lines that they must be."""

import csv
import sys
import tomllib

import pytest

from pipeline.text import (
    SCRIPT,
    align,
    command_line,
    csv_text,
    first_lines,
    printable,
    shorten,
    show_age,
    show_bytes,
    show_path,
    show_rate,
    titled_lines,
)
from tests.support.command_line import REPOSITORY


@pytest.mark.parametrize(("text", "shown"), [("a b", "a b"), ("a\nb", r"'a\nb'"), ("\udcff", r"'\udcff'")])
def test_a_text_cannot_forge_a_line(text: str, shown: str) -> None:
    assert printable(text) == show_path(text) == shown


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2 * 10**6, "2.0 MB"), (10**9, "1.0 GB")]
)
def test_a_size_has_its_unit(count: int, shown: str) -> None:
    assert show_bytes(count) == shown


@pytest.mark.parametrize(
    ("images", "seconds", "shown"),
    [(0, 1.0, ""), (1, 0.0, ""), (10, 2.0, ", 5 images/s"), (1, 4.0, ", 0.25 images/s")],
)
def test_a_rate_is_the_end_of_a_sentence(images: int, seconds: float, shown: str) -> None:
    assert show_rate(images, seconds) == shown


def test_a_long_list_names_the_first_and_counts_the_others() -> None:
    assert shorten(["a", "b"], 2) == "a, b"
    assert shorten(["a", "b", "c"], 2) == "a, b and 1 more"
    assert list(first_lines(["a", "b", "c"], 1, ": --json lists all")) == ["a", "and 2 more: --json lists all"]


def test_a_titled_list_of_nothing_has_no_lines() -> None:
    assert list(titled_lines("failed", [])) == []
    assert list(titled_lines("failed", ["a", "b"], 1)) == ["failed: 2", "  a", "  and 1 more (info --json shows all)"]


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    rows = [("class", "", "images"), ("a", "", "10"), ("b", "", "9")]
    assert align(rows) == ["class  images", "a          10", "b           9"]
    assert align(rows, left=(2,), gap=" ") == ["class images", "    a 10", "    b 9"]


@pytest.mark.parametrize(
    ("seconds", "age"),
    [(0, "just now"), (59, "just now"), (60, "1 minute"), (7_199, "1 hour"), (7_200, "2 hours"), (86_400, "1 day")],
)
def test_an_age_is_told_in_its_largest_unit(seconds: float, age: str) -> None:
    assert show_age(seconds) == age


def test_cells_with_any_line_break_come_back_from_csv() -> None:
    rows = [["a\rb", "c\nd"], ['"e", f', "\r\n"], ["", "g"]]

    text = csv_text(rows)

    assert text.endswith("\n,g\n")
    assert list(csv.reader(text.splitlines(keepends=True))) == rows


@pytest.mark.parametrize(
    ("started", "typed"),
    [
        ("/opt/venv/bin/modelnet", "modelnet"),
        ("cli.py", "python cli.py"),
        ("/opt/venv/bin/pytest", "python cli.py"),
        ("", "python cli.py"),
    ],
)
def test_messages_name_the_command_line_that_was_started(
    started: str, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started, "train"])
    assert command_line() == typed


def test_the_script_is_the_one_that_an_installation_makes() -> None:
    assert list(tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]) == [SCRIPT]

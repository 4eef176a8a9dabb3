"""The benchmarks' own arithmetic, and that they start; what they measure is not tested."""

import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmarks.tables import Table, compare
from benchmarks.timing import Measured, interleave, number

REPOSITORY = Path(__file__).resolve().parent.parent


def test_numbers_show_three_digits_that_matter() -> None:
    assert [number(value) for value in (0.0, 0.01234, 1.234, 78.94, 345.6, 12_345.6)] == [
        "0",
        "0.0123",
        "1.23",
        "78.9",
        "346",
        "12,300",
    ]


def test_a_ratio_compares_rounds_so_that_a_slow_machine_slows_both() -> None:
    ours, theirs = Measured((200.0, 20.0, 100.0)), Measured((100.0, 10.0, 50.0))

    assert ours.over(theirs) == 2.0


def test_every_measure_runs_once_a_round_and_warm_up_does_not_count() -> None:
    calls: list[str] = []

    def turn(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    measured = interleave({name: partial(turn, name) for name in "ab"}, rounds=3, warm_up=1)

    assert [set(calls[first : first + 2]) for first in (0, 2, 4, 6)] == [{"a", "b"}] * 4
    assert all(len(figures.values) == 3 and min(figures.values) > 2 for figures in measured.values())


def test_a_table_shows_medians_spread_and_ratios_to_the_best_of_some() -> None:
    column = {"ours": Measured((4.0, 8.0)), "slow": Measured((1.0, 1.0)), "fast": Measured((2.0, 4.0))}

    table = compare("Reading, images/s", {"batch 8": column}, {"× other": ("slow", "fast")})

    assert isinstance(table, Table)
    assert "| ours | 6.00 (4.00–8.00) | 2.00 |" in str(table)


def test_the_command_says_how_it_is_used() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--help"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )

    assert "a folder of photographs" in ended.stdout

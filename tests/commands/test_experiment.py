"""Run experiment as a person would: what it prints, and that the same command once more finds it done."""

import json
from pathlib import Path

import pytest

from tests.support.command_line import RunCli, one_line

TEXT = """
seeds = "0-2"
[common]
cache = "{cache}"
val-fraction = 0.5
epochs = 1
[slow]
lr = 0.01
[fast]
lr = 0.05
"""


@pytest.fixture
def file(cache_path: Path, tmp_path: Path) -> str:
    (tmp_path / "e.toml").write_text(TEXT.format(cache=cache_path))
    return "e.toml"


def test_an_experiment_ends_with_a_sentence_and_a_report(file: str, tmp_path: Path, run_cli: RunCli) -> None:
    ended = run_cli("experiment", file)

    assert ended.code == 0
    *_, sentence, report = ended.stdout.splitlines()
    assert sentence.startswith("fast (B) against slow (A): ") and report == "report: runs/e.html"
    assert "A  runs/e-slow-seed-0 ... e-slow-seed-2\nB  runs/e-fast-seed-0 ..." in ended.stdout
    page = (tmp_path / "runs/e.html").read_bytes()

    again = run_cli("experiment", file)
    assert (again.code, "epoch" in again.stdout, again.stdout.splitlines()[-2:]) == (0, False, [sentence, report])
    assert (tmp_path / "runs/e.html").read_bytes() == page
    as_json = run_cli("experiment", file, "--json")
    assert json.loads(as_json.stdout)["names"] == ["slow", "fast"]


def test_a_wrong_file_of_an_experiment_ends_in_one_line(tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "e.toml").write_text('seeds = "0-2"\n[common]\n[one]\n')
    ended = run_cli("experiment", "e.toml")

    assert ended.code == 2
    assert one_line(ended.stderr).startswith("error: the experiment cannot be used: e.toml: it has 1 side. Write a")


def test_a_split_beside_the_cache_is_not_passed_over(tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "c-split.csv").touch()
    (tmp_path / "e.toml").write_text(TEXT.format(cache="c.h5"))
    ended = run_cli("experiment", "e.toml")

    assert ended.code == 2 and "a split of this cache is there: give --split" in one_line(ended.stderr)

"""Looks at test images (looks.py): every one is noted, and the sentence counts them."""

import csv
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelnet.runs.folder import RunFolder
from modelnet.runs.looks import add_look, check_can_note, looks_path
from pipeline.errors import StorageError
from tests.support.made_runs import make_run


def test_looks_are_counted_whoever_looks_at_once(tmp_path: Path) -> None:
    split = tmp_path / "c-split.csv"
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda i: add_look(split, "compare", [Path(f"runs/a {i}"), Path("runs/b")]), range(16)))
    assert sorted(int(text.split()[1]) for text in said) == list(range(1, 17))
    with looks_path(split).open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert looks_path(split).name == "c-split.looks.csv"
    assert [line["command"] for line in lines] == ["compare"] * 16
    assert {line["runs"] for line in lines} == {f"'runs/a {i}' runs/b" for i in range(16)}
    assert all(line["time"].endswith("+00:00") for line in lines)


def test_a_look_that_cannot_be_noted_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    split = tmp_path / "c-split.csv"
    split.write_bytes(b"split")
    run = make_run("r", [0.5], split=split)
    config = RunFolder(run).read_config()
    RunFolder(run).write_config(config | {"split": {"sha256": hashlib.sha256(b"split").hexdigest()}})
    assert check_can_note(run) == split and [*tmp_path.glob("*.csv")] == [split]
    looks_path(split).mkdir()
    for note in (lambda: add_look(split, "evaluate", []), lambda: check_can_note(run)):
        with pytest.raises(StorageError, match=r"the look .* cannot be noted: .*Is a directory\. No result"):
            note()

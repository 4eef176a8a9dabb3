"""Looks at test images (looks.py): every one is noted, and the sentence counts them."""

import csv
import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modelnet.runs.folder import RunFolder
from modelnet.runs.looks import add_look, add_looks, check_can_note, looks_path
from pipeline.errors import StorageError
from tests.support.made_runs import make_run


def lines_of(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def test_looks_are_counted_whoever_looks_at_once(tmp_path: Path) -> None:
    split = tmp_path / "c-split.csv"
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(lambda i: add_look(split, "compare", [Path(f"runs/a {i}"), Path("runs/b")]), range(16)))
    assert sorted(int(text.split()[1]) for text in said) == list(range(1, 17))
    lines = lines_of(looks_path(split))
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


def test_one_split_is_looked_at_once_whatever_paths_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "else").mkdir()
    split, link, copy = tmp_path / "c-split.csv", tmp_path / "else" / "link.csv", tmp_path / "else" / "copy.csv"
    split.write_bytes(b"split")
    copy.write_bytes(b"split")
    link.symlink_to(split)
    runs: dict[Path, Path] = {}
    for path in (Path("c-split.csv"), split, link, Path("else/../c-split.csv"), copy):
        run = make_run(f"r{len(runs)}", [0.5], split=path)
        config = RunFolder(run).read_config()
        RunFolder(run).write_config(config | {"split": {"sha256": hashlib.sha256(b"split").hexdigest()}})
        runs[run] = check_can_note(run)

    said = [add_looks(runs, "compare"), [add_look(link, "evaluate", [])], add_looks(runs, "compare")]

    assert [[line.split(";")[0] for line in lines] for lines in said] == [
        ["look 1 at the test images of c-split.csv"],
        [f"look 2 at the test images of {link}"],
        ["look 3 at the test images of c-split.csv"],
    ]
    assert {path.name for path in tmp_path.rglob("*.looks.csv")} == {"c-split.looks.csv", "copy.looks.csv"}
    for table, count in ((looks_path(split), 3), (looks_path(copy), 2)):
        assert len(lines_of(table)) == count and lines_of(table)[-1]["runs"] == " ".join(map(str, runs))

"""split, as a person types it: the table on stdout, warnings on stderr, the file beside the cache."""

import csv
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from pipeline import build_cache
from pipeline.shards.build import build_shards
from tests.support.command_line import RunCli
from tests.support.photos import save_jpeg


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 pictures of 10 patients in two classes, two exact copies and five scaled ones, cached whole and in shards."""
    folder = tmp_path_factory.mktemp("split")
    photos = folder / "photos"
    for seed in range(60):
        save_jpeg(photos / str(1 + seed % 2) / f"p{seed % 10}_{seed}.jpg", 50, 40, seed)
    for seed in (0, 1):
        shutil.copy(photos / str(1 + seed) / f"p{seed}_{seed}.jpg", photos / str(2 - seed) / f"copy_{seed}.jpg")
    for seed in range(2, 7):
        image = Image.open(photos / str(1 + seed % 2) / f"p{seed % 10}_{seed}.jpg")
        image.resize((75, 60)).save(photos / "1" / f"scaled_{seed}.png")
    build_cache(photos, folder / "c.h5", size=16, workers=1)
    build_shards(photos, folder / "set.h5", 3, size=16, workers=1)
    return folder


def fold_of(path: Path) -> dict[str, str]:
    with path.open() as file:
        return {line["file"]: line["fold"] for line in csv.DictReader(file)}


def test_a_split_is_written_beside_the_cache_and_the_next_command_shown(folder: Path, run_cli: RunCli) -> None:
    done = run_cli("split", folder / "c.h5", "--folds", "3")
    assert done.code == 0
    lines = done.stdout.splitlines()
    assert lines[0].split() == [*("class", "fold", "0", "fold", "1", "fold", "2"), "test", "images"]
    assert lines[3].split()[0] == "all" and lines[3].split()[-1] == "67"
    assert lines[4].startswith("groups of several images: 2, the largest copies-") and lines[4].endswith(
        "63 images alone"
    )
    path = folder / "c-split.csv"
    assert lines[5:] == [
        f"split: {path}",
        f"Type: python cli.py train --cache {folder / 'c.h5'} --split {path} --fold all",
    ]
    spaced = run_cli("split", folder / "c.h5", "--out", "my split.csv", "--folds", "3")
    assert spaced.stdout.endswith("--split 'my split.csv' --fold all\n")
    folds = fold_of(path)
    assert [folds["p0_0.jpg"], folds["p1_1.jpg"]] == [folds["copy_0.jpg"], folds["copy_1.jpg"]]
    counted = Counter(folds.values())
    assert [str(counted[fold]) for fold in ("0", "1", "2", "test")] == lines[3].split()[1:-1]
    torn = sum(folds[f"p{n}_{n}.jpg"] != folds[f"scaled_{n}.png"] for n in range(2, 7))
    assert torn and f"warning: {2 * torn} images in {torn} set" in done.stderr

    before = path.read_bytes()
    again = run_cli("split", folder / "c.h5", "--seed", "1")
    assert again.code == 73
    assert "it is there already. --force replaces it" in again.stderr
    assert path.read_bytes() == before
    assert run_cli("split", folder / "c.h5", "--seed", "1", "--force").code == 0
    assert fold_of(path) != folds


def test_groups_of_all_kinds_join(folder: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "labels.csv").write_text("file,site\n" + "".join(f"p{n}_{n}.jpg,{n // 2}\n" for n in range(10)))
    options = ["--group-by", r"/(p\d)_", "--group-near", "--group", "labels.csv:site", "--folds", "2", "--test", "0"]
    done = run_cli("split", folder / "c.h5", "--out", "s.csv", *options)  # groups: five of two patients
    assert done.code == 0
    assert "57 images in no row of labels.csv" in done.stderr and "near copies" not in done.stderr
    folds = fold_of(tmp_path / "s.csv")
    assert set(folds.values()) == {"0", "1"}
    for first in range(0, 10, 2):
        pair = {fold for name, fold in folds.items() if name[:3] in (f"p{first}_", f"p{first + 1}_")}
        assert len(pair) == 1
    assert all(folds[f"scaled_{n}.png"] == folds[f"p{n}_{n}.jpg"] for n in range(2, 7))


def test_shards_have_the_split_of_a_whole_cache(folder: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for name in ("c", "set"):
        assert run_cli("split", folder / f"{name}.h5", "--out", f"{name}.csv", "--group-near").code == 0
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "set.csv").read_bytes()
    assert run_cli("split", folder / "set.h5").code == 0
    assert (folder / "set-split.csv").exists()
    alone = run_cli("split", folder / "set-00001-of-00003.h5", "--out", "alone.csv")
    assert alone.code == 2
    assert f"it is shard 1 of 3. Give all of them: {folder / 'set.h5'}" in alone.stderr


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--group", "labels.csv"], 2, "--group is FILE:COLUMN, as labels.csv:patient, not 'labels.csv'"),
        (["--group", "no.csv:patient"], 66, "no.csv: there is no such file"),
        (["--group-by", "zz"], 66, "'zz' is in none of their names"),
        (["--group-by", "("], 2, "'(' is no regular expression"),
        (["--group-by", "/"], 66, "has 67 of 67 images"),
        (["--folds", "80"], 66, "65 groups of images cannot fill 80 folds and a test set"),
        (["--folds", "1"], 2, "--folds"),
        (["--test", "1"], 2, "--test"),
        (["--test", "nan"], 2, "--test is a share from 0 to below 1, not nan"),
        (["--out", "c.h5"], 2, "--out is a .csv file, not c.h5"),
        (["--out", "no.csv/x.csv"], 73, "a part of its path is a file"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_written(
    options: list[str], code: int, words: str, folder: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    if "no.csv/x.csv" in options:
        (tmp_path / "no.csv").touch()
    there = sorted(tmp_path.iterdir())
    done = run_cli("split", folder / "c.h5", *(options if "--out" in options else [*options, "--out", "s.csv"]))
    assert (done.code, done.stdout) == (code, "")
    assert words in done.stderr and done.stderr.startswith("error: ")
    assert sorted(tmp_path.iterdir()) == there


def test_a_missing_column_is_answered_with_the_nearest(folder: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "labels.csv").write_text("file,patient\np0_0.jpg,7\n")
    done = run_cli("split", folder / "c.h5", "--out", "s.csv", "--group", "labels.csv:patients")
    assert done.code == 66
    assert "it has no column patients; the nearest is patient" in done.stderr


def test_classes_are_alike_with_stratify_and_a_word_says_what_it_costs(folder: Path, run_cli: RunCli) -> None:
    done = run_cli("split", folder / "c.h5", "--out", "s.csv", "--stratify", "--folds", "2", "--test", "0")
    assert done.code == 0
    rows = [list(map(int, line.split()[1:3])) for line in done.stdout.splitlines()[1:3]]
    assert all(abs(a - b) <= 2 for a, b in rows)
    assert "with --stratify, images that are added may move others to another fold" in done.stderr

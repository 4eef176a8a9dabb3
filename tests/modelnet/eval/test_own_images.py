"""The test images of a run (own_images.py), and the commands that look at them; comparisons read by load.py."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelnet import Trained, TrainOptions, compare_runs, train, train_many
from modelnet.data.split import split_by_folds
from modelnet.data.split_table import read_split
from modelnet.eval.own_images import count_tested
from pipeline import TensorCache, build_cache
from pipeline.errors import AccessDenied, OptionsError, RunError, StorageError
from tests.support.command_line import RunCli
from tests.support.splits import write_folds

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


@pytest.fixture
def split(cache_path: Path, tmp_path: Path) -> Path:
    """Two folds of two images, and two test images of each class."""
    return write_folds(TensorCache(cache_path), tmp_path / "split.csv", 2, 2)


def options_of(cache: Path, split: Path, fold: int | str | None, **more: Any) -> TrainOptions:
    values: dict[str, Any] = {"batch_size": 2, "epochs": 1, "threads": 1, "device": "cpu"}
    return TrainOptions(cache, split=split, fold=fold, **values | more)


def test_test_images_are_those_of_the_split(cache_path: Path, split: Path) -> None:
    run = train(options_of(cache_path, split, None)).run
    trained, cache = Trained.load(run), TensorCache(cache_path)
    rows = split_by_folds(cache, read_split(split), None).test.tolist()
    with pytest.raises(OptionsError, match=r"the run had no validation images\. Give a --cache, or --on test"):
        trained.evaluate()
    scores = trained.evaluate(test=True, keep=True)
    assert scores.images == len(rows) == count_tested(run, trained.options, cache) == 4
    whole = trained.evaluate(cache_path, keep=True).images
    assert whole == cache.num_images
    with (run / "evaluations" / "test.csv").open() as file:
        kept = list(csv.DictReader(file))
    assert [line["file"] for line in kept] == [cache.filenames[row] for row in rows]
    everything = {(p["class_id"], p["file"]): p["loss"] for p in read(run / "evaluations" / f"{cache_path.stem}.csv")}
    for line, own in zip(kept, trained.test(), strict=True):
        assert float(line["loss"]) == pytest.approx(float(everything[line["class_id"], line["file"]]), rel=1e-5)
        assert float(line["loss"]) == own.loss and int(line["correct"]) == own.correct


def read(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_the_networks_of_folds_answer_with_their_mean(cache_path: Path, split: Path) -> None:
    runs = train_many(options_of(cache_path, split, "all"), [0, 1, 2]).runs
    answers = {run: Trained.load(run).test(noted=True) for run in runs}
    of_all = train_many(options_of(cache_path, split, None, lr=0.1), [0, 1, 2]).runs
    others = {run: Trained.load(run).test(noted=True) for run in of_all}
    found = compare_runs([*runs, *others], answers | others)
    assert (found.images, found.kind, found.folds) == (4, "test", 1)
    right = [np.mean([[p.correct for p in answers[run]] for run in runs[seed::3]]) for seed in range(3)]
    assert found.sides[0].accuracies == pytest.approx(right)
    assert found.sides[1].count == 3 and found.differs["training images"][1].startswith("all folds of ")


def test_a_run_without_test_images_says_what_to_do(cache_path: Path, tmp_path: Path) -> None:
    plain = train(TrainOptions(cache_path, val_fraction=0.4, epochs=1, threads=1)).run
    with pytest.raises(OptionsError, match=r"no test images: .*: the run was trained without a split"):
        Trained.load(plain).test()
    untested = write_folds(TensorCache(cache_path), tmp_path / "none.csv", 2)
    run = train(options_of(cache_path, untested, 0)).run
    with pytest.raises(OptionsError, match=r"no test images: .*: its split keeps none"):
        Trained.load(run).test()


def test_every_command_that_opens_the_test_says_how_often(
    cache_path: Path, split: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    runs = [str(run) for run in train_many(options_of(cache_path, split, None, name="r"), [0, 1]).runs]
    first = run_cli("evaluate", runs[0], "--on", "test")
    assert first.code == 0 and "look 1 at the test images of " in first.stderr and "4 images: loss " in first.stdout
    second = run_cli("compare", *runs, "--on", "test")
    assert "4 test images, by the weights at the end" in second.stdout
    assert f"note: look 2 at the test images of {split}" in second.stdout
    third = run_cli("evaluate", runs[1], "--cache", cache_path)  # test images are among them
    assert "look 3 at the test images of " in third.stderr
    looks = read(tmp_path / "split.looks.csv")
    assert [(line["command"], line["runs"]) for line in looks] == [
        ("evaluate", runs[0]),
        ("compare", " ".join(runs)),
        ("evaluate", runs[1]),
    ]
    split.unlink()
    gone = run_cli("compare", *runs, "--on", "test", "--json")
    assert gone.code == RunError.exit_code and "the run's split is gone" in gone.stderr
    assert f"Copy {runs[0]}/split.csv there" in gone.stderr and len(read(tmp_path / "split.looks.csv")) == 3
    split.write_bytes((tmp_path / runs[0] / "split.csv").read_bytes())
    assert json.loads(run_cli("compare", *runs, "--on", "test", "--json").stdout)["kind"] == "test"


def test_from_python_each_look_is_noted_too(cache_path: Path, split: Path, tmp_path: Path) -> None:
    trained = Trained.load(train(options_of(cache_path, split, None, name="r")).run)
    trained.evaluate(test=True)
    trained.test()
    trained.evaluate(cache_path)
    looks = read(tmp_path / "split.looks.csv")
    assert [(line["command"], line["runs"]) for line in looks] == [
        ("evaluate", "runs/r"),
        ("test", "runs/r"),
        ("evaluate", "runs/r"),
    ]


def test_a_look_that_cannot_be_noted_shows_and_keeps_nothing(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (tmp_path / "data").mkdir()
    split = write_folds(TensorCache(cache_path), tmp_path / "data" / "split.csv", 2, 2)
    runs = [str(run) for run in train_many(options_of(cache_path, split, None, name="r"), [0, 1]).runs]
    (tmp_path / "data" / "split.looks.csv").mkdir()
    for words in (
        ("evaluate", runs[0], "--on", "test"),
        ("evaluate", runs[0], "--cache", cache_path),
        ("compare", *runs, "--on", "test"),
    ):
        ended = run_cli(*words)
        assert (ended.code, ended.stdout) == (StorageError.exit_code, "")
        assert ended.stderr.splitlines()[-1] == (
            f"error: the look at the test images cannot be noted: {split.with_name('split.looks.csv')}: "
            "Is a directory. No result is shown without it: make the folder of the split writable"
        )
    assert not (tmp_path / runs[0] / "evaluations").exists()


def test_a_split_on_a_disk_that_is_read_only_gets_no_look(cache_path: Path, tmp_path: Path, unprivileged: None) -> None:
    (tmp_path / "data").mkdir()
    split = write_folds(TensorCache(cache_path), tmp_path / "data" / "split.csv", 2, 2)
    trained = Trained.load(train(options_of(cache_path, split, None)).run)
    split.parent.chmod(0o500)
    try:
        with pytest.raises(AccessDenied, match=r"the look at the test images cannot be noted: .*make the folder"):
            trained.evaluate(test=True, keep=True)
    finally:
        split.parent.chmod(0o700)
    assert [*split.parent.iterdir()] == [split]
    looks = split.with_name("split.looks.csv")
    looks.touch(0o400)  # the folder may be written, and this table not: that shows only when the look is noted
    with pytest.raises(AccessDenied, match=r"the look at the test images cannot be noted: .*make the folder"):
        trained.evaluate(test=True, keep=True)
    assert not (trained.run / "evaluations").exists() and looks.read_bytes() == b""


def test_advice_on_the_cache_of_test_images_can_be_followed(
    cache_path: Path, photos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    own = tmp_path / "own.h5"
    own.write_bytes(cache_path.read_bytes())
    split = write_folds(TensorCache(own), tmp_path / "split.csv", 2, 2)
    runs = [str(run) for run in train_many(options_of(own, split, 0), [0, 1]).runs]
    build_cache(photos, own, size=32, workers=1, rebuild=True)
    for words in (("evaluate", runs[0], "--on", "test"), ("compare", *runs, "--on", "test")):
        stderr = run_cli(*words).stderr
        assert stderr.endswith("trained on. Build it as it was\n")
    assert "or give --cache to evaluate on another, whole" in run_cli("evaluate", runs[0]).stderr
    own.unlink()
    for words in (("evaluate", runs[0], "--on", "test"), ("compare", *runs, "--on", "test")):
        stderr = run_cli(*words).stderr
        assert "the run's cache is gone" in stderr and "give --cache" not in stderr
    assert "or give --cache to evaluate on another, whole" in run_cli("evaluate", runs[0]).stderr
    assert not (tmp_path / "split.looks.csv").exists()

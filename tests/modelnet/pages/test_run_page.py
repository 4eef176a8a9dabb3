"""The page of what a network looks at: heat maps beside mistakes, a map of images, and what networks have neither."""

import csv
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import modelnet.pages.run_page as run_page
from cli import cli
from modelnet import Trained, TrainOptions, show_run, train
from modelnet.pages.run_page import overlay
from modelnet.runs.folder import RunFolder
from modelnet.runs.looks import looks_path
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache, build_cache
from pipeline.build.features import write_features
from pipeline.errors import CacheStale
from pipeline.format.features import Features
from tests.support.listener import Listener
from tests.support.parsed_page import ParsedPage
from tests.support.photos import make_hostile_photos, save_jpeg
from tests.support.splits import write_folds

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")
OPTIONS: Any = {"epochs": 1, "device": "cpu", "threads": 1}


def test_mistakes_have_heat_maps_and_images_their_place(tmp_path: Path) -> None:
    build_cache(make_hostile_photos(tmp_path / "photos"), "c.h5", size=64, workers=1)
    run = train(TrainOptions(Path("c.h5"), val=Path("c.h5"), crop_size=60, **OPTIONS)).run
    wrong = sum(not one.correct for one in RunFolder(run).read_predictions())
    page = ParsedPage(show_run(run))
    page.check_safe()
    assert wrong > 0 and len(page.all("img")) == 3 * min(wrong, 12)
    assert len(page.all("image")) == TensorCache(Path("c.h5")).num_images
    assert f"12 images, {12 - wrong} of them predicted rightly" in page.text
    assert "<script>alert(1)<" in page.text and repr("\u202egpj.exe.jpg") in page.text
    assert page.text.count(", taken for") >= 2 * min(wrong, 12)  # in the gallery and on the map
    unvalidated = train(TrainOptions(Path("c.h5"), **OPTIONS)).run
    ended = CliRunner().invoke(cli, ["show", str(unvalidated), "--device", "cpu"])
    assert ended.stdout == f"page: {unvalidated}/show.html\n"
    assert "the map shows training images, and no mistakes" in (unvalidated / "show.html").read_text()
    assert "show takes one RUN" in CliRunner().invoke(cli, ["show", str(run), str(run)]).stderr
    assert "--lr is for --batch" in CliRunner().invoke(cli, ["show", str(run), "--lr", "1"]).stderr
    save_jpeg(tmp_path / "photos" / "new" / "new.jpg", 70, 70, 99)
    build_cache(tmp_path / "photos", "c.h5", size=64, workers=1)
    with pytest.raises(CacheStale, match="the cache has changed"):
        show_run(run)


def test_a_linear_network_on_features_has_a_map_and_no_heat_maps(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    features = Features("resnet18", "", 512, "a" * 64, cache.fingerprint, "float32", "contiguous")
    noise = np.random.default_rng(0).standard_normal((8, 512)).astype(np.float32)
    write_features(cache.reader, Path("f.h5"), features, lambda first, end: noise[first:end])
    run = train(TrainOptions(Path("f.h5"), val=Path("f.h5"), model="linear", lr=1e-9, **OPTIONS)).run
    page = ParsedPage(show_run(run))
    assert "No heat maps: linear takes features, and no images." in page.text
    assert len(page.all("circle")) == 8 and page.all("img") == [] and page.all("image") == []


def test_a_network_without_a_map_shows_its_mistakes_alone(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(TrainOptions(cache_path, val=cache_path, **OPTIONS)).run
    monkeypatch.setattr("modelnet.eval.heat_maps.FEWEST", 99)
    monkeypatch.setattr(run_page, "POINTS", 5)
    page = ParsedPage(show_run(run))
    assert "No heat maps: no layer has a map of 99 × 99 positions or more." in page.text
    assert len(page.all("image")) == 5 and 0 < len(page.all("img")) <= 8


def test_a_heat_map_is_laid_over_a_grey_picture() -> None:
    pixels = np.full((3, 4, 4), 100, np.uint8)
    pixels[0] = 130
    map_HW = np.zeros((4, 4), np.float32)
    map_HW[0, 0] = 1
    heated = overlay(pixels, map_HW)
    assert (heated[:, 1:] == 110).all()
    assert heated[0, 0, 0] > 200 > heated[2, 0, 0] and torch.from_numpy(heated).dtype == torch.uint8


def test_the_weights_are_those_that_were_asked_for(cache_path: Path) -> None:
    run = train(TrainOptions(cache_path, val=cache_path, **OPTIONS)).run
    picked = Trained.load(run, "best", "cpu")
    assert f"The weights are those of epoch {picked.picked}" in ParsedPage(show_run(run, "best", "cpu")).text


def points_of(page: bytes) -> list[str]:
    """Return what the map says of its images, in the order of their names: "a.jpg: ant, taken for bee"."""
    return sorted(re.findall("<title>(.*?)</title>", page.decode())[1:])


def answers_of(run: Path) -> list[str]:
    """Return the same from predictions.csv."""
    lines = RunFolder(run).read_predictions()
    taken = ["" if line.correct else f", taken for {line.predicted}" for line in lines]
    return sorted(f"{line.file}: {line.label or line.class_id}{said}" for line, said in zip(lines, taken, strict=True))


def mistakes_of(page: bytes) -> list[str]:
    """Return what the pictures of mistakes are called: "a.jpg: ant, taken for bee"."""
    return sorted(one["alt"] for one in ParsedPage(page).all("img") if "taken for" in one["alt"])


@pytest.mark.parametrize("labels", [["oar", "snake"], ["1", "2"]])
def test_true_classes_are_those_of_the_table_of_labels(cache_path: Path, labels: list[str]) -> None:
    cache = TensorCache(cache_path)
    keys = [f"{cache.class_ids[int(cache.labels[row])]}/{name}" for row, name in enumerate(cache.filenames)]
    rows = [f"{key},{labels[row % 2]}\n" for row, key in enumerate(keys[1:])]  # the first image has no label
    Path("t.csv").write_text("".join(["file,label\n", *rows]))
    options = TrainOptions(cache_path, val=cache_path, labels=Path("t.csv"), **OPTIONS)
    run = train(options).run
    page = show_run(run)
    assert points_of(page) == answers_of(run) and len(rows) == len(points_of(page))
    assert mistakes_of(page) == [line for line in answers_of(run) if "taken" in line] != []
    unvalidated = train(replace(options, val=None)).run
    assert [text.split(",")[0] for text in points_of(show_run(unvalidated))] == [
        text.split(",")[0] for text in answers_of(run)
    ]


def test_a_run_of_a_split_shows_its_fold_and_never_the_test(cache_path: Path) -> None:
    split = write_folds(TensorCache(cache_path), Path("split.csv"), 2, 2)
    with split.open() as file:
        of = {line["sha256"]: (f"{line['file']}: {line['class']}", line["fold"]) for line in csv.DictReader(file)}
    for fold, shown in ((None, {"0", "1"}), (1, {"1"})):
        run = train(TrainOptions(cache_path, split=split, fold=fold, **OPTIONS)).run
        page = show_run(run)
        assert sorted(text.split(",")[0] for text in points_of(page)) == sorted(
            name for name, kept in of.values() if kept in shown
        )
        assert ("the map shows training images" in page.decode()) == (fold is None)
    assert not looks_path(split).exists()


def test_the_page_of_a_run_with_cached_features_shows_its_images(cache_path: Path, weights: Path) -> None:
    more: Any = {"model": "shufflenet_v2_x0_5", "weights": weights, "freeze": "all-but-head", "val": cache_path}
    run = train(TrainOptions(cache_path, lr=1e-9, **more, **OPTIONS)).run
    page = ParsedPage(show_run(run))
    assert RunFolder(run).read_config()["features"]["length"] == 1024
    assert points_of(page.bytes) == answers_of(run) and len(page.all("image")) == 8


def test_a_run_that_was_stopped_shows_the_weights_that_it_has(cache_path: Path) -> None:
    stop = Stop()
    run = train(TrainOptions(cache_path, val=cache_path, **OPTIONS | {"epochs": 3}), Listener(stop, 1), stop).run
    page = show_run(run)
    assert RunFolder(run).read_predictions() == []
    assert "The run has not come to its end: these are its weights so far." in page.decode()
    assert mistakes_of(page) == [text for text in points_of(page) if "taken for" in text] != []


def test_mistakes_are_those_of_the_weights_that_were_asked_for(cache_path: Path) -> None:
    runs = [train(TrainOptions(cache_path, val=cache_path, seed=seed, lr=1e-9, **OPTIONS)).run for seed in range(6)]
    run, other = next((runs[0], other) for other in runs if answers_of(other) != answers_of(runs[0]))
    shutil.copy(other / "checkpoints/best.pt", run / "checkpoints/best.pt")
    for checkpoint, answers in (("last", answers_of(run)), ("best", answers_of(other))):
        page = show_run(run, checkpoint)
        assert points_of(page) == answers
        assert mistakes_of(page) == [text for text in answers if "taken for" in text]


def test_no_mistake_is_100_percent_sure(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train(TrainOptions(cache_path, val=cache_path, lr=1e-9, **OPTIONS)).run
    certain = [answer._replace(p_predicted=0.9999) for answer in RunFolder(run).read_predictions()]
    monkeypatch.setattr("modelnet.pages.run_page._answers", lambda *_: certain)
    text = ParsedPage(show_run(run)).text
    assert "over 99% sure" in text and "100" not in text.partition("Map of the last layer")[0]


def test_names_of_classes_that_fill_a_page_are_cut(tmp_path: Path) -> None:
    names = ("a" * 200, "b" * 50)
    for seed, name in enumerate(names * 2):
        save_jpeg(tmp_path / "photos" / name / f"{seed}.jpg", 60, 60, seed)
    build_cache(tmp_path / "photos", "c.h5", size=64, workers=1)
    page = ParsedPage(show_run(train(TrainOptions(Path("c.h5"), val=Path("c.h5"), lr=1e-9, **OPTIONS)).run))
    assert {"a" * 59 + "…", names[1]} <= set(page.words) and names[0] not in page.words
    assert {one["title"].removeprefix("for ") for one in page.all("bdi") if "title" in one} == {names[0]}

"""Training and validation from one cache: the side of an image follows from its content."""

import csv
import hashlib
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from modelnet import TrainOptions, resume, train
from modelnet.data.split import Split, split_by_content, split_note, split_warnings
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache, build_cache
from pipeline.errors import OptionsError
from tests.support.listener import Listener
from tests.support.photos import save_jpeg

SIDES = [("train", "val"), ("val", "train")]
OPTIONS = TrainOptions(Path("c.h5"), val_fraction=0.5)

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 small pictures, 12 a class."""
    folder = tmp_path_factory.mktemp("many") / "photos"
    for seed in range(24):
        save_jpeg(folder / str(1 + seed % 2) / f"{seed}.jpg", 70, 60, seed)
    return folder


@pytest.fixture(scope="module")
def many_cache(many: Path) -> Path:
    path = many.parent / "many.h5"
    build_cache(many, path, size=64, workers=1)
    return path


def kept(cache: TensorCache, fraction: float) -> set[str]:
    """Name the files that are kept for validation."""
    return {cache.filenames[row] for row in split_by_content(cache, fraction).val.tolist()}


def test_the_first_bits_of_the_content_decide(many: Path, many_cache: Path) -> None:
    cache = TensorCache(many_cache)
    for fraction in (0.1, 0.2, 0.5):
        expected = {
            path.name
            for path in many.rglob("*.jpg")
            if int(hashlib.sha256(path.read_bytes()).hexdigest()[:16], 16) < fraction * 2**64
        }
        assert kept(cache, fraction) == expected
        split = split_by_content(cache, fraction)
        assert sorted(torch.cat([split.train, split.val]).tolist()) == list(range(24))
    assert kept(cache, 0.2) < kept(cache, 0.5)


def test_a_set_that_grows_moves_no_image_and_copies_stay_together(many: Path, many_cache: Path, tmp_path: Path) -> None:
    before = kept(TensorCache(many_cache), 0.3)
    grown = tmp_path / "grown"
    shutil.copytree(many, grown)
    for seed in range(24):
        shutil.copy(many / str(1 + seed % 2) / f"{seed}.jpg", grown / "2" / f"copy-{seed}.jpg")
    save_jpeg(grown / "3" / "new.jpg", 70, 60, seed=99)
    build_cache(grown, tmp_path / "grown.h5", size=64, workers=1)
    after = kept(TensorCache(tmp_path / "grown.h5"), 0.3) - {"new.jpg"}
    assert after == before | {f"copy-{name}" for name in before}


def test_a_class_missing_on_a_side_is_named_and_an_empty_side_refused(cache_path: Path, many_cache: Path) -> None:
    cache = TensorCache(many_cache)
    every = torch.arange(24)
    split = split_by_content(cache, 0.5)
    assert split_warnings(cache, split, OPTIONS) == []
    first = split._replace(val=every[:12], train=every)
    assert split_warnings(cache, first, OPTIONS) == ["--val-fraction leaves no images of class 2 to validate on"]
    alone = split._replace(val=every[:0], train=every[:12])
    for fold, what in ((None, "--split s.csv"), (2, "fold 2")):
        options = TrainOptions(many_cache, split=Path("s.csv"), fold=fold)
        assert split_warnings(cache, alone, options) == [f"{what} leaves no images of class 2 to train on"]
    with pytest.raises(OptionsError, match="none of its 8 images is kept for validation") as caught:
        split_by_content(TensorCache(cache_path), 1e-9)
    assert caught.value.exit_code == 2
    with pytest.raises(OptionsError, match="fewer than 2 classes are left to train on"):
        split_by_content(TensorCache(cache_path), 1 - 1e-9)


def test_training_on_a_part_is_training_on_a_cache_of_that_part(
    many: Path, many_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    val_names = kept(TensorCache(many_cache), 0.4)
    for path in many.rglob("*.jpg"):
        place = tmp_path / ("v" if path.name in val_names else "t") / path.parent.name / path.name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    for part in ("t", "v"):
        build_cache(tmp_path / part, tmp_path / f"{part}.h5", size=64, workers=1)

    heard = Listener()
    split = train(TrainOptions(many_cache, val_fraction=0.4, batch_size=4, epochs=3), heard)
    apart = train(TrainOptions(tmp_path / "t.h5", val=tmp_path / "v.h5", batch_size=4, epochs=3))

    assert [row.train_loss for row in split.rows] == [row.train_loss for row in apart.rows]
    assert [row.val_loss for row in split.rows] == [row.val_loss for row in apart.rows]
    assert (split.run / "predictions.csv").read_bytes() == (apart.run / "predictions.csv").read_bytes()
    assert f"{len(val_names)} of 24 images are kept for validation, by their content" in heard.notes
    odd = sum(int(Path(name).stem) % 2 for name in val_names)  # seeds of class 2
    assert f"kept of each class: 1: {len(val_names) - odd} of 12, 2: {odd} of 12" in heard.notes
    with (split.run / "split.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {line["file"] for line in lines if line["fold"] == "val"} == val_names
    assert all(
        line["sha256"] == hashlib.sha256((many / line["class"] / line["file"]).read_bytes()).hexdigest()
        for line in lines
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_a_part_resumes_to_the_same_bits(
    workers: int, many_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = TrainOptions(many_cache, val_fraction=0.4, batch_size=3, epochs=2, workers=workers)
    whole = train(options).run
    stop = Stop()
    cut = train(options, Listener(stop, 2), stop).run
    resume(cut)
    for name in ("predictions.csv", "config.json", "split.csv"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
    weights = [torch.load(run / "checkpoints/last.pt", weights_only=True)["weights"] for run in (whole, cut)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_images_of_the_same_pixels_are_on_one_side(tmp_path: Path) -> None:
    for seed in range(12):
        folder = tmp_path / "photos" / str(seed % 2)
        save_jpeg(folder / f"{seed}.jpg", 70, 60, seed)
        Image.open(folder / f"{seed}.jpg").save(folder / f"{seed}.png")
    build_cache(tmp_path / "photos", tmp_path / "c.h5", size=64, workers=1)
    cache = TensorCache(tmp_path / "c.h5")
    for fraction in (0.2, 0.4):
        split = split_by_content(cache, fraction)
        train, val = ({Path(cache.filenames[row]).stem for row in rows.tolist()} for rows in (split.train, split.val))
        assert train and val and not train & val


def test_the_fraction_holds_where_files_of_the_same_pixels_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    digests = [hashlib.sha256(str(number).encode()).digest() for number in range(2000)]
    cache: Any = SimpleNamespace(
        source_sha256=np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32),
        reader=None,
        labels=torch.arange(2000) % 2,
        class_ids=[1, 2],
    )
    monkeypatch.setattr("modelnet.data.split.equal_pixels", lambda reader: np.arange(2000) % 500)

    smaller, larger = (set(split_by_content(cache, fraction).val.tolist()) for fraction in (0.2, 0.4))

    assert 320 < len(smaller) < 480 and 680 < len(larger) < 920 and smaller < larger


def test_near_copies_on_both_sides_of_a_split_are_counted(tmp_path: Path) -> None:
    """Case 53, with --val-fraction: copies stay together, near copies need not."""
    for seed in range(12):
        folder = tmp_path / "photos" / str(seed % 2)
        save_jpeg(folder / f"{seed}.jpg", 70, 60, seed)
        Image.open(folder / f"{seed}.jpg").save(folder / f"{seed}-again.jpg", quality=80)
    build_cache(tmp_path / "photos", tmp_path / "c.h5", size=64, workers=1)
    cache = TensorCache(tmp_path / "c.h5")
    split = split_by_content(cache, 0.5)
    names = {
        side: {cache.filenames[row] for row in rows.tolist()}
        for side, rows in (("train", split.train), ("val", split.val))
    }
    torn = sum(f"{seed}.jpg" in names[a] and f"{seed}-again.jpg" in names[b] for seed in range(12) for a, b in SIDES)

    assert 0 < torn < 12
    assert split_warnings(cache, split, OPTIONS) == [
        f"{torn} of {len(split.val)} validation images are near copies of training images "
        "(scaled or compressed again): validation will look better than it is"
    ]


def test_notes_of_large_splits_have_separators_of_thousands() -> None:
    cache: Any = SimpleNamespace(labels=torch.zeros(12_345, dtype=torch.int64))
    split = Split(torch.arange(9_000), torch.arange(2_345), torch.arange(1_000))
    by_content, by_fold = TrainOptions(Path("c"), val_fraction=0.2), TrainOptions(Path("c"), split=Path("s"), fold=1)
    kept = "2,345 of 12,345 images are kept for validation"
    assert split_note(cache, split, by_content) == f"{kept}, by their content"
    assert split_note(cache, split, by_fold) == f"{kept}: fold 1; 1,000 test images are not used"

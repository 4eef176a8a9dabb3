"""The images that runs got wrong, and their pictures."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from modelnet.options import TrainOptions
from modelnet.pages.mistakes import ImageKey, Mistake, find_mistakes, read_pictures, thumbnail
from modelnet.runs.tables import Prediction
from pipeline import TensorCache, build_cache
from pipeline.format.header import IMAGES_OFFSET
from pipeline.recipe import Recipe
from tests.support.photos import save_jpeg


def said(class_id: str, file: str, predicted: str, p: float, p_true: float) -> Prediction:
    return Prediction(class_id, file, "", predicted, class_id == predicted, p, p_true, 0.0)


def test_mistakes_of_most_runs_come_first_and_of_these_the_surest() -> None:
    first = [said("1", "a", "2", 0.6, 0.4), said("1", "b", "1", 0.9, 0.9), said("2", "a", "1", 0.75, 0.25)]
    second = [said("1", "a", "3", 0.8, 0.2), said("1", "b", "2", 0.99, 0.01), said("2", "a", "2", 0.7, 0.7)]
    third = [said("1", "a", "3", 0.7, 0.3), said("1", "b", "1", 0.9, 0.9), said("2", "a", "2", 0.7, 0.7)]

    mistakes = find_mistakes([first, second, third])

    assert mistakes[0].p_predicted == pytest.approx(0.7) and mistakes[0].p_true == pytest.approx(0.3)
    assert [replace(mistakes[0], p_predicted=0.7, p_true=0.3), *mistakes[1:]] == [
        Mistake(ImageKey("1", "a"), "3", 3, 0.7, 0.3, 3),
        Mistake(ImageKey("1", "b"), "2", 1, 0.99, 0.01, 3),
        Mistake(ImageKey("2", "a"), "1", 1, 0.75, 0.25, 3),
    ]


@pytest.mark.parametrize("recipe", [Recipe(64), Recipe(500, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))])
def test_a_thumbnail_looks_like_the_image_that_was_normalized(recipe: Recipe) -> None:
    whole = recipe.size[0]
    ramp = np.linspace(0, 255, whole).astype(np.uint8)
    pixels_HWC = np.stack([np.tile(ramp, (whole, 1)), np.tile(ramp[:, None], whole), np.full((whole,) * 2, 40)], 2)
    normalized = (
        torch.tensor(pixels_HWC / 255).permute(2, 0, 1).float() - torch.tensor(recipe.mean).view(3, 1, 1)
    ) / torch.tensor(recipe.std).view(3, 1, 1)

    shown = Image.open(io.BytesIO(thumbnail(normalized, recipe)))

    side = min(whole, 448)
    assert shown.size == (side, side)
    expected = Image.fromarray(pixels_HWC.astype(np.uint8)).resize((side, side))
    assert np.abs(np.asarray(shown, float) - np.asarray(expected, float)).mean() < 3


def test_pictures_come_from_the_cache_of_the_run_or_the_page_says_why(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    build_cache(photos, path, size=64, workers=1)
    fingerprint = TensorCache(path).fingerprint
    options, run = TrainOptions(tmp_path / "other.h5", val=path), tmp_path / "runs" / "r"
    both = [ImageKey(class_id, "n03874293_775.JPEG") for class_id in ("1", "2")]

    pictures = read_pictures(run, options, fingerprint, [*both, ImageKey("1", "nowhere.jpg")])
    assert set(pictures.jpegs) == set(both) and pictures.missing == ""
    for key in both:  # a name that both classes have: each its own picture
        with Image.open(photos / key.class_id / key.file) as image:
            expected = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR), float)
        assert np.abs(np.asarray(Image.open(io.BytesIO(pictures.jpegs[key])), float) - expected).mean() < 6

    save_jpeg(photos / "1" / "new.jpg", 80, 80, seed=50)
    build_cache(photos, path, size=64, workers=1)
    assert read_pictures(run, options, fingerprint, both).missing == f"{path} has changed since the run"
    path.unlink()
    gone = read_pictures(run, options, fingerprint, both)
    assert gone.jpegs == {} and gone.missing.startswith(f"the run's cache is gone: {path}: ")


def test_a_damaged_image_leaves_the_other_pictures_alone(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    build_cache(photos, path, size=64, workers=1)
    cache = TensorCache(path)
    start = IMAGES_OFFSET
    with path.open("r+b") as file:
        file.seek(start + 100)
        file.write(b"damage")
    keys = [ImageKey(str(cache.class_ids[int(cache.labels[row])]), cache.filenames[row]) for row in range(8)]

    pictures = read_pictures(tmp_path / "runs" / "r", TrainOptions(path), cache.fingerprint, keys)

    assert set(pictures.jpegs) == set(keys[1:])
    assert "is not as it was written" in pictures.missing

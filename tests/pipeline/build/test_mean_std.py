"""Builds that normalize by the mean and std of their own pixels (`build`, `partial`, `pixel_sums`)."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from pipeline.build import build
from pipeline.build.build import build_cache
from pipeline.errors import OutputError, SourceError
from pipeline.format.reader import CacheReader
from pipeline.recipe import Recipe
from pipeline.source.manifest import Manifest
from pipeline.source.scan import scan_source
from tests.support.builds import InThisProcess, names_in
from tests.support.photos import save_jpeg, textured

AUTO: dict[str, Any] = {"size": 32, "mean_std": "auto", "executor": InThisProcess()}


def fitted(path: Path, fit: str) -> Any:
    """Return the (N, 3) pixels of an image in the recipe's size, without pads, by Pillow alone."""
    image = Image.open(path).convert("RGB")
    if fit == "pad":
        image = ImageOps.contain(image, (32, 32), Image.Resampling.BILINEAR)
    elif fit == "crop":
        scale = 36 / min(image.size)
        side = {s: 36 if s == min(image.size) else int(s * scale) for s in image.size}
        image = image.resize((side[image.width], side[image.height]), Image.Resampling.BILINEAR)
        left, top = round((image.width - 32) / 2), round((image.height - 32) / 2)
        image = image.crop((left, top, left + 32, top + 32))
    else:
        image = image.resize((32, 32), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float64).reshape(-1, 3) / 255


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_mean_and_std_are_those_of_the_fitted_pixels(fit: Any, dtype: Any, photos: Path, tmp_path: Path) -> None:
    build_cache(photos, tmp_path / "c.h5", fit=fit, dtype=dtype, **AUTO)

    recipe = CacheReader(tmp_path / "c.h5").recipe
    pixels = np.concatenate([fitted(path, fit) for path in sorted(photos.rglob("*.JPEG"))])
    np.testing.assert_allclose(recipe.mean, pixels.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(recipe.std, pixels.std(axis=0), rtol=1e-12)
    assert (recipe.dtype, recipe.pad_color) == (dtype, (128, 128, 128) if fit == "pad" else None)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_the_file_is_that_of_a_build_with_these_numbers(dtype: Any, photos: Path, tmp_path: Path) -> None:
    (photos / "1" / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "out"

    report = build_cache(photos, out / "auto.h5", dtype=dtype, workers=2, size=32, mean_std="auto")

    recipe = CacheReader(out / "auto.h5").recipe
    build_cache(photos, tmp_path / "typed.h5", size=32, dtype=dtype, mean=recipe.mean, std=recipe.std)
    assert (out / "auto.h5").read_bytes() == (tmp_path / "typed.h5").read_bytes()
    assert (report.decoded, report.copied, len(report.failed), report.why) == (8, 0, 1, "")
    assert report.inherited.startswith("mean and std of the pixels: 0.")
    assert names_in(out) == {"auto.h5", "auto.h5.lock", "auto.h5.stat"}


@pytest.mark.parametrize("stop", [3, 8, 11, 16])
@pytest.mark.parametrize("fit", ["squash", "pad"])
def test_a_build_that_was_stopped_goes_on_to_the_same_bytes(stop: int, fit: Any, photos: Path, tmp_path: Path) -> None:
    calls = 0

    def stopping(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > stop / 2:
            raise RuntimeError("stopped")

    build_cache(photos, tmp_path / "whole.h5", fit=fit, **AUTO)
    with pytest.raises(RuntimeError):
        build_cache(photos, tmp_path / "c.h5", fit=fit, progress=stopping, workers=1, **AUTO)

    report = build_cache(photos, tmp_path / "c.h5", fit=fit, **AUTO)

    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert report.decoded < 8 and report.cached == 8


def test_later_builds_keep_the_numbers_until_a_rebuild(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "c.h5"
    build_cache(photos, path, **AUTO)
    before = CacheReader(path).recipe
    textured(50, 40, 77).save(photos / "2" / "new.png")

    assert build_cache(photos, path, executor=InThisProcess()).decoded == 1
    assert CacheReader(path).recipe == before
    again = build_cache(photos, path, **AUTO)
    assert again.up_to_date and "mean and std stay as in the cache that is there" in again.inherited
    report = build_cache(photos, path, rebuild=True, **AUTO)
    assert CacheReader(path).recipe != before
    assert (report.why, report.decoded) == ("a rebuild was asked for", 9)


def test_pixels_of_one_value_have_no_std(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), (5, 6, 7)).save(tmp_path / "photos" / name / "x.png")

    with pytest.raises(SourceError, match=r"no std of the pixels: .*the same value\. Give --mean and --std"):
        build_cache(tmp_path / "photos", tmp_path / "c.h5", **AUTO)


def test_a_path_that_cannot_become_a_cache_is_refused_first(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "c.h5").mkdir()

    with pytest.raises(OutputError, match="there is a folder of that name"):
        build_cache(photos, tmp_path / "c.h5", **AUTO)
    assert names_in(tmp_path) == {"c.h5", "photos"}


@pytest.mark.parametrize("options", [{"mean": (0.5, 0.5, 0.5)}, {"std": (1, 1, 1)}, {"mean_std": "no"}])
def test_mean_and_std_beside_auto_are_refused(options: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mean_std is None, or 'auto' without mean and std beside it"):
        build_cache(photos, tmp_path / "c.h5", **AUTO | options)


def test_a_cache_of_pixels_is_no_image_of_its_source(photos: Path) -> None:
    (photos / "c.h5.pixels").write_bytes(b"")
    (photos / "c.h5.pixels.journal").write_bytes(b"")

    assert not scan_source(photos, photos / "c.h5").left_out
    assert Recipe(fit="pad").pad_color == (128, 128, 128)


def stop_in_the_second_stage(photos: Path, path: Path, **options: Any) -> None:
    """Build until the pixels are cached and the first rows of float32 are derived from them."""

    def stopping(done: int, total: int) -> None:
        if path.with_name("c.h5.building").exists():
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        build_cache(photos, path, progress=stopping, **AUTO | options)
    assert path.with_name("c.h5.pixels").exists()


def test_a_source_that_changed_meanwhile_is_computed_anew(photos: Path, tmp_path: Path) -> None:
    stop_in_the_second_stage(photos, tmp_path / "c.h5")
    textured(50, 40, 77).save(photos / "2" / "new.png")

    build_cache(photos, tmp_path / "c.h5", **AUTO)

    build_cache(photos, tmp_path / "whole.h5", **AUTO)
    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


@pytest.mark.parametrize("change", [{"size": 24}, {"fit": "crop"}, {"interpolation": "box"}])
def test_pixels_of_another_recipe_are_decoded_anew(change: dict[str, Any], photos: Path, tmp_path: Path) -> None:
    stop_in_the_second_stage(photos, tmp_path / "c.h5")

    report = build_cache(photos, tmp_path / "c.h5", **AUTO | change)

    build_cache(photos, tmp_path / "whole.h5", **AUTO | change)
    assert (tmp_path / "c.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert report.decoded == 8


@pytest.mark.parametrize("rebuild", [False, True])
def test_pixels_of_the_same_recipe_are_not_decoded_again(rebuild: bool, photos: Path, tmp_path: Path) -> None:
    stop_in_the_second_stage(photos, tmp_path / "c.h5", rebuild=rebuild)

    assert build_cache(photos, tmp_path / "c.h5", rebuild=rebuild, **AUTO).decoded == 0


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("there", ["a cache", "a file"])
def test_what_came_there_meanwhile_is_not_replaced(
    there: str, dtype: Any, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "c.h5"
    for seed in range(3):
        save_jpeg(tmp_path / "others" / "1" / f"{seed}.jpg", 50, 50, 100 + seed)
    build_cache(tmp_path / "others", tmp_path / "other.h5", size=32, executor=InThisProcess())
    published = (tmp_path / "other.h5").read_bytes() if there == "a cache" else b"somebody's"

    def scan_and_publish(*arguments: Any) -> Manifest:
        path.write_bytes(published)
        return scan_source(*arguments)

    monkeypatch.setattr(build, "scan_source", scan_and_publish)

    with pytest.raises(OutputError, match=r"holds other photographs \(0 of 3 shared\)|a file that is no cache"):
        build_cache(photos, path, dtype=dtype, **AUTO)
    assert path.read_bytes() == published

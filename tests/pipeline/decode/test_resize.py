"""Resizing has Pillow's bits, whether C, this Pillow or another one does it."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode import resize as module
from pipeline.decode.resize import Box, resize
from pipeline.recipe import Interpolation
from pipeline.system.native import compiled
from tests.support.photos import textured

SIDES = (1, 2, 5, 6, 7, 16, 31, 64, 97, 224)


@pytest.fixture(params=["compiled", "Pillow"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each way to resize. Private caches are cleared: they keep what a process has found out once."""
    folder = request.getfixturevalue("kernels") if request.param == "compiled" else Path("nothing is here")
    monkeypatch.setattr(module, "compiled", lambda name: compiled(name, folder))
    caches = (module._function, module._order_of_pillow)
    for cache in caches:
        cache.cache_clear()
    if request.param == "compiled" and not _has_avx2():
        pytest.skip("this processor has no AVX2")
    assert (module._order_of_pillow("bilinear") is None) == (request.param == "Pillow")
    yield str(request.param)
    for cache in caches:
        cache.cache_clear()


def _has_avx2() -> bool:
    information = Path("/proc/cpuinfo")
    return information.exists() and " avx2 " in information.read_text()


def pillows(
    pixels_HWC: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation = "bilinear"
) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(pixels_HWC).resize(size[::-1], Image.Resampling[interpolation.upper()]))


@pytest.mark.parametrize("size", SIDES)
def test_any_size_becomes_any_other_with_the_bits_of_pillow(way: str, size: int) -> None:
    rng = np.random.default_rng(size)
    for height in SIDES:
        for width in SIDES:
            noise = rng.integers(0, 256, (height, width, 3), np.uint8)
            for pixels_HWC in (noise, (noise > 127).astype(np.uint8) * np.uint8(255)):
                assert np.array_equal(resize(pixels_HWC, (size, size)), pillows(pixels_HWC, (size, size))), (
                    height,
                    width,
                )


@pytest.mark.parametrize(("height", "width"), [(6, 9000), (3000, 60), (3001, 60), (9000, 6), (2000, 1500)])
def test_slim_and_large_images_have_the_bits_of_pillow(way: str, height: int, width: int) -> None:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for size in (6, 100):
        assert np.array_equal(resize(pixels_HWC, (size, size)), pillows(pixels_HWC, (size, size)))


def test_on_both_sides_of_the_border_where_pillow_begins_with_the_columns(way: str) -> None:
    rng = np.random.default_rng(0)
    for width in (30, 40, 41, 75):
        for height in range(2 * width - 42, 2 * width - 36):  # 2 × width - 40 is the border
            pixels_HWC = rng.integers(0, 256, (height, width, 3), np.uint8)
            assert np.array_equal(resize(pixels_HWC, (40, 40)), pillows(pixels_HWC, (40, 40))), (height, width)


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
def test_every_filter_has_the_bits_of_pillow_in_any_box(way: str, interpolation: Interpolation) -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        (height, width), size = rng.integers(1, 240, 2).tolist(), tuple(rng.integers(1, 150, 2).tolist())
        kept = [int(rng.integers(1, side + 1)) for side in size]
        start = [int(rng.integers(0, side - part + 1)) for side, part in zip(size, kept, strict=True)]
        pixels_HWC = rng.integers(0, 256, (height, width, 3), np.uint8)

        cut_HWC = resize(pixels_HWC, size, interpolation, Box(*start, *kept))

        whole_HWC = pillows(pixels_HWC, size, interpolation)
        wanted_HWC = whole_HWC[start[0] : start[0] + kept[0], start[1] : start[1] + kept[1]]
        assert np.array_equal(cut_HWC, wanted_HWC), (height, width, size, start, kept)


def test_an_image_and_its_array_are_resized_alike(way: str) -> None:
    picture = textured(90, 70, 1)
    whole_HWC = np.asarray(picture)
    expected = pillows(whole_HWC, (32, 32))
    flipped_HWC = whole_HWC[::-1].copy()[::-1]

    for image in (picture, whole_HWC, flipped_HWC):
        assert np.array_equal(resize(image, (32, 32)), expected)


def test_a_pillow_that_resizes_otherwise_does_it_itself(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "compiled", lambda name: compiled(name, kernels))
    pillow_resize = Image.Image.resize
    module._function.cache_clear()
    module._order_of_pillow.cache_clear()

    def brighter(self: Image.Image, *args: object) -> Image.Image:
        pixels_HWC = np.asarray(pillow_resize(self, *args))  # type: ignore[arg-type]
        return Image.fromarray(np.minimum(pixels_HWC, 254) + np.uint8(1))

    monkeypatch.setattr(Image.Image, "resize", brighter)
    try:
        pixels_HWC = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
        assert module._order_of_pillow("bilinear") is None
        assert np.array_equal(resize(pixels_HWC, (20, 20)), pillows(pixels_HWC, (20, 20)))
    finally:
        module._order_of_pillow.cache_clear()
        module._function.cache_clear()


def test_a_pillow_that_always_begins_with_the_rows_is_followed(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not _has_avx2():
        pytest.skip("this processor has no AVX2")
    monkeypatch.setattr(module, "compiled", lambda name: compiled(name, kernels))
    module._function.cache_clear()
    module._order_of_pillow.cache_clear()

    def rows_first(image: NDArray[np.uint8], size: tuple[int, int], *_: object) -> NDArray[np.uint8]:
        rows = Image.fromarray(image).resize((size[1], len(image)), Image.Resampling.BILINEAR)
        return np.asarray(rows.resize(size[::-1], Image.Resampling.BILINEAR))

    monkeypatch.setattr(module, "_pillow_resize", rows_first)
    try:
        assert module._order_of_pillow("bilinear") is module._rows_first
        pixels_HWC = np.random.default_rng(0).integers(0, 256, (300, 60, 3), np.uint8)
        assert np.array_equal(resize(pixels_HWC, (20, 20)), rows_first(pixels_HWC, (20, 20)))
    finally:
        module._order_of_pillow.cache_clear()
        module._function.cache_clear()

"""The perceptual hash has the bits of Pillow's steps, whoever takes them."""

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import image_hash as module
from pipeline.decode.image_hash import image_hash


def test_the_compiled_grey_is_pillows_for_any_color() -> None:
    if not module._has_pillows_bits():  # private: no public name tells who turned an image grey
        pytest.skip("needs the compiled part")
    levels = np.arange(256, dtype=np.uint8)
    green, blue = np.meshgrid(levels, levels)
    for red in range(0, 256, 5):
        pixels_HWC = np.stack([np.full_like(green, red), green, blue], axis=2)
        grey = module._compiled_grey(pixels_HWC)
        assert grey is not None and np.array_equal(grey, np.asarray(Image.fromarray(pixels_HWC).convert("L")))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (3, 3), (2, 5), (1, 17), (31, 47)])
def test_an_array_has_the_hash_of_its_image(size: tuple[int, int]) -> None:
    pixels_HWC = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)

    assert image_hash(pixels_HWC) == image_hash(Image.fromarray(pixels_HWC)) == image_hash(pixels_HWC[:, ::-1][:, ::-1])


def test_without_the_compiled_part_the_hash_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels_HWC = np.random.default_rng(2).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    before = image_hash(pixels_HWC)
    monkeypatch.setattr(module, "_has_pillows_bits", lambda: False)

    assert image_hash(pixels_HWC) == before

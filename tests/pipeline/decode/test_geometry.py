"""Squash and crop have the bits of torchvision over Pillow, pad those of `PIL.ImageOps.pad`."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from pipeline.decode.geometry import fit, resized_size
from pipeline.recipe import Fit, Interpolation, Recipe
from tests.support.photos import textured

SHAPES = [(1, 1), (1, 60), (500, 375), (375, 500), (31, 900), (900, 31), (97, 64), (64, 64), (240, 240)]
SIZES = [(64, 64), (64, 48), (33, 90), (7, 5)]


def expected(image: Image.Image, recipe: Recipe) -> Image.Image:
    """Prepare an image as torchvision and Pillow document it."""
    mode = InterpolationMode(recipe.interpolation)
    if recipe.fit == "squash":
        squashed: Image.Image = Resize(recipe.size, mode)(image)
        return squashed
    if recipe.fit == "crop":
        cropped: Image.Image = CenterCrop(recipe.size)(Resize(recipe.resize_to, mode)(image))
        return cropped
    method = Image.Resampling[recipe.interpolation.upper()]
    padded: Image.Image = ImageOps.pad(image, recipe.size[::-1], method, recipe.pad_color)
    return padded


@pytest.mark.parametrize("interpolation", get_args(Interpolation))
@pytest.mark.parametrize("way", get_args(Fit))
def test_every_fit_and_filter_has_the_expected_bits(way: Fit, interpolation: Interpolation) -> None:
    for seed, (height, width) in enumerate(SHAPES):
        image = textured(width, height, seed)
        for size in SIZES:
            recipe = Recipe(size=size, fit=way, interpolation=interpolation)
            if way == "pad" and 0 in (round(height / width * size[1]), round(width / height * size[0])):
                continue  # Pillow leaves such an image out, or refuses it; see the test below
            pixels_HWC = fit(image, recipe)
            assert pixels_HWC.shape == (*size, 3)
            assert np.array_equal(pixels_HWC, np.asarray(expected(image, recipe))), (height, width, size)


def test_the_shorter_side_is_resized_as_asked() -> None:
    image = textured(90, 60, 0)
    recipe = Recipe(size=(40, 50), fit="crop", resize_to=77)
    assert np.array_equal(fit(image, recipe), np.asarray(expected(image, recipe)))
    assert resized_size(60, 90, recipe) == (77, 115)


def test_the_slimmest_image_still_leaves_a_line_in_its_pad() -> None:
    pixels_HWC = fit(np.full((1, 400, 3), 200, np.uint8), Recipe(size=16, fit="pad", pad_color=(1, 2, 3)))
    assert (pixels_HWC == 200).all(2).sum() == 16 and (pixels_HWC == (1, 2, 3)).all(2).sum() == 15 * 16


def test_a_pad_of_the_edge_repeats_the_border() -> None:
    image = textured(20, 10, 3)
    pixels_HWC = fit(image, Recipe(size=20, fit="pad", pad_color="edge"))
    assert (pixels_HWC[:5] == pixels_HWC[5]).all() and (pixels_HWC[15:] == pixels_HWC[14]).all()
    assert np.array_equal(pixels_HWC[5:15], np.asarray(image))

import json
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import transforms

from pipeline.recipe import Recipe, normalization_table, pixels_to_row, row_to_pixels

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
ODD: dict[str, Any] = {"mean": (0.1, -3.7, 1 / 3), "std": (1e-3, 7.7, 0.3333)}


@pytest.mark.parametrize("values", [{}, IMAGENET, ODD])
def test_every_entry_of_the_table_has_the_bits_of_totensor_and_normalize(values: Any) -> None:
    recipe = Recipe(**values)
    all_values_HWC = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)

    expected = transforms.Compose([transforms.ToTensor(), transforms.Normalize(recipe.mean, recipe.std)])(
        all_values_HWC
    )

    assert normalization_table(recipe).tobytes() == expected[:, 0, :].contiguous().numpy().tobytes()


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("values", [{}, IMAGENET, ODD])
def test_a_row_gives_its_pixels_back(values: Any, dtype: Any) -> None:
    recipe = Recipe(size=37, dtype=dtype, **values)
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (37, 37, 3), np.uint8)

    row = pixels_to_row(pixels_HWC, recipe)

    assert row.shape == recipe.row_shape and row.nbytes == recipe.row_bytes and row.flags.c_contiguous
    back = row_to_pixels(row, recipe)
    assert back is not None and np.array_equal(back, pixels_HWC)


def test_a_row_in_which_pixel_values_fell_together_gives_no_pixels() -> None:
    recipe = Recipe(size=4, mean=(1e7, 1e7, 1e7))  # float32 has steps of 1 there: all 256 values are one
    row = pixels_to_row(np.zeros((4, 4, 3), np.uint8), recipe)

    assert row_to_pixels(row, recipe) is None


def test_a_row_with_a_number_that_no_pixel_gives_is_not_guessed() -> None:
    recipe = Recipe(size=4)
    row = pixels_to_row(np.zeros((4, 4, 3), np.uint8), recipe)
    row[1, 2, 3] = np.nextafter(row[1, 2, 3], np.float32(1))

    assert row_to_pixels(row, recipe) is None


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"size": 0}, "size is a whole number of pixels from 1 to 4096, not 0"),
        ({"size": 4097}, "not 4097"),
        ({"size": 64.0}, "not 64.0"),
        ({"size": True}, "not True"),
        ({"mean": (0.5, 0.5)}, "mean is three numbers"),
        ({"mean": (0.5, 0.5, float("nan"))}, "mean is three numbers"),
        ({"std": (0.5, 0.0, 0.5)}, "std is greater than 0"),
        ({"std": (0.5, float("inf"), 0.5)}, "std is three numbers"),
        ({"std": (0.5, 1e-46, 0.5)}, "float32"),
        ({"mean": (0.5, 0.5, 1e39)}, "float32"),
        ({"dtype": "float16"}, "dtype is one of float32, uint8, not 'float16'"),
        ({"exif_rotate": "no"}, "exif_rotate is True or False, not 'no'"),
        ({"scaled_decode": 1}, "scaled_decode is True or False, not 1"),
        ({"size": (64, 64, 3)}, "size is .height, width., each from 1 to 4096, not"),
        ({"fit": "stretch"}, "fit is one of squash, crop, pad, not 'stretch'"),
        ({"interpolation": "cubic"}, "interpolation is one of bilinear, bicubic, lanczos, box, nearest"),
        ({"resize_to": 256}, "resize_to belongs to fit crop, not to squash"),
        ({"fit": "crop", "resize_to": 223}, "from the longer side of size, 224, to 8192, not 223"),
        ({"pad_color": (1, 2, 3)}, "pad_color belongs to fit pad"),
        ({"fit": "pad", "pad_color": (1, 2, 256)}, "pad_color is three whole numbers"),
        ({"background": (1, 2)}, "background is three whole numbers"),
        ({"max_megapixels": 0}, "max_megapixels is a whole number from 1, not 0"),
    ],
)
def test_a_value_that_no_image_could_be_prepared_with_is_refused(values: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Recipe(**values)


def test_a_recipe_survives_json() -> None:
    for recipe in (
        Recipe(),
        Recipe(size=(96, 64), dtype="uint8", exif_rotate=True, scaled_decode=True, background=(1, 2, 3), **IMAGENET),
        Recipe(fit="crop", interpolation="bicubic"),
        Recipe(fit="pad", pad_color="edge"),
    ):
        assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe


def test_every_key_stands_in_a_stored_recipe() -> None:
    keys = "size fit resize_to interpolation pad_color background mean std dtype exif_rotate max_megapixels"
    assert list(Recipe().to_dict()) == [*keys.split(), "scaled_decode"]
    assert Recipe(size=9).to_dict()["size"] == [9, 9] and Recipe(size=(9, 8)).to_dict()["size"] == [9, 8]
    assert Recipe(fit="crop").to_dict().items() >= {"fit": "crop", "resize_to": 256, "pad_color": None}.items()


def test_an_earlier_version_stored_old_keys_and_unusual_values() -> None:
    """The fingerprints of its caches, by which its runs name them, depend on that."""
    old = {"mean": [0.5] * 3, "std": [0.5] * 3, "dtype": "float32", "exif_rotate": False, "max_megapixels": 64}
    assert Recipe().to_earlier_dict() == {"size": 224} | old
    assert Recipe(size=(9, 8)).to_earlier_dict() == {"size": [9, 8]} | old
    crop = Recipe(fit="crop", scaled_decode=True)
    assert crop.to_earlier_dict() == {"size": 224, "fit": "crop", "resize_to": 256, "scaled_decode": True} | old
    assert Recipe.from_dict(crop.to_earlier_dict()) == crop


def test_a_recipe_of_an_earlier_version_means_what_it_meant() -> None:
    old = {"size": 96, "mean": [0.5] * 3, "std": [0.5] * 3, "dtype": "uint8", "exif_rotate": False}
    assert Recipe.from_dict(old | {"max_megapixels": 64}) == Recipe(size=96, dtype="uint8")


def test_defaults_that_depend_on_other_values_are_settled() -> None:
    assert Recipe(fit="crop").resize_to == 256 and Recipe(size=(192, 256), fit="crop").resize_to == 292
    assert Recipe(fit="pad", **IMAGENET).pad_color == (124, 116, 104)
    assert Recipe(size=7).size == (7, 7)


def test_values_that_depend_on_a_changed_one_get_their_defaults_again() -> None:
    mean = IMAGENET["mean"]
    grey, black = Recipe(fit="pad"), Recipe(fit="pad", pad_color=(0, 0, 0))
    edge = Recipe(fit="pad", pad_color="edge")

    assert grey.changed(mean=mean).pad_color == (124, 116, 104) and grey.changed(std=(1, 1, 1)).pad_color == (128,) * 3
    assert black.changed(mean=mean).pad_color == (0, 0, 0) and edge.changed(mean=mean).pad_color == "edge"
    assert grey.changed(mean=mean, pad_color=(1, 2, 3)).pad_color == (1, 2, 3)
    assert grey.changed(fit="squash", mean=mean) == Recipe(mean=mean)
    assert Recipe(fit="crop").changed(size=112).resize_to == 128


def test_values_that_follow_from_others_are_not_unusual() -> None:
    assert Recipe(fit="pad").unusual == ["fit pad"] and Recipe(size=112, fit="crop").unusual == ["size 112", "fit crop"]
    assert Recipe(fit="pad", pad_color=(0, 0, 0)).unusual == ["fit pad", "pad_color 0 0 0"]
    assert Recipe(fit="crop", resize_to=224).unusual == ["fit crop", "resize_to 224"]


@pytest.mark.parametrize(
    "change",
    [{"size": None}, {"extra": 1}, {"mean": 5}, {"mean": "abc"}, {"std": [1, 2]}, {"dtype": ["uint8"]}, {"size": "64"}],
)
def test_what_is_no_recipe_is_refused_with_a_value_error(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        Recipe.from_dict(Recipe().to_dict() | change)
    with pytest.raises(ValueError):
        Recipe.from_dict({})


def test_differences_are_phrases_that_a_person_reads() -> None:
    old, new = Recipe(), Recipe(size=256, dtype="uint8", **IMAGENET)

    assert old.differences(new) == [
        "size 224 → 256",
        "mean 0.5 0.5 0.5 → 0.485 0.456 0.406",
        "std 0.5 0.5 0.5 → 0.229 0.224 0.225",
        "dtype float32 → uint8",
    ]
    assert old.differences(old) == []


def test_caches_of_equal_pixels_can_be_derived_from_each_other() -> None:
    assert Recipe().pixels == Recipe(dtype="uint8", **IMAGENET).pixels
    for other in (
        Recipe(size=225),
        Recipe(fit="crop"),
        Recipe(interpolation="box"),
        Recipe(background=(0, 0, 0)),
        Recipe(exif_rotate=True),
        Recipe(max_megapixels=1),
        Recipe(scaled_decode=True),
    ):
        assert other.pixels != Recipe().pixels


def test_mean_and_std_may_come_as_lists_of_integers() -> None:
    lists: dict[str, Any] = {"mean": [0, 0, 0], "std": [1, 1, 1]}
    recipe = Recipe(**lists)

    assert recipe == Recipe(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)) and hash(recipe)
    assert torch.equal(torch.from_numpy(normalization_table(recipe))[0], torch.arange(256) / 255)

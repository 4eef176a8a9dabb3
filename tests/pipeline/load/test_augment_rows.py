"""Augmented rows: the compiled part against the same steps in PyTorch, torchvision, and a plain loop."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from pipeline.load import augment_rows as module
from pipeline.load.augment import Augmentation, between
from pipeline.load.augment_images import Places
from pipeline.load.augment_rows import augment_rows, compiled_kernel
from pipeline.load.normalize import normalize
from pipeline.recipe import Recipe
from pipeline.system.native import compiled

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.5)


@pytest.fixture(autouse=True)
def compiled_here(kernels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the C code as it is now, installed or not."""
    monkeypatch.setattr(module, "compiled", lambda name: compiled(name, kernels))
    kernel = compiled_kernel.__wrapped__()
    assert kernel is not None
    monkeypatch.setattr(module, "compiled_kernel", lambda: kernel)


def stored(size: tuple[int, int], dtype: str, count: int = 9) -> tuple[Tensor, Recipe]:
    recipe = Recipe(size=size, dtype="uint8", mean=MEAN, std=STD)
    pixels = torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return (pixels if dtype == "uint8" else normalize(pixels, recipe)), recipe


def boxes_at(
    recipe: Recipe, size: tuple[int, int], boxes: Sequence[tuple[float, ...]], flipped: bool = False
) -> Places:
    left, top, width, height = np.array(boxes, np.float32).T
    x, x_part = between(left, width, recipe.size[1], size[1])
    y, y_part = between(top, height, recipe.size[0], size[0])
    if flipped:
        x = recipe.size[1] - 1 - x
    return Places(x, y, np.full(len(boxes), -1 if flipped else 1), x_part, y_part)


def augmented(images: Tensor, recipe: Recipe, places: Places, rows: Tensor | None = None) -> Tensor:
    out = torch.full((len(places.x), 3, places.y.shape[1], places.x.shape[1]), torch.nan)
    rows = torch.arange(len(out)) if rows is None else rows
    augment_rows(images, rows, recipe, places, None, out)
    return out


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("kinds", [("crop",), ("flip", "crop"), ("flip", "color"), ("flip", "crop", "color", "erase")])
@pytest.mark.parametrize(
    ("size", "crop_size"),
    [
        ((64, 64), None),
        ((64, 64), (224, 224)),  # larger than the box
        ((37, 53), (17, 33)),
        ((37, 53), (30, 8)),
        ((200, 41), (8, 40)),
        ((64, 300), (9, 17)),  # 8 pixels of the crop lie among far more than 16
        ((2, 9), (1, 1)),
        ((1, 1), (1, 1)),
    ],
)
def test_the_compiled_part_gives_the_bits_of_pytorchs_steps(
    size: tuple[int, int],
    crop_size: tuple[int, int] | None,
    kinds: tuple[str, ...],
    dtype: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if "crop" not in kinds and crop_size is not None and crop_size[1] > size[1]:
        crop_size = None
    images, recipe = stored(size, dtype)
    augment = Augmentation(kinds, 3, recipe, 0.1, 0.4, crop_size)
    rows = torch.arange(9) * 7

    compiled = augment(images, 2, rows)
    on_device = augment.on_device(images, 2, rows)
    monkeypatch.setattr(module, "compiled_kernel", lambda: None)

    assert torch.equal(compiled, augment(images, 2, rows)), "image by image"
    assert torch.equal(compiled, on_device), "the whole batch at once, as a GPU does it"
    assert compiled.shape[2:] == (crop_size or size) and compiled.isfinite().all()


def plain_crop(image: NDArray[Any], box: tuple[float, ...], size: tuple[int, int]) -> NDArray[Any]:
    """Bilinear resampling of a box, in float64, pixel by pixel."""
    left, top, width, height = box
    out = np.empty((len(image), *size))
    for y, x in np.ndindex(size):
        centers = (top + (y + 0.5) / size[0] * height), (left + (x + 0.5) / size[1] * width)
        at = [center * side - 0.5 for center, side in zip(centers, image.shape[1:], strict=True)]
        (v, u), (fv, fu) = np.floor(at).astype(int), at - np.floor(at)
        rows, columns = (np.clip([i, i + 1], 0, side - 1) for i, side in zip((v, u), image.shape[1:], strict=True))
        out[:, y, x] = np.einsum("crs,r,s->c", image[:, rows][:, :, columns], [1 - fv, fv], [1 - fu, fu])
    return out


@pytest.mark.parametrize("flipped", [False, True])
@pytest.mark.parametrize("size", [(20, 33), (7, 5)])
def test_crops_are_those_of_a_plain_loop_at_the_edges_too(size: tuple[int, int], flipped: bool) -> None:
    pixel = 1 / 37, 1 / 53
    boxes = [
        (0.1, 0.3, 0.6, 0.5),
        (0.0, 0.0, 1.0, 1.0),
        (0.5, 0.25, 0.5, 0.75),
        (0.0, 0.0, pixel[1], pixel[0]),
        (1 - pixel[1], 1 - pixel[0], pixel[1], pixel[0]),
        (0.0, 1 - pixel[0], 1.0, pixel[0]),
        (0.31, 0.62, 1e-6, 1e-6),
    ]
    images, recipe = stored((37, 53), "uint8", len(boxes))

    cropped = augmented(images, recipe, boxes_at(recipe, size, boxes, flipped))

    normalized = normalize(images, recipe).double().numpy()
    for image, after, box in zip(normalized[:, :, :, :: -1 if flipped else 1], cropped, boxes, strict=True):
        np.testing.assert_allclose(after.numpy(), plain_crop(image, box, size), atol=1e-4)


@pytest.mark.parametrize("size", [(64, 64), (37, 53), (200, 33)])
def test_crops_are_torchvisions_inside_the_box_antialiased_if_enlarged(size: tuple[int, int]) -> None:
    """Torchvision cuts the box out first: only pixels of the crop whose neighbours lie in the box compare."""
    images, recipe = stored((64, 96), "uint8", 4)
    smooth = torch.nn.functional.avg_pool2d(images.float(), 5, 1, 2).to(torch.uint8)
    pixels = [(3, 5, 40, 50), (0, 0, 96, 64), (95, 63, 1, 1), (17, 9, 8, 55)]

    cropped = augmented(
        smooth, recipe, boxes_at(recipe, size, [(x / 96, y / 64, w / 96, h / 64) for x, y, w, h in pixels])
    )

    for image, ours, (x, y, w, h) in zip(normalize(smooth, recipe), cropped, pixels, strict=True):
        is_enlarged = h <= size[0] and w <= size[1]  # where antialiasing changes nothing
        theirs = tv.resized_crop(image, y, x, h, w, list(size), antialias=is_enlarged)
        inside = [
            (place >= 0) & (place <= part - 1) if part < whole else torch.full((new,), True)
            for new, part, whole in ((size[0], h, 64), (size[1], w, 96))
            for place in [(torch.arange(new) + 0.5) / new * part - 0.5]
        ]
        where = inside[0][:, None] & inside[1]
        torch.testing.assert_close(ours[:, where], theirs[:, where], atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_parts_and_flips_have_the_very_bits_of_the_image(dtype: str) -> None:
    images, recipe = stored((20, 31), dtype, 2)
    x, y = np.arange(4, 4 + 21, dtype=np.int32), np.arange(7, 7 + 13, dtype=np.int32)
    places = Places(np.stack([x, x[::-1]]), np.stack([y, y]), np.array([1, -1]))

    parts = augmented(images, recipe, places)

    whole = images if dtype == "float32" else normalize(images, recipe)
    expected = whole[:, :, 7:20, 4:25]
    assert torch.equal(parts[0], expected[0]) and torch.equal(parts[1], expected[1].flip(2))
    full = boxes_at(recipe, (20, 31), [(0.0, 0.0, 1.0, 1.0)] * 2)
    torch.testing.assert_close(augmented(images, recipe, full), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_images_and_rows_with_strides_are_read_as_they_are_seen(dtype: str) -> None:
    images, recipe = stored((20, 31), dtype)
    augment = Augmentation(("flip", "crop", "color"), 0, recipe)
    expected = augment(images, 1, torch.arange(9))

    every_other, out = torch.arange(9)[::2], torch.empty((5, 3, 20, 31))
    augment.read(images, every_other, 1, every_other, out)
    assert torch.equal(out, expected[::2])
    assert torch.equal(augment(images[::2], 1, every_other), expected[::2])
    channels_last = images.to(memory_format=torch.channels_last)
    assert torch.equal(augment(channels_last, 1, torch.arange(9)), expected)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_rank_without_an_image_of_a_batch_gets_an_empty_one(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, recipe = stored((20, 31), dtype)
    augment, none = Augmentation(("flip", "crop", "color", "erase"), 0, recipe, crop_size=(8, 9)), torch.arange(0)

    shapes = [augment(images[:0], 1, none).shape, augment.on_device(images[:0], 1, none).shape]
    monkeypatch.setattr(module, "compiled_kernel", lambda: None)

    assert {*shapes, augment(images[:0], 1, none).shape} == {(0, 3, 8, 9)}


@pytest.mark.parametrize("batch_size", [0, 1, 7, 64])
def test_any_number_of_threads_gives_the_same_bits(batch_size: int, set_threads: Callable[[int], None]) -> None:
    images, recipe = stored((96, 96), "uint8")
    rows = torch.arange(batch_size) % 9
    augment = Augmentation(("flip", "crop", "color"), 0, recipe, 0.2, 0.4, (224, 224))
    outs = []
    for threads in (1, 3):
        set_threads(threads)
        outs.append(torch.full((batch_size, 3, 224, 224), torch.nan))
        augment.read(images, rows, 1, torch.arange(batch_size), outs[-1])

    assert torch.equal(*outs) and outs[0].isfinite().all()

"""Changes of single images (augment_pixels, kinds): the bits of torchvision's transforms, from seed, epoch and row."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from pipeline import TensorCache, make_loader, normalize
from pipeline.load.augment import Augmentation
from pipeline.load.augment_pixels import BLUR_PIXELS, BLUR_SIGMA, DEGREES, change_pixels
from pipeline.load.kinds import PIXEL_KINDS
from pipeline.load.random import seeded_generator
from pipeline.recipe import Recipe
from tests.support.photos import textured

RECIPE = Recipe(size=48, mean=(0.5, 0.4, 0.3))
FILL = [128, 102, 76]
BILINEAR = InterpolationMode.BILINEAR
SIGMA: Any = BLUR_SIGMA

THEIRS: dict[str, v2.Transform] = {
    "vflip": v2.RandomVerticalFlip(0.5),
    "rotate": v2.RandomRotation(DEGREES, BILINEAR, fill=FILL),
    "grey": v2.RandomGrayscale(0.2),
    "blur": v2.RandomApply([v2.GaussianBlur(BLUR_PIXELS, SIGMA)], 0.5),
    "randaugment": v2.RandAugment(interpolation=BILINEAR, fill=FILL),
    "trivialaugment": v2.TrivialAugmentWide(interpolation=BILINEAR, fill=FILL),
}


@pytest.fixture
def pixels() -> Tensor:
    """(24, 3, 48, 48) uint8."""
    return torch.stack([v2.functional.pil_to_tensor(textured(48, 48, seed)) for seed in range(24)])


@pytest.mark.parametrize("kind", THEIRS)
def test_a_change_has_the_bits_of_torchvisions_transform(kind: str, pixels: Tensor) -> None:
    ours, number = pixels.clone(), PIXEL_KINDS.index(kind) + 1
    change_pixels(ours, [kind], None, RECIPE, 3, 1, torch.arange(24))

    for row, (before, after) in enumerate(zip(pixels, ours, strict=True)):
        with torch.random.fork_rng([]):
            torch.set_rng_state(seeded_generator(3, 1, row, number).get_state())
            assert torch.equal(after, THEIRS[kind](before)), row
    assert not torch.equal(ours, pixels)


def test_quarter_turns_turn_each_image_by_one_of_four(pixels: Tensor) -> None:
    ours = pixels.clone()
    change_pixels(ours, ["rot90"], None, RECIPE, 0, 0, torch.arange(24))

    turns = [[k for k in range(4) if torch.equal(b.rot90(k, (1, 2)), a)] for b, a in zip(pixels, ours, strict=True)]
    assert {tuple(found) for found in turns} == {(0,), (1,), (2,), (3,)}


def test_pixels_change_before_crops_flips_and_normalization(pixels: Tensor) -> None:
    kinds = ("grey", "trivialaugment", "flip", "crop", "color", "erase")
    changed = pixels.clone()
    change_pixels(changed, kinds[:2], None, RECIPE, 5, 2, torch.arange(24))

    expected = Augmentation(kinds[2:], 5, RECIPE)(changed, 2, torch.arange(24))
    assert torch.equal(Augmentation(kinds, 5, RECIPE)(pixels, 2, torch.arange(24)), expected)


def test_normalized_rows_are_changed_as_their_pixels_are(pixels: Tensor) -> None:
    ours = Augmentation(("randaugment", "flip"), 1, RECIPE)
    assert torch.equal(ours(normalize(pixels, RECIPE), 0, torch.arange(24)), ours(pixels, 0, torch.arange(24)))


def test_one_kind_shifts_no_random_numbers_of_another(pixels: Tensor) -> None:
    alone, both = pixels.clone(), pixels.clone()
    change_pixels(alone, ["vflip"], None, RECIPE, 0, 0, torch.arange(24))
    change_pixels(both, ["rot90", "vflip"], None, RECIPE, 0, 0, torch.arange(24))

    turned = pixels.clone()
    change_pixels(turned, ["rot90"], None, RECIPE, 0, 0, torch.arange(24))
    flipped = torch.tensor([not torch.equal(a, b) for a, b in zip(alone, pixels, strict=True)])
    assert torch.equal(both, torch.where(flipped[:, None, None, None], turned.flip(2), turned))


@pytest.mark.parametrize("threads", [1, 4])
def test_a_batch_of_any_size_and_threads_gives_the_same_bits(
    threads: int, pixels: Tensor, set_threads: Callable[[int], None]
) -> None:
    ours, rows = Augmentation(PIXEL_KINDS, 7, RECIPE), torch.arange(24)
    set_threads(1)
    alone = torch.cat([ours(pixels[row : row + 1], 4, rows[row : row + 1]) for row in range(24)])
    set_threads(threads)
    assert torch.equal(ours(pixels, 4, rows), alone)
    assert torch.get_num_threads() == threads


def test_training_randomness_is_left_alone(pixels: Tensor) -> None:
    before = torch.get_rng_state()
    Augmentation(PIXEL_KINDS, 7, RECIPE)(pixels, 0, torch.arange(24))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_gives_the_same_bits_with_0_and_2_workers(uint8_cache_path: Path) -> None:
    cache = TensorCache(uint8_cache_path)
    epochs = [
        [images for _ in range(2) for images, _ in make_loader(cache, 3, workers=workers, augment="vflip,randaugment")]
        for workers in (0, 2)
    ]
    assert all(map(torch.equal, *epochs))


def test_a_persons_function_gets_pixels_and_a_generator_of_the_row(pixels: Tensor) -> None:
    seen = []

    def own(image: Tensor, generator: torch.Generator) -> Tensor:
        seen.append((image.clone(), generator.initial_seed()))
        return 255 - image

    changed = Augmentation(None, 9, RECIPE, own=own)(pixels, 6, torch.arange(24))

    assert torch.equal(changed, normalize(255 - pixels, RECIPE))
    assert torch.equal(torch.stack([image for image, _ in seen]), pixels)
    assert [seed for _, seed in seen] == [seeded_generator(9, 6, row, 0).initial_seed() for row in range(24)]


def test_quarter_turns_of_oblong_images_are_refused() -> None:
    with pytest.raises(ValueError, match="rot90 turns square images, and these have 40x48 pixels"):
        Augmentation(("rot90",), 0, Recipe(size=(40, 48)))


def test_tiny_images_can_be_blurred() -> None:
    change_pixels(images := torch.zeros(8, 3, 2, 5, dtype=torch.uint8), ["blur"], None, RECIPE, 0, 0, torch.arange(8))
    assert not images.any()

"""Changes of stored pixels, image by image: by functions of torchvision, and by a function of one's own.

They come before crops, flips and colors. Random numbers come from a generator that each image has for each change,
never from torch's global one: images are read beside the training that draws from it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from pipeline.load.random import seeded_generator
from pipeline.recipe import Recipe

OwnChange = Callable[[Tensor, torch.Generator], Tensor]  # (3, H, W) uint8 -> the same shape and dtype

DEGREES = 15.0
BLUR_PIXELS, BLUR_SIGMA = 13, (0.1, 2.0)
_BILINEAR = InterpolationMode.BILINEAR


def change_pixels(
    images_BCHW: Tensor,
    kinds: Sequence[str],
    own: OwnChange | None,
    recipe: Recipe,
    seed: int,
    epoch: int,
    rows_B: Tensor,
) -> None:
    """Change images one by one, by one thread, so that their bits are the same in every process that reads them.

    Args:
        images_BCHW: (B, 3, H, W) uint8 on the CPU; written over.
        kinds: names of changes, which are done in this order.
        own: a function that is called before them, with an image and its generator.
        recipe: its mean is the color of what a turned image does not cover.
        seed, epoch: of the random numbers.
        rows_B: (B,) int64, the images' rows in the cache.
    """
    fill = list(recipe.mean_color)
    with _plain_torch():
        for image_CHW, row in zip(images_BCHW, rows_B.tolist(), strict=True):
            changed_CHW = image_CHW if own is None else own(image_CHW, seeded_generator(seed, epoch, row, 0))
            for kind in kinds:
                change, number = _CHANGES[kind]
                changed_CHW = change(changed_CHW, seeded_generator(seed, epoch, row, number), fill)
            image_CHW.copy_(changed_CHW)


@contextmanager
def _plain_torch() -> Iterator[None]:
    """Keep PyTorch's operations of this thread in it, and on the CPU in float32: torchvision takes the defaults."""
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    try:
        with torch.device("cpu"):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_dtype(dtype)


def _number(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _whole(below: int, generator: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=generator))


def _between(least: float, most: float, generator: torch.Generator) -> float:
    return float(torch.empty(1).uniform_(least, most, generator=generator))


def _quarter_turns(image_CHW: Tensor, generator: torch.Generator, _: list[int]) -> Tensor:
    return image_CHW.rot90(_whole(4, generator), (1, 2))


def _vertical_flip(image_CHW: Tensor, generator: torch.Generator, _: list[int]) -> Tensor:
    return F.vertical_flip(image_CHW) if _number(generator) < 0.5 else image_CHW


def _rotate(image_CHW: Tensor, generator: torch.Generator, fill: list[int]) -> Tensor:
    turned: Tensor = F.rotate(image_CHW, _between(-DEGREES, DEGREES, generator), _BILINEAR, fill=fill)
    return turned


def _grey(image_CHW: Tensor, generator: torch.Generator, _: list[int]) -> Tensor:
    return F.rgb_to_grayscale(image_CHW, 3) if _number(generator) < 0.2 else image_CHW


def _blur(image_CHW: Tensor, generator: torch.Generator, _: list[int]) -> Tensor:
    if _number(generator) >= 0.5:
        return image_CHW
    pixels = [min(BLUR_PIXELS, 2 * side - 1) for side in (image_CHW.shape[2], image_CHW.shape[1])]  # width, height
    blurred: Tensor = F.gaussian_blur(image_CHW, pixels, [_between(*BLUR_SIGMA, generator)])
    return blurred


def _rand_augment(image_CHW: Tensor, generator: torch.Generator, fill: list[int]) -> Tensor:
    policy = v2.RandAugment(interpolation=_BILINEAR, fill=fill)
    for _ in range(policy.num_ops):
        image_CHW = _apply_one_of(policy, image_CHW, policy.magnitude, generator)
    return image_CHW


def _trivial_augment(image_CHW: Tensor, generator: torch.Generator, fill: list[int]) -> Tensor:
    return _apply_one_of(v2.TrivialAugmentWide(interpolation=_BILINEAR, fill=fill), image_CHW, None, generator)


def _apply_one_of(policy: Any, image_CHW: Tensor, strength: int | None, generator: torch.Generator) -> Tensor:
    """Apply one of a policy's operations, as its `forward` does, which draws from torch's global generator.

    Args:
        policy: of torchvision.
        image_CHW: uint8.
        strength: of the operation, of the policy's steps; None draws it.
        generator: draws the same numbers as `forward`, in the same order.
    """
    operations = list(policy._AUGMENTATION_SPACE.items())
    name, (magnitudes_of, is_signed) = operations[_whole(len(operations), generator)]
    steps = policy.num_magnitude_bins
    magnitude = 0.0
    if (magnitudes := magnitudes_of(steps, *image_CHW.shape[1:])) is not None:
        magnitude = float(magnitudes[_whole(steps, generator) if strength is None else strength])
        if is_signed and _number(generator) <= 0.5:
            magnitude = -magnitude
    changed: Tensor = policy._apply_image_or_video_transform(
        image_CHW, name, magnitude, interpolation=policy.interpolation, fill=policy._fill
    )
    return changed


_Change = Callable[[Tensor, torch.Generator, list[int]], Tensor]

# each has a number of its own, so that one kind does not shift the random numbers of another; 0 is a person's own
_CHANGES: dict[str, tuple[_Change, int]] = {
    "rot90": (_quarter_turns, 1),
    "vflip": (_vertical_flip, 2),
    "rotate": (_rotate, 3),
    "grey": (_grey, 4),
    "blur": (_blur, 5),
    "randaugment": (_rand_augment, 6),
    "trivialaugment": (_trivial_augment, 7),
}

"""Random variants of training images, made in whole batches on the device: flips, crops, colors.

What becomes of an image follows from (data seed, epoch, row) alone: never from the batch it came in, the number of
workers, or where a run was cut.
"""

import math
from operator import index

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from modelnet.device import send
from pipeline.recipe import RGB, Recipe

_NUMBERS = 8  # random numbers an image; each use has its own, so that no kind of change shifts those of another
_FLIP, _AREA, _RATIO, _LEFT, _TOP, _BRIGHTNESS, _CONTRAST, _SATURATION = range(_NUMBERS)

_MOST_OBLONG = math.log(4 / 3)
_GREY = (0.2989, 0.587, 0.114)  # as torchvision weighs the channels


class Augmentation:
    """Changes batches of normalized images.

    Args:
        kinds: of "flip", "crop" and "color", which are done, in this order.
        seed: of the random numbers.
        recipe: by which the images were normalized.
        crop_scale: smallest part of an image's area that a crop keeps.
        color_jitter: brightness, contrast and saturation are multiplied by 1 ± this at most.
    """

    def __init__(
        self, kinds: tuple[str, ...], seed: int, recipe: Recipe, crop_scale: float, color_jitter: float
    ) -> None:
        self.kinds = kinds
        self.seed = seed
        self.recipe = recipe
        self.crop_scale = crop_scale
        self.color_jitter = color_jitter

    def __call__(self, images_BCHW: Tensor, epoch: int, rows_B: Tensor) -> Tensor:
        """Return the images as this epoch sees them.

        Args:
            images_BCHW: (B, 3, S, S) float32, normalized; left as they are.
            epoch: from 0.
            rows_B: (B,) int64 on the CPU, their rows in the cache.
        """
        random_BK = send(uniform(self.seed, epoch, rows_B), images_BCHW.device)
        if "flip" in self.kinds:
            images_BCHW = flip(images_BCHW, random_BK[:, _FLIP] < 0.5)
        if "crop" in self.kinds:
            left, top, width, height = crop_boxes(random_BK, self.crop_scale)
            images_BCHW = crop(images_BCHW, left, top, width, height)
        if "color" in self.kinds:
            factors_B3 = 1 + self.color_jitter * (2 * random_BK[:, [_BRIGHTNESS, _CONTRAST, _SATURATION]] - 1)
            images_BCHW = change_colors(images_BCHW, factors_B3, self.recipe.mean, self.recipe.std)
        return images_BCHW


def uniform(seed: int, epoch: int, rows_B: Tensor) -> Tensor:
    """Return (B, 8) float32 random numbers in 0..1, a function of (seed, epoch, row): SplitMix64 of a counter."""
    key = np.uint64(xxhash.xxh3_64_intdigest(repr(("augment", index(seed), index(epoch))).encode()))
    numbers = np.arange(1, _NUMBERS + 1, dtype=np.uint64)
    z: NDArray[np.uint64] = rows_B.numpy().astype(np.uint64)[:, None] * np.uint64(_NUMBERS) + numbers
    z = key + z * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as it should
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(40)).astype(np.float32) / np.float32(2**24))


def flip(images_BCHW: Tensor, which_B: Tensor) -> Tensor:
    """Mirror left and right the images for which `which_B` (B,) is True."""
    return torch.where(which_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)


def crop_boxes(random_BK: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose a part of each image: at least `least` of its area, its sides 3:4 to 4:3 where they fit, anywhere.

    Returns:
        left, top, width, height: (B,) each, as parts of the side.
    """
    area = least + (1 - least) * random_BK[:, _AREA]
    ratio = torch.exp(_MOST_OBLONG * (2 * random_BK[:, _RATIO] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return random_BK[:, _LEFT] * (1 - width), random_BK[:, _TOP] * (1 - height), width, height


def crop(images_BCHW: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Cut a part out of each image and resize it to the whole, bilinear between the pixels' centres.

    Args:
        images_BCHW: (B, C, S, S).
        left, top, width, height: (B,) each, as parts of the side.
    """
    nothing = torch.zeros_like(left)
    x_B3 = torch.stack([width, nothing, 2 * left + width - 1], dim=1)
    y_B3 = torch.stack([nothing, height, 2 * top + height - 1], dim=1)
    grid = affine_grid(torch.stack([x_B3, y_B3], dim=1), list(images_BCHW.shape), align_corners=False)
    return grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def change_colors(images_BCHW: Tensor, factors_B3: Tensor, mean: RGB, std: RGB) -> Tensor:
    """Multiply brightness, contrast and saturation, in this order, as torchvision's `adjust_*` functions do.

    Args:
        images_BCHW: (B, 3, S, S) normalized.
        factors_B3: for brightness, contrast and saturation; 1 changes nothing.
        mean, std: by which the images were normalized.
    """
    constants = send(torch.tensor([mean, std, _GREY], dtype=images_BCHW.dtype), images_BCHW.device)
    mean_C11, std_C11, grey_C11 = constants.view(3, 3, 1, 1)
    brightness, contrast, saturation = (f[:, None, None, None] for f in factors_B3.unbind(1))
    pixels = (images_BCHW * std_C11 + mean_C11).clamp(0, 1)  # on the 0..1 scale
    pixels = (pixels * brightness).clamp(0, 1)
    grey = (pixels * grey_C11).sum(1, keepdim=True).mean((2, 3), keepdim=True)
    pixels = torch.lerp(grey, pixels, contrast).clamp(0, 1)
    grey = (pixels * grey_C11).sum(1, keepdim=True)
    pixels = torch.lerp(grey.expand_as(pixels), pixels, saturation).clamp(0, 1)
    changed: Tensor = (pixels - mean_C11) / std_C11
    return changed

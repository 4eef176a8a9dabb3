"""Random variants of training images, read in whole batches: crops, flips, colors, erased boxes.

What becomes of an image follows from (data seed, epoch, row) alone: never from the batch it came in, the number of
workers, or where a run was cut.
"""

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.load.augment_images import Places, change_colors, erase, take_pixels
from pipeline.load.augment_rows import augment_rows
from pipeline.load.batch_memory import send
from pipeline.load.kinds import PIXEL_KINDS
from pipeline.load.normalize import normalize, pixels_of
from pipeline.load.random import NUMBERS, uniform
from pipeline.recipe import Recipe
from pipeline.text import show_size

if TYPE_CHECKING:
    from pipeline.load.augment_pixels import OwnChange

# each use has its own random number, so that one kind of change does not shift the numbers of another
_FLIP, _AREA, _RATIO, _LEFT, _TOP, _BRIGHTNESS, _CONTRAST, _SATURATION = range(NUMBERS)
_ERASE, _ERASE_AREA, _ERASE_RATIO, _ERASE_LEFT, _ERASE_TOP, _PART_LEFT, _PART_TOP = range(NUMBERS - 1)  # "more"

_MOST_OBLONG = math.log(4 / 3)


class Changes(NamedTuple):
    """What is done to each image of a batch, in this order, on the CPU; None: nothing.

    Attributes:
        places: of the pixels in the stored images, which cuts, flips and crops.
        factors_B3: float32, for brightness, contrast and saturation.
        erased_B4: int64, left, right, top, bottom in pixels; the last ones not included.
    """

    places: Places
    factors_B3: Tensor | None = None
    erased_B4: Tensor | None = None


class Augmentation:
    """Changes images on their way into a batch.

    Args:
        kinds: of `kinds.KINDS`, which are done, in this order; None cuts out the center.
        seed: of the random numbers.
        recipe: of the images.
        crop_scale: smallest part of an image's area that a crop keeps.
        color_jitter: brightness, contrast and saturation are multiplied by 1 ± this at most.
        crop_size: (height, width) in pixels of the result; None for that of the images. "crop" resizes its box to it;
            without "crop" a part of this size is cut out of each image, anywhere.
        own: a function that changes the pixels of each image before everything else, or None. It takes an image,
            (3, H, W) uint8, and a generator of (seed, epoch, row), and returns the same shape and dtype.

    Raises:
        ValueError: "rot90" of images that are not square.

    Attributes:
        size: (height, width) in pixels of the result.
        changes_pixels: whether images are changed one by one, on the CPU.
    """

    def __init__(
        self,
        kinds: tuple[str, ...] | None,
        seed: int,
        recipe: Recipe,
        crop_scale: float = 0.35,
        color_jitter: float = 0.4,
        crop_size: tuple[int, int] | None = None,
        own: "OwnChange | None" = None,
    ) -> None:
        if "rot90" in (kinds or ()) and recipe.size[0] != recipe.size[1]:
            raise ValueError(f"rot90 turns square images, and these have {show_size(recipe.size)} pixels")
        self.kinds = kinds
        self.seed = seed
        self.recipe = recipe
        self.crop_scale = crop_scale
        self.color_jitter = color_jitter
        self.size = crop_size or recipe.size
        self.own = own
        self.pixel_kinds = tuple(kind for kind in PIXEL_KINDS if kind in (kinds or ()))
        self.changes_pixels = own is not None or bool(self.pixel_kinds)

    def __call__(self, images_BCHW: Tensor, epoch: int, rows_B: Tensor) -> Tensor:
        """Return images as an epoch sees them.

        Args:
            images_BCHW: (B, 3, H, W) as stored, on any device.
            epoch: from 0.
            rows_B: (B,) int64 on the CPU, their rows in the cache.

        Returns:
            (B, 3, h, w) float32, normalized, of `size`.
        """
        if images_BCHW.device.type == "cpu":
            out_BCHW = torch.empty((len(rows_B), 3, *self.size), dtype=torch.float32, device="cpu")
            images_BCHW, places_B = images_BCHW.contiguous(), torch.arange(len(rows_B), device="cpu")
            self.read(images_BCHW, places_B, epoch, rows_B, out_BCHW)
            return out_BCHW
        return self.on_device(images_BCHW, epoch, rows_B)

    def read(self, images_NCHW: Tensor, places_B: Tensor, epoch: int, rows_B: Tensor, out_BCHW: Tensor) -> None:
        """Read images as an epoch sees them, on the CPU.

        Args:
            images_NCHW: (N, 3, H, W) as stored, contiguous.
            places_B: (B,) int64 of 0..N-1, where they lie; whoever calls has checked them.
            epoch: from 0.
            rows_B: (B,) int64, their rows in the cache.
            out_BCHW: (B, 3, h, w) float32 of `size`, contiguous; is overwritten.

        Raises:
            ValueError: images of another shape or dtype than the recipe has.
        """
        self._check(images_NCHW)
        changes = self.draw(epoch, rows_B)
        if self.changes_pixels:
            images_NCHW = self._changed(images_NCHW, places_B, epoch, rows_B)
            places_B = torch.arange(len(rows_B), device="cpu")
        augment_rows(images_NCHW, places_B, self.recipe, changes.places, changes.factors_B3, out_BCHW)
        if changes.erased_B4 is not None:
            out = out_BCHW.numpy()  # which never starts threads
            for image_CHW, (left, right, top, bottom) in zip(out, changes.erased_B4.tolist(), strict=True):
                image_CHW[:, top:bottom, left:right] = 0

    def _changed(self, images_NCHW: Tensor, places_B: Tensor, epoch: int, rows_B: Tensor) -> Tensor:
        """Return (B, 3, H, W) uint8: the pixels of images, changed one by one."""
        from pipeline.load.augment_pixels import change_pixels  # here: torchvision takes a second to import

        images_BCHW = images_NCHW.index_select(0, places_B)
        if images_BCHW.dtype != torch.uint8:
            images_BCHW = pixels_of(images_BCHW, self.recipe)
        change_pixels(images_BCHW, self.pixel_kinds, self.own, self.recipe, self.seed, epoch, rows_B)
        return images_BCHW

    def on_device(self, images_BCHW: Tensor, epoch: int, rows_B: Tensor) -> Tensor:
        """Do the same in PyTorch's operations on whole batches, as a GPU does it; but for changes of single images."""
        self._check(images_BCHW)
        changes, device = self.draw(epoch, rows_B), images_BCHW.device
        if images_BCHW.dtype == torch.uint8:
            images_BCHW = normalize(images_BCHW, self.recipe)
        images_BCHW = take_pixels(images_BCHW, changes.places)
        if changes.factors_B3 is not None:
            change_colors(images_BCHW, send(changes.factors_B3, device), self.recipe.mean, self.recipe.std)
        if changes.erased_B4 is not None:
            images_BCHW = erase(images_BCHW, send(changes.erased_B4, device))
        return images_BCHW

    def _check(self, images_NCHW: Tensor) -> None:
        """Refuse images of another size than the places are drawn for: pixels would be read elsewhere in memory."""
        shape, dtype = tuple(images_NCHW.shape), images_NCHW.dtype
        if shape[1:] != self.recipe.row_shape or dtype not in (torch.uint8, torch.float32):
            height, width = self.recipe.size
            raise ValueError(f"images are (N, 3, {height}, {width}) uint8 or float32, not {shape} {dtype}")

    def draw(self, epoch: int, rows_B: Tensor) -> Changes:
        """Return what an epoch does to the images of rows, (B,) int64 on the CPU."""
        if self.kinds is None:
            return Changes(self._center(len(rows_B)))
        random_BK, more_BK = (uniform(purpose, self.seed, epoch, rows_B) for purpose in ("augment", "more"))
        is_flipped_B = random_BK.numpy()[:, _FLIP] < (0.5 if "flip" in self.kinds else 0)
        places = self._crops(random_BK, is_flipped_B) if "crop" in self.kinds else self._parts(more_BK, is_flipped_B)
        factors_B3 = erased_B4 = None
        if "color" in self.kinds:
            factors_B3 = 1 + self.color_jitter * (2 * random_BK[:, [_BRIGHTNESS, _CONTRAST, _SATURATION]] - 1)
        if "erase" in self.kinds:
            erased_B4 = erased_boxes(more_BK, self.size)
        return Changes(places, factors_B3, erased_B4)

    def _crops(self, random_BK: Tensor, is_flipped_B: NDArray[np.bool_]) -> Places:
        """Return the places of random boxes that are resized; boxes lie in the image after it was flipped."""
        (height, width), (whole_height, whole_width) = self.size, self.recipe.size
        left, top, box_width, box_height = crop_boxes(random_BK, self.crop_scale, whole_width / whole_height)
        x, x_part = between(left, box_width, whole_width, width)
        y, y_part = between(top, box_height, whole_height, height)
        x = np.where(is_flipped_B[:, None], whole_width - 1 - x, x)
        return Places(x, y, np.where(is_flipped_B, -1, 1), x_part, y_part)

    def _parts(self, more_BK: Tensor, is_flipped_B: NDArray[np.bool_]) -> Places:
        """Return the places of parts of `size`, anywhere."""
        random_B2, spare = more_BK[:, [_PART_LEFT, _PART_TOP]].numpy(), np.subtract(self.recipe.size, self.size)[::-1]
        return self._copied((random_B2 * (spare + 1).astype(np.float32)).astype(np.int32), is_flipped_B)

    def _center(self, count: int) -> Places:
        """Return the places of the center, as torchvision's `CenterCrop` rounds it."""
        top, left = (round((whole - side) / 2) for whole, side in zip(self.recipe.size, self.size, strict=True))
        return self._copied(np.full((count, 2), (left, top), np.int32), np.zeros(count, bool))

    def _copied(self, corner_B2: NDArray[np.int32], is_flipped_B: NDArray[np.bool_]) -> Places:
        height, width = self.size
        x = np.add(corner_B2[:, :1], np.arange(width), dtype=np.int32)
        y = np.add(corner_B2[:, 1:], np.arange(height), dtype=np.int32)
        return Places(np.where(is_flipped_B[:, None], x[:, ::-1], x), y, np.where(is_flipped_B, -1, 1))


def between(
    start_B: NDArray[np.float32], part_B: NDArray[np.float32], side: int, new_side: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return (B, S) each, for a crop's pixels along a side: the first of two neighbours, and the second's weight.

    Args:
        start_B, part_B: where the crop begins and its length, as fractions of the side.
        side: of the image, in pixels.
        new_side: of the crop, S pixels.
    """
    middles_S = (np.arange(new_side, dtype=np.float32) + np.float32(0.5)) / np.float32(new_side)
    places_BS = (start_B[:, None] + middles_S * part_B[:, None]) * np.float32(side) - np.float32(0.5)
    first_BS = np.clip(places_BS, 0, side - 1, out=places_BS).astype(np.int32)
    return first_BS, places_BS - first_BS.astype(np.float32)


def crop_boxes(random_BK: Tensor, least: float, aspect: float = 1.0) -> NDArray[np.float32]:
    """Choose a box in each image, anywhere, of at least `least` of its area.

    Its width is 3/4 to 4/3 of its height. A large box is closer to the shape of the image, so that it fits into it.

    Args:
        random_BK: (B, 8) uniform numbers.
        least: smallest area, as a fraction of the image's.
        aspect: width of the images / their height.

    Returns:
        (4, B): left, top, width, height, as fractions of the image's sides.
    """
    left, top, ratio, area = random_BK.numpy().T[[_LEFT, _TOP, _RATIO, _AREA]]  # NumPy is quicker with so few numbers
    area = least + (1 - least) * area
    fits = -torch.from_numpy(area).log().numpy()  # a box's ratio, over the image's, lies between its area and 1 / area
    shape = math.log(aspect)
    low = np.minimum(np.maximum(-fits, -_MOST_OBLONG - shape), fits)
    high = np.maximum(np.minimum(fits, _MOST_OBLONG - shape), -fits)
    ratio = torch.from_numpy((low + high) / 2 + (high - low) / 2 * (2 * ratio - 1)).exp_().numpy()
    sides = torch.from_numpy(np.stack([area * ratio, area / ratio])).sqrt_().clamp_(max=1)
    width, height = sides.numpy()
    return np.stack([left * (1 - width), top * (1 - height), width, height])


def erased_boxes(random_BK: Tensor, size: tuple[int, int]) -> Tensor:
    """Choose a box to erase in half of the images: 2 to 33 % of the area, aspect ratio 0.3 to 3.3 where it fits.

    These are the settings of torchvision's and timm's `RandomErasing`.

    Returns:
        (B, 4) int64: left, right, top, bottom, in pixels; the last ones not included.
    """
    area = (0.02 + (1 / 3 - 0.02) * random_BK[:, _ERASE_AREA]) * (random_BK[:, _ERASE] < 0.5)
    ratio = torch.exp(math.log(3.3) * (2 * random_BK[:, _ERASE_RATIO] - 1)) * (size[0] / size[1])
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = random_BK[:, _ERASE_LEFT] * (1 - width), random_BK[:, _ERASE_TOP] * (1 - height)
    sides = torch.tensor([size[1], size[1], size[0], size[0]], device="cpu")
    return (torch.stack([left, left + width, top, top + height], dim=1) * sides).round().long()

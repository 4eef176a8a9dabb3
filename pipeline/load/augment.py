"""Random variants of training images, made in whole batches on the device: crops, flips, colors, erased boxes.

What becomes of an image follows from (data seed, epoch, row) alone: never from the batch it came in, the number of
workers, or where a run was cut.

On the CPU one image goes through after the other, in its own memory, which stays in the core's cache through all steps;
on a GPU all go through at once.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pipeline.load.random import NUMBERS, uniform
from pipeline.load.to_device import send
from pipeline.recipe import RGB, Recipe

# each use has its own random number, so that one kind of change does not shift the numbers of another
_FLIP, _AREA, _RATIO, _LEFT, _TOP, _BRIGHTNESS, _CONTRAST, _SATURATION = range(NUMBERS)
_ERASE, _ERASE_AREA, _ERASE_RATIO, _ERASE_LEFT, _ERASE_TOP, _PART_LEFT, _PART_TOP = range(NUMBERS - 1)  # "more"

_MOST_OBLONG = math.log(4 / 3)
_GREY = (0.2989, 0.587, 0.114)  # as torchvision weighs the channels


class Augmentation:
    """Changes batches of normalized images.

    Args:
        kinds: of "flip", "crop", "color" and "erase", which are done, in this order.
        seed: of the random numbers.
        recipe: by which the images were normalized.
        crop_scale: smallest part of an image's area that a crop keeps.
        color_jitter: brightness, contrast and saturation are multiplied by 1 ± this at most.
        crop_size: (height, width) in pixels of the result; None for that of the images. "crop" resizes its box to it;
            without "crop" a part of this size is cut out of each image, anywhere.
    """

    def __init__(
        self,
        kinds: tuple[str, ...],
        seed: int,
        recipe: Recipe,
        crop_scale: float,
        color_jitter: float,
        crop_size: tuple[int, int] | None = None,
    ) -> None:
        self.kinds = kinds
        self.seed = seed
        self.recipe = recipe
        self.crop_scale = crop_scale
        self.color_jitter = color_jitter
        self.crop_size = crop_size

    def __call__(self, images_BCHW: Tensor, epoch: int, rows_B: Tensor) -> Tensor:
        """Return the images as this epoch sees them.

        Args:
            images_BCHW: (B, 3, H, W) float32, normalized; may be written over.
            epoch: from 0.
            rows_B: (B,) int64 on the CPU, their rows in the cache.

        Returns:
            (B, 3, H, W) float32, normalized, of `crop_size` if that is given.
        """
        random_BK = send(uniform("augment", self.seed, epoch, rows_B), images_BCHW.device)
        size = self.crop_size or (images_BCHW.shape[2], images_BCHW.shape[3])
        more_BK = uniform("more", self.seed, epoch, rows_B)
        if self.crop_size is not None and "crop" not in self.kinds:
            images_BCHW = cut_out(images_BCHW, self.crop_size, more_BK[:, _PART_LEFT], more_BK[:, _PART_TOP])
        if "flip" in self.kinds:
            images_BCHW = flip(images_BCHW, random_BK[:, _FLIP] < 0.5)
        if "crop" in self.kinds:
            boxes = crop_boxes(random_BK, self.crop_scale, images_BCHW.shape[3] / images_BCHW.shape[2])
            images_BCHW = crop(images_BCHW, *boxes, size)
        if "color" in self.kinds:
            factors_B3 = 1 + self.color_jitter * (2 * random_BK[:, [_BRIGHTNESS, _CONTRAST, _SATURATION]] - 1)
            images_BCHW = change_colors(images_BCHW, factors_B3, self.recipe.mean, self.recipe.std)
        if "erase" in self.kinds:
            images_BCHW = erase(images_BCHW, erased_boxes(more_BK, size))
        return images_BCHW


def cut_out(images_BCHW: Tensor, size: tuple[int, int], left_B: Tensor, top_B: Tensor) -> Tensor:
    """Cut a box of (height, width) pixels out of each image, at a position by numbers (B,) in 0..1 on the CPU."""
    (height, width), (whole_height, whole_width) = size, images_BCHW.shape[2:]
    x_B = (left_B * (whole_width - width + 1)).long().tolist()
    y_B = (top_B * (whole_height - height + 1)).long().tolist()
    parts = torch.empty((*images_BCHW.shape[:2], *size), dtype=images_BCHW.dtype, device=images_BCHW.device)
    for part_CHW, image_CHW, x, y in zip(parts, images_BCHW, x_B, y_B, strict=True):
        part_CHW.copy_(image_CHW[:, y : y + height, x : x + width])
    return parts


def center_crop(images_NCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut (height, width) pixels out of the center, as torchvision's `CenterCrop` does."""
    top, left = (round((whole - part) / 2) for whole, part in zip(images_NCHW.shape[-2:], size, strict=True))
    return images_NCHW[..., top : top + size[0], left : left + size[1]].contiguous()


def flip(images_BCHW: Tensor, which_B: Tensor) -> Tensor:
    """Mirror left and right the images, which may be written over, for which `which_B` (B,) is True."""
    if images_BCHW.device.type != "cpu":
        return torch.where(which_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)
    for image_CHW, is_flipped in zip(images_BCHW, which_B.tolist(), strict=True):
        if is_flipped:
            image_CHW.copy_(image_CHW.flip(2))
    return images_BCHW


def crop_boxes(random_BK: Tensor, least: float, aspect: float = 1.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose a box in each image, anywhere, of at least `least` of its area.

    Its width is 3/4 to 4/3 of its height. A large box is closer to the shape of the image, so that it fits into it.

    Args:
        random_BK: (B, 8) uniform numbers.
        least: smallest area, as a fraction of the image's.
        aspect: width of the images / their height.

    Returns:
        left, top, width, height: (B,) each, as fractions of the image's sides.
    """
    area = least + (1 - least) * random_BK[:, _AREA]
    fits = -area.log()  # the ratio of a box's sides, over that of the image, lies between its area and 1 / area
    shape = math.log(aspect)
    low = torch.minimum((-fits).clamp(min=-_MOST_OBLONG - shape), fits)
    high = torch.maximum(fits.clamp(max=_MOST_OBLONG - shape), -fits)
    ratio = torch.exp((low + high) / 2 + (high - low) / 2 * (2 * random_BK[:, _RATIO] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return random_BK[:, _LEFT] * (1 - width), random_BK[:, _TOP] * (1 - height), width, height


def crop(
    images_BCHW: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor, size: tuple[int, int]
) -> Tensor:
    """Resize a box of each image, bilinear between the centers of pixels, without antialiasing.

    Args:
        images_BCHW: (B, C, H, W).
        left, top, width, height: (B,) each, as fractions of the image's sides.
        size: (height, width) of the result, in pixels.
    """
    if images_BCHW.device.type == "cpu":
        return _crop_one_by_one(images_BCHW, left, top, width, height, size)
    nothing = torch.zeros_like(left)
    x_B3 = torch.stack([width, nothing, 2 * left + width - 1], dim=1)
    y_B3 = torch.stack([nothing, height, 2 * top + height - 1], dim=1)
    grid = affine_grid(torch.stack([x_B3, y_B3], dim=1), [*images_BCHW.shape[:2], *size], align_corners=False)
    return grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def _crop_one_by_one(
    images_BCHW: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor, size: tuple[int, int]
) -> Tensor:
    """Do the same first along columns, then along rows: 0.4 of the time that `grid_sample` takes for it on a core."""
    cropped_BCHW = images_BCHW.new_empty((*images_BCHW.shape[:2], *size))
    across = _between(left, width, images_BCHW.shape[3], size[1])
    down = _between(top, height, images_BCHW.shape[2], size[0])
    for image, cropped, x, x_part, y, y_part in zip(images_BCHW, cropped_BCHW, *across, *down, strict=True):
        start, end = int(x[0]), int(x[-1]) + 2
        columns_CHW = _blend_rows(image[:, :, start:end], y, y_part)
        cropped.copy_(_blend_rows(columns_CHW.transpose(1, 2).contiguous(), x - start, x_part).transpose(1, 2))
    return cropped_BCHW


def _between(start_B: Tensor, part_B: Tensor, side: int, new_side: int) -> tuple[Tensor, Tensor]:
    """Return (B, S) each, for a crop's pixels along a side: the first of two neighbours, and the second's weight."""
    middles_S = (torch.arange(new_side) + 0.5) / new_side
    places_BS = ((start_B[:, None] + middles_S * part_B[:, None]) * side - 0.5).clamp(0, side - 1)
    first_BS = places_BS.long().clamp(min=0, max=max(0, side - 2))
    return first_BS, places_BS - first_BS


def _blend_rows(image_CHW: Tensor, first_S: Tensor, part_S: Tensor) -> Tensor:
    rows_CSW = image_CHW.index_select(1, first_S)
    return rows_CSW.lerp_(image_CHW.index_select(1, first_S + 1), part_S[None, :, None])


def change_colors(images_BCHW: Tensor, factors_B3: Tensor, mean: RGB, std: RGB) -> Tensor:
    """Multiply brightness, contrast and saturation, in this order, as torchvision's `adjust_*` functions do.

    Args:
        images_BCHW: (B, 3, H, W) normalized; written over.
        factors_B3: for brightness, contrast and saturation; 1 changes nothing.
        mean, std: by which the images were normalized.
    """
    mean_C11, std_C11, grey_C = (images_BCHW.new_tensor(v) for v in (mean, std, _GREY))
    mean_C11, std_C11 = mean_C11.view(3, 1, 1), std_C11.view(3, 1, 1)
    at_once = 1 if images_BCHW.device.type == "cpu" else len(images_BCHW)
    for pixels, factors in zip(images_BCHW.split(at_once), factors_B3.split(at_once), strict=True):
        brightness, contrast, saturation = (f[:, None, None, None] for f in factors.unbind(1))
        pixels.mul_(std_C11 * brightness).add_(mean_C11 * brightness).clamp_(0, 1)  # on the 0..1 scale
        grey = (pixels.mean((2, 3)) @ grey_C)[:, None, None, None]
        pixels.mul_(contrast).add_((1 - contrast) * grey).clamp_(0, 1)
        grey = torch.einsum("bchw,c->bhw", pixels, grey_C)[:, None]
        pixels.mul_(saturation).add_(grey.mul_(1 - saturation)).clamp_(0, 1)
        pixels.sub_(mean_C11).div_(std_C11)
    return images_BCHW


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
    sides = torch.tensor([size[1], size[1], size[0], size[0]])
    return (torch.stack([left, left + width, top, top + height], dim=1) * sides).round().long()


def erase(images_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """Set a box of each image, which may be written over, to 0: the mean that it was normalized by.

    Args:
        images_BCHW: (B, C, H, W).
        box_B4: of `erased_boxes`, on the CPU.
    """
    if images_BCHW.device.type != "cpu":
        inside = box_mask(send(box_B4, images_BCHW.device), images_BCHW.shape[-2:])
        return images_BCHW.masked_fill(inside, 0.0)
    for image_CHW, (left, right, top, bottom) in zip(images_BCHW, box_B4.tolist(), strict=True):
        image_CHW[:, top:bottom, left:right] = 0
    return images_BCHW


def box_mask(box_B4: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, 1, H, W), True inside a box, for images of (height, width) `size`."""
    y_H, x_W = (torch.arange(side, device=box_B4.device) for side in size)
    left, right, top, bottom = (edge[:, None] for edge in box_B4.unbind(1))
    columns_BW, rows_BH = (x_W >= left) & (x_W < right), (y_H >= top) & (y_H < bottom)
    return (rows_BH[:, :, None] & columns_BW[:, None, :])[:, None]

"""Random variants of training images, made in whole batches on the device: crops, flips, colors, erased boxes.

What becomes of an image follows from (data seed, epoch, row) alone: never from the batch it came in, the number of
workers, or where a run was cut.

On the CPU one image goes through after the other, in its own memory, which stays in the core's cache through all steps;
on a GPU all go through at once.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from pipeline.load.random import NUMBERS, uniform
from pipeline.load.to_device import send
from pipeline.recipe import RGB, Recipe

# each use has a random number of its own, so that no kind of change shifts those of another
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
        crop_size: side, in pixels, of a part of each image that is cut out first, anywhere; None for all of it.
    """

    def __init__(
        self,
        kinds: tuple[str, ...],
        seed: int,
        recipe: Recipe,
        crop_scale: float,
        color_jitter: float,
        crop_size: int | None = None,
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
            images_BCHW: (B, 3, S, S) float32, normalized; may be written over.
            epoch: from 0.
            rows_B: (B,) int64 on the CPU, their rows in the cache.
        """
        random_BK = send(uniform("augment", self.seed, epoch, rows_B), images_BCHW.device)
        if self.crop_size is not None or "erase" in self.kinds:
            more_BK = uniform("more", self.seed, epoch, rows_B)
        if self.crop_size is not None:
            images_BCHW = cut_out(images_BCHW, self.crop_size, more_BK[:, _PART_LEFT], more_BK[:, _PART_TOP])
        if "flip" in self.kinds:
            images_BCHW = flip(images_BCHW, random_BK[:, _FLIP] < 0.5)
        if "crop" in self.kinds:
            left, top, width, height = crop_boxes(random_BK, self.crop_scale)
            images_BCHW = crop(images_BCHW, left, top, width, height)
        if "color" in self.kinds:
            factors_B3 = 1 + self.color_jitter * (2 * random_BK[:, [_BRIGHTNESS, _CONTRAST, _SATURATION]] - 1)
            images_BCHW = change_colors(images_BCHW, factors_B3, self.recipe.mean, self.recipe.std)
        if "erase" in self.kinds:
            images_BCHW = erase(images_BCHW, erased_boxes(more_BK, images_BCHW.shape[-1]))
        return images_BCHW


def cut_out(images_BCHW: Tensor, size: int, left_B: Tensor, top_B: Tensor) -> Tensor:
    """Cut a square of so many pixels out of each image, its place by numbers (B,) in 0..1 on the CPU."""
    places = images_BCHW.shape[-1] - size + 1
    parts = torch.empty((*images_BCHW.shape[:2], size, size), dtype=images_BCHW.dtype, device=images_BCHW.device)
    offsets = zip((left_B * places).long().tolist(), (top_B * places).long().tolist(), strict=True)
    for part_CHW, image_CHW, (x, y) in zip(parts, images_BCHW, offsets, strict=True):
        part_CHW.copy_(image_CHW[:, y : y + size, x : x + size])
    return parts


def center_crop(images_NCHW: Tensor, size: int) -> Tensor:
    """Cut a square of so many pixels out of the middle, as torchvision's `CenterCrop` does."""
    start = round((images_NCHW.shape[-1] - size) / 2)
    return images_NCHW[..., start : start + size, start : start + size].contiguous()


def flip(images_BCHW: Tensor, which_B: Tensor) -> Tensor:
    """Mirror left and right the images, which may be written over, for which `which_B` (B,) is True."""
    if images_BCHW.device.type != "cpu":
        return torch.where(which_B[:, None, None, None], images_BCHW.flip(3), images_BCHW)
    for image_CHW, is_flipped in zip(images_BCHW, which_B.tolist(), strict=True):
        if is_flipped:
            image_CHW.copy_(image_CHW.flip(2))
    return images_BCHW


def crop_boxes(random_BK: Tensor, least: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Choose a box in each image, anywhere, of at least `least` of its area.

    Its sides are 3:4 to 4:3. A large box is squarer: the ratio of its sides stays between its area and 1 / area, so
    that it fits into the image.

    Returns:
        left, top, width, height: (B,) each, as parts of the side.
    """
    area = least + (1 - least) * random_BK[:, _AREA]
    ratio = torch.exp((-area.log()).clamp(max=_MOST_OBLONG) * (2 * random_BK[:, _RATIO] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    return random_BK[:, _LEFT] * (1 - width), random_BK[:, _TOP] * (1 - height), width, height


def crop(images_BCHW: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Cut a part out of each image and resize it to the whole, bilinear between the pixels' centres.

    Args:
        images_BCHW: (B, C, S, S).
        left, top, width, height: (B,) each, as parts of the side.
    """
    if images_BCHW.device.type == "cpu":
        return _crop_one_by_one(images_BCHW, left, top, width, height)
    nothing = torch.zeros_like(left)
    x_B3 = torch.stack([width, nothing, 2 * left + width - 1], dim=1)
    y_B3 = torch.stack([nothing, height, 2 * top + height - 1], dim=1)
    grid = affine_grid(torch.stack([x_B3, y_B3], dim=1), list(images_BCHW.shape), align_corners=False)
    return grid_sample(images_BCHW, grid, padding_mode="border", align_corners=False)


def _crop_one_by_one(images_BCHW: Tensor, left: Tensor, top: Tensor, width: Tensor, height: Tensor) -> Tensor:
    """Do the same first along columns, then along rows: 0.4 of the time that `grid_sample` takes for it on a core."""
    side = images_BCHW.shape[-1]
    cropped_BCHW = torch.empty_like(images_BCHW)
    across, down = _between(left, width, side), _between(top, height, side)
    for image, cropped, x, x_part, y, y_part in zip(images_BCHW, cropped_BCHW, *across, *down, strict=True):
        start, end = int(x[0]), int(x[-1]) + 2
        columns_CHW = _blend_rows(image[:, :, start:end], y, y_part)
        cropped.copy_(_blend_rows(columns_CHW.transpose(1, 2).contiguous(), x - start, x_part).transpose(1, 2))
    return cropped_BCHW


def _between(start_B: Tensor, part_B: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return, for each pixel of a crop's side, the first of two pixels (B, S) that it lies between, and how far on."""
    middles_S = (torch.arange(side) + 0.5) / side
    places_BS = ((start_B[:, None] + middles_S * part_B[:, None]) * side - 0.5).clamp(0, side - 1)
    first_BS = places_BS.long().clamp(max=side - 2)
    return first_BS, places_BS - first_BS


def _blend_rows(image_CHW: Tensor, first_S: Tensor, part_S: Tensor) -> Tensor:
    rows_CSW = image_CHW.index_select(1, first_S)
    return rows_CSW.lerp_(image_CHW.index_select(1, first_S + 1), part_S[None, :, None])


def change_colors(images_BCHW: Tensor, factors_B3: Tensor, mean: RGB, std: RGB) -> Tensor:
    """Multiply brightness, contrast and saturation, in this order, as torchvision's `adjust_*` functions do.

    Args:
        images_BCHW: (B, 3, S, S) normalized; written over.
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


def erased_boxes(random_BK: Tensor, side: int) -> Tensor:
    """Choose what is erased: in half of the images 2 to 33 % of the area, its sides 0.3 to 3.3 where that fits.

    These are the settings of torchvision's and timm's `RandomErasing`.

    Returns:
        (B, 4) int64: left, right, top, bottom, in pixels; the last ones not included.
    """
    area = (0.02 + (1 / 3 - 0.02) * random_BK[:, _ERASE_AREA]) * (random_BK[:, _ERASE] < 0.5)
    ratio = torch.exp(math.log(3.3) * (2 * random_BK[:, _ERASE_RATIO] - 1))
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    left, top = random_BK[:, _ERASE_LEFT] * (1 - width), random_BK[:, _ERASE_TOP] * (1 - height)
    return (torch.stack([left, left + width, top, top + height], dim=1) * side).round().long()


def erase(images_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """Set a box of each image, which may be written over, to 0: the mean that it was normalized by.

    Args:
        images_BCHW: (B, C, S, S).
        box_B4: of `erased_boxes`, on the CPU.
    """
    if images_BCHW.device.type != "cpu":
        inside = box_mask(send(box_B4, images_BCHW.device), images_BCHW.shape[-1])
        return images_BCHW.masked_fill(inside, 0.0)
    for image_CHW, (left, right, top, bottom) in zip(images_BCHW, box_B4.tolist(), strict=True):
        image_CHW[:, top:bottom, left:right] = 0
    return images_BCHW


def box_mask(box_B4: Tensor, side: int) -> Tensor:
    """Return (B, 1, S, S), True inside a box."""
    place = torch.arange(side, device=box_B4.device)
    left, right, top, bottom = (edge[:, None] for edge in box_B4.unbind(1))
    columns_BS, rows_BS = (place >= left) & (place < right), (place >= top) & (place < bottom)
    return (rows_BS[:, :, None] & columns_BS[:, None, :])[:, None]

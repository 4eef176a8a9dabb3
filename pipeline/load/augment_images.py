"""Changes of whole batches on any device, in PyTorch's operations: resampled pixels, colors, erased boxes.

Every step is rounded as in `_batch.c`, so the bits are those of the compiled part.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.load.batch_memory import send
from pipeline.recipe import RGB

_GREY = (0.2989, 0.587, 0.114)  # as torchvision weighs the channels


class Places(NamedTuple):
    """Where the pixels of a batch lie in the images that they are taken from.

    Attributes:
        x, y: (B, w) and (B, h) int32, the column and the line; of resampled pixels the first of two.
        step: (B,) int64, to the second column: 1, or -1 in a flipped image, whose columns go down. Second lines follow.
        x_part, y_part: (B, w) and (B, h) float32, the weight of the second one, 0 where there is none. None: pixels are
            copied, and their lines and columns follow each other.
    """

    x: NDArray[np.int32]
    y: NDArray[np.int32]
    step: NDArray[np.int64]
    x_part: NDArray[np.float32] | None = None
    y_part: NDArray[np.float32] | None = None


def take_pixels(images_BCHW: Tensor, places: Places) -> Tensor:
    """Return (B, C, h, w): pixels that are copied, or bilinear between four: first across, then down."""
    x, y, step = (_on(images_BCHW.device, values).long() for values in places[:3])
    if places.x_part is None or places.y_part is None:
        return _lines(_columns(images_BCHW, x), y)
    x_part, y_part = (_on(images_BCHW.device, part) for part in (places.x_part, places.y_part))
    next_x = (x + step[:, None]).clamp(0, images_BCHW.shape[3] - 1)
    next_y = (y + 1).clamp(max=images_BCHW.shape[2] - 1)
    images_BCHw = _blend(_columns(images_BCHW, x), _columns(images_BCHW, next_x), x_part[:, None, None, :])
    return _blend(_lines(images_BCHw, y), _lines(images_BCHw, next_y), y_part[:, None, :, None])


def _on(device: torch.device, values: NDArray[Any]) -> Tensor:
    return send(torch.from_numpy(np.ascontiguousarray(values)), device)


def _columns(images_BCHW: Tensor, x_Bw: Tensor) -> Tensor:
    if len(images_BCHW) == 1:
        return images_BCHW.index_select(3, x_Bw[0])
    return images_BCHW.gather(3, x_Bw[:, None, None, :].expand(-1, *images_BCHW.shape[1:3], -1))


def _lines(images_BCHW: Tensor, y_Bh: Tensor) -> Tensor:
    if len(images_BCHW) == 1:
        return images_BCHW.index_select(2, y_Bh[0])
    batch, channels, _, width = images_BCHW.shape
    return images_BCHW.gather(2, y_Bh[:, None, :, None].expand(batch, channels, -1, width))


def _blend(first: Tensor, second: Tensor, part: Tensor) -> Tensor:
    return first.add_(second.sub_(first).mul_(part))  # `lerp_` rounds otherwise


def change_colors(images_BCHW: Tensor, factors_B3: Tensor, mean: RGB, std: RGB) -> Tensor:
    """Multiply brightness, contrast and saturation, in this order, as torchvision's `adjust_*` functions do.

    Args:
        images_BCHW: (B, 3, H, W) normalized; written over.
        factors_B3: for brightness, contrast and saturation; 1 changes nothing.
        mean, std: by which the images were normalized.
    """
    mean_C11, std_C11, grey_C11 = (images_BCHW.new_tensor(values).view(3, 1, 1) for values in (mean, std, _GREY))
    brightness, contrast, saturation = (f[:, None, None, None] for f in factors_B3.unbind(1))
    x = images_BCHW.mul_(std_C11 * brightness).add_(mean_C11 * brightness).clamp_(0, 1)  # on the 0..1 scale
    steps_BC = (x * 2.0**24).int().sum((2, 3))  # integers: the same in any order
    red, green, blue = (steps_BC.double() * grey_C11.flatten().double()).unbind(1)
    grey = ((red + green + blue) / (2.0**24 * images_BCHW.shape[2:].numel())).float()[:, None, None, None]
    x.mul_(contrast).add_((1 - contrast) * grey).clamp_(0, 1)
    red, green, blue = (x * grey_C11).split(1, dim=1)
    grey = (red + green + blue) * (1 - saturation)
    return x.mul_(saturation).add_(grey).clamp_(0, 1).sub_(mean_C11).div_(std_C11)


def erase(images_BCHW: Tensor, box_B4: Tensor) -> Tensor:
    """Set a box (left, right, top, bottom) of each image to 0: the mean that it was normalized by."""
    return images_BCHW.masked_fill(box_mask(box_B4, images_BCHW.shape[-2:]), 0.0)


def box_mask(box_B4: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, 1, H, W), True inside a box, for images of (height, width) `size`."""
    y_H, x_W = (torch.arange(side, device=box_B4.device) for side in size)
    left, right, top, bottom = (edge[:, None] for edge in box_B4.unbind(1))
    columns_BW, rows_BH = (x_W >= left) & (x_W < right), (y_H >= top) & (y_H < bottom)
    return (rows_BH[:, :, None] & columns_BW[:, None, :])[:, None]

"""Mixtures of two training images and their labels, in whole batches: mixup and cutmix.

The partner of an image is another training image, read in addition. It follows, as the parts that each has, from
(data seed, epoch, row) alone: never from the batch, so neither the batch size, the number of workers or of ranks, nor
where a run was cut makes a difference. The price is that every image is read twice an epoch, once as a partner.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import one_hot

from pipeline.load.augment_images import box_mask
from pipeline.load.batch_memory import send
from pipeline.load.random import uniform

MIXUP, CUTMIX = "mixup", "cutmix"

_PARTNER, _PART, _WHICH, _LEFT, _TOP = range(5)  # random numbers an image
_CELLS = 4096  # of the table of a distribution


class Mixture(NamedTuple):
    """How each image of a batch is mixed.

    Attributes:
        partners_B: int64, the row that each is mixed with.
        is_cut_B: whether a box of the partner is pasted, or both are blended.
        part_B: float32, the part of the label that is the image's own; of blended pixels too.
        box_B4: int64, the box: left, right, top, bottom, in pixels; the last ones not included.
    """

    partners_B: Tensor
    is_cut_B: Tensor
    part_B: Tensor
    box_B4: Tensor


class Mixing:
    """Draws the partner of each image and the shares of both.

    Args:
        kinds: "mixup", "cutmix" or both; of both, each image has one, by a fair coin.
        seed: of the random numbers.
        mixup_alpha, cutmix_alpha: the image's own part is drawn from Beta(alpha, alpha): 1 is uniform, near 0 most
            images stay almost whole.
    """

    def __init__(self, kinds: tuple[str, ...], seed: int, mixup_alpha: float, cutmix_alpha: float) -> None:
        self.kinds = kinds
        self.seed = seed
        self._blended, self._cut = BetaTable(mixup_alpha), BetaTable(cutmix_alpha)

    def draw(self, epoch: int, rows_B: Tensor, among_M: Tensor, size: tuple[int, int]) -> Mixture:
        """Return the mixture of an epoch's rows, on the CPU.

        Args:
            epoch: from 0.
            rows_B: (B,) int64 on the CPU.
            among_M: (M,) int64, the training rows, of which partners are taken.
            size: (height, width) of the images, in pixels.
        """
        random_BK = uniform("mix", self.seed, epoch, rows_B)
        partners_B = among_M[(random_BK[:, _PARTNER].double() * len(among_M)).long()]
        is_cut_B = torch.full((len(rows_B),), CUTMIX in self.kinds)
        if MIXUP in self.kinds and CUTMIX in self.kinds:
            is_cut_B = random_BK[:, _WHICH] < 0.5
        part_B = torch.where(is_cut_B, self._cut(random_BK[:, _PART]), self._blended(random_BK[:, _PART]))
        box_B4 = cut_boxes(part_B, random_BK[:, _LEFT], random_BK[:, _TOP], size) * is_cut_B[:, None]
        left, right, top, bottom = box_B4.unbind(1)
        left_over_B = 1 - (right - left) * (bottom - top) / (size[0] * size[1])
        return Mixture(partners_B, is_cut_B, torch.where(is_cut_B, left_over_B, part_B).float(), box_B4)


def mix_images(mixture: Mixture, images_BCHW: Tensor, others_BCHW: Tensor) -> Tensor:
    """Return the images with a box of their partner pasted, or blended with it; both are written over."""
    blend_B = torch.where(mixture.is_cut_B, 1.0, mixture.part_B)
    if images_BCHW.device.type == "cpu":  # one image after the other: only the changed pixels are written
        mixed = zip(images_BCHW.numpy(), others_BCHW.numpy(), blend_B.numpy(), mixture.box_B4.tolist(), strict=True)
        for image_CHW, other_CHW, blend, (left, right, top, bottom) in mixed:  # NumPy never starts threads
            image_CHW[:, top:bottom, left:right] = other_CHW[:, top:bottom, left:right]
            if blend < 1:
                image_CHW *= blend
                other_CHW *= 1 - blend
                image_CHW += other_CHW
        return images_BCHW
    device = images_BCHW.device
    inside = box_mask(send(mixture.box_B4, device), images_BCHW.shape[-2:])
    kept = torch.where(inside, 0.0, send(blend_B, device)[:, None, None, None])
    return torch.lerp(others_BCHW, images_BCHW, kept)


def mix_labels(mixture: Mixture, labels_B: Tensor, others_B: Tensor, classes: int) -> Tensor:
    """Return (B, C) float32: the share of each class in the labels (int64) of images and partners."""
    part_B1 = send(mixture.part_B, labels_B.device)[:, None]
    return torch.lerp(one_hot(others_B, classes).float(), one_hot(labels_B, classes).float(), part_B1)


class BetaTable:
    """Turns uniform numbers into those of Beta(alpha, alpha), by a table of the inverse of its distribution function.

    For alpha below 1 the density has poles at both ends; in t, where x = sigmoid(logit(t) / alpha), it has none.
    """

    def __init__(self, alpha: float) -> None:
        middles = (np.arange(_CELLS) + 0.5) / _CELLS
        self._power = 1 / min(alpha, 1.0)
        logits = np.log(middles / (1 - middles)) * self._power
        log_x, log_rest = -np.logaddexp(0, -logits), -np.logaddexp(0, logits)
        density = np.exp(alpha * (log_x + log_rest) - np.log(middles * (1 - middles)))
        self._below: NDArray[np.float64] = np.concatenate([[0.0], density.cumsum() / density.sum()])

    def __call__(self, uniform_B: Tensor) -> Tensor:
        """Map (B,) numbers uniform in 0..1 to (B,) float64."""
        t = np.interp(uniform_B.double().numpy(), self._below, np.linspace(0, 1, _CELLS + 1))
        with np.errstate(divide="ignore", over="ignore"):
            return torch.from_numpy(1 / (1 + ((1 - t) / t) ** self._power))


def cut_boxes(part_B: Tensor, left_B: Tensor, top_B: Tensor, size: tuple[int, int]) -> Tensor:
    """Choose where the partner is pasted: a box with 1 - part of the area, shaped as the image, cut at its border.

    Returns:
        (B, 4) int64: left, right, top, bottom, in pixels; the last ones not included.
    """
    edges = []
    for center_B, side in ((left_B * size[1], size[1]), (top_B * size[0], size[0])):
        half_B = (1 - part_B).sqrt() * side / 2
        edges += [edge.round().clamp(0, side) for edge in (center_B - half_B, center_B + half_B)]
    return torch.stack(edges, dim=1).long()

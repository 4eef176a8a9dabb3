"""Measure loss and accuracy during an epoch, and find the batch at which the loss became NaN or infinite."""

from typing import Any

import torch
from torch import Tensor

from modelnet.runtime.ranks import Ranks


class RunningMean:
    """Averages of loss and accuracy over an epoch, taken before each step.

    Every image counts once, whatever the batch it came in. Many steps are counted at once: that spares an accelerator
    the waiting, and single images most of the work. Losses are added one by one, so it never matters how many.

    Args:
        ranks: each of which counts its part of every batch; all have the same means.
    """

    _AT_ONCE = 64  # steps

    def __init__(self, ranks: Ranks | None = None) -> None:
        self._ranks = ranks or Ranks()
        self.images = 0
        self._loss_sum = 0.0
        self._correct = 0
        self._steps: list[tuple[Tensor, Tensor, Tensor, int]] = []

    def add(self, loss: Tensor, logits_BC: Tensor, labels_B: Tensor, images: int | None = None) -> None:
        """Count a batch, given the mean of its losses.

        Args:
            loss: the mean, or this rank's part of it.
            logits_BC, labels_B: of this rank's images; of mixed labels (B, C) the one with the largest part counts.
            images: of the whole batch; None where these are all.
        """
        images = len(labels_B) if images is None else images
        labels_B = labels_B.argmax(1) if labels_B.dim() == 2 else labels_B
        self.images += images
        self._steps.append((loss.detach(), logits_BC.detach(), labels_B, images))
        if len(self._steps) == self._AT_ONCE:
            self.settle()

    def settle(self) -> None:
        """Count all that was added; every rank has to do so at the same time."""
        if not self._steps:
            return
        losses, logits, labels, images = zip(*self._steps, strict=True)
        correct = (torch.cat(logits).argmax(1) == torch.cat(labels)).sum()
        for loss, count in zip(self._ranks.sum(torch.stack(losses)).tolist(), images, strict=True):
            self._loss_sum += loss * count
        self._correct += int(self._ranks.sum(correct))
        self._steps.clear()

    @property
    def loss(self) -> float:
        """Mean loss of an image."""
        self.settle()
        return self._loss_sum / self.images

    @property
    def accuracy(self) -> float:
        """Fraction of the images that were classified correctly, 0..1."""
        self.settle()
        return self._correct / self.images

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, exactly."""
        self.settle()
        return {"loss_sum": self._loss_sum, "correct": self._correct, "images": self.images}

    @classmethod
    def from_dict(cls, values: dict[str, Any], ranks: Ranks | None = None) -> "RunningMean":
        """Restore `to_dict`'s values."""
        running = cls(ranks)
        running._loss_sum, running._correct, running.images = values["loss_sum"], values["correct"], values["images"]
        return running


class Losses:
    """The losses since the last check, to find the batch at which one became NaN or infinite.

    Reading a loss from an accelerator waits for it, so losses are checked for many steps at once there.
    """

    def __init__(self, device: torch.device) -> None:
        self.every = 1 if device.type == "cpu" else 64
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Keep the loss of one step."""
        self._losses.append(loss.detach())

    @property
    def due(self) -> bool:
        """Whether it is time to check."""
        return len(self._losses) >= self.every

    def first_bad(self) -> tuple[int, float] | None:
        """Return (how many steps ago, the loss) of the first one that is NaN or infinite, and forget all."""
        values = [float(loss) for loss in self._losses]
        self._losses.clear()
        for i, value in enumerate(values):
            if not -torch.inf < value < torch.inf:
                return len(values) - i, value
        return None

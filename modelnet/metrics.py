"""Loss and accuracy over images: the running means of an epoch, and those of a whole set."""

from typing import Any

import torch
from torch import Tensor


class RunningMean:
    """Mean loss and accuracy over the images of an epoch, each measured before the step it led to.

    Every image counts once, whatever the batch it came in. Many steps are counted at once: that spares an accelerator
    the waiting, and single images most of the work. Losses are added one by one, so it never matters how many.
    """

    _AT_ONCE = 64  # steps

    def __init__(self) -> None:
        self.images = 0
        self._loss_sum = 0.0
        self._correct = 0
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, logits_BC: Tensor, labels_B: Tensor) -> None:
        """Count a batch, given the mean of its losses."""
        self.images += len(labels_B)
        self._steps.append((loss.detach(), logits_BC.detach(), labels_B))
        if len(self._steps) == self._AT_ONCE:
            self._count()

    def _count(self) -> None:
        if not self._steps:
            return
        losses, logits, labels = zip(*self._steps, strict=True)
        for loss, labels_B in zip(torch.stack(losses).tolist(), labels, strict=True):
            self._loss_sum += loss * len(labels_B)
        self._correct += int((torch.cat(logits).argmax(1) == torch.cat(labels)).sum())
        self._steps.clear()

    @property
    def loss(self) -> float:
        """Mean loss of an image."""
        self._count()
        return self._loss_sum / self.images

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified right, 0..1."""
        self._count()
        return self._correct / self.images

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, exactly."""
        self._count()
        return {"loss_sum": self._loss_sum, "correct": self._correct, "images": self.images}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunningMean":
        """Go on from `to_dict`'s values."""
        running = cls()
        running._loss_sum, running._correct, running.images = values["loss_sum"], values["correct"], values["images"]
        return running


class Losses:
    """The losses since the last look, to find the batch at which one stopped being a number.

    Looking at a loss on an accelerator waits for it, so there it is done for many steps at once.
    """

    def __init__(self, device: torch.device) -> None:
        self.every = 1 if device.type == "cpu" else 64
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Keep the loss of one step."""
        self._losses.append(loss.detach())

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return len(self._losses) >= self.every

    def first_bad(self) -> tuple[int, float] | None:
        """Return (how many steps ago, the loss) of the first one that is NaN or infinite, and forget all."""
        values = [float(loss) for loss in self._losses]
        self._losses.clear()
        for i, value in enumerate(values):
            if not -torch.inf < value < torch.inf:
                return len(values) - i, value
        return None

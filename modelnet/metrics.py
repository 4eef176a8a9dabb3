"""Loss and accuracy over images: the running means of an epoch, and those of a whole set."""

from typing import Any

import torch
from torch import Tensor


class RunningMean:
    """Mean loss and accuracy over the images of an epoch, each measured before the step it led to.

    Every image counts once, whatever the batch it came in. The sums stay on the network's device, in float64, so that
    nothing waits for an accelerator until somebody asks.
    """

    def __init__(self) -> None:
        self.loss_sum: Tensor | float = 0.0
        self.correct: Tensor | int = 0
        self.images = 0

    def add(self, loss: Tensor, logits_BC: Tensor, labels_B: Tensor) -> None:
        """Count a batch, given the mean of its losses."""
        count = len(labels_B)
        self.loss_sum = self.loss_sum + loss.detach().double() * count
        self.correct = self.correct + (logits_BC.detach().argmax(1) == labels_B).sum()
        self.images += count

    @property
    def loss(self) -> float:
        """Mean loss of an image."""
        return float(self.loss_sum) / self.images

    @property
    def accuracy(self) -> float:
        """Part of the images that were classified right, 0..1."""
        return int(self.correct) / self.images

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, exactly."""
        return {"loss_sum": float(self.loss_sum), "correct": int(self.correct), "images": self.images}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunningMean":
        """Go on from `to_dict`'s values."""
        running = cls()
        running.loss_sum, running.correct, running.images = values["loss_sum"], values["correct"], values["images"]
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

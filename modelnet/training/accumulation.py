"""Which batches begin and end a step: gradients accumulated over several, cleared for each step, epoch or never."""

import torch
from torch import Tensor

from modelnet.data.batches import Batches
from modelnet.options import TrainOptions


class Rhythm:
    """What happens before and after the gradient of each batch of an epoch.

    With `accumulate` k, k batches make one step, of the gradient that one batch of all their images has (class weights
    aside, which every batch applies to itself). The last step of an epoch takes what is left.

    Args:
        options: of the run.
        batches: of an epoch.

    Attributes:
        steps: of an epoch.
        keeps_gradients: whether gradients outlive a batch, so that a checkpoint has to hold them.
    """

    def __init__(self, options: TrainOptions, batches: Batches) -> None:
        self._clear = options.zero_grad
        self._accumulate = options.accumulate
        self._batch_size = options.batch_size
        self._batches = len(batches)
        self._images = batches.images_an_epoch
        self._device = batches.device
        self._ranks = batches.ranks.size
        self.steps = -(-len(batches) // options.accumulate)
        self.keeps_gradients = options.accumulate > 1 or options.zero_grad != "batch"

    def clears(self, batch: int) -> bool:
        """Whether gradients are set to zero before a batch."""
        if self._clear == "batch":
            return batch % self._accumulate == 0
        return self._clear == "epoch" and batch == 0

    def share(self, batch: int) -> Tensor | None:
        """Return the part, as a scalar, that a batch's mean loss has in that of its step; None for all of it.

        What the ranks of a batch have of its gradient is averaged afterwards, and is meant to be added up: so each
        has it times their number.
        """
        if self._accumulate == 1 and self._ranks == 1:
            return None
        first = batch // self._accumulate * self._accumulate
        of_step = self._images_of(first, first + self._accumulate)
        share = self._images_of(batch, batch + 1) / of_step * self._ranks
        return torch.full((), share, device=self._device)

    def steps_after(self, batch: int) -> bool:
        """Whether the weights change after a batch."""
        return (batch + 1) % self._accumulate == 0 or batch + 1 == self._batches

    def step(self, epoch: int, batch: int) -> int:
        """Return the number, over all epochs, of the step that a batch belongs to."""
        return epoch * self.steps + batch // self._accumulate

    def _images_of(self, first: int, end: int) -> int:
        """Count the images of batches `first` to `end`."""
        return min(end * self._batch_size, self._images) - first * self._batch_size

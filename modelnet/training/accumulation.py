"""Which batches begin and end a step: gradients accumulated over several, cleared for each step, epoch or never."""

import torch
from torch import Tensor

from modelnet.options import TrainOptions
from pipeline.load.batch_plan import BatchPlan


class Accumulation:
    """Says what happens before and after the gradient of each batch of an epoch.

    With `accumulate` k, k batches make one step, with the gradient that one batch of all their images has. The last
    step of an epoch takes the batches that are left.

    Args:
        options: of the run.
        plan: of the batches.
        device: of the losses.

    Attributes:
        steps: of an epoch.
        keeps_gradients: whether gradients outlive a batch, so that a checkpoint has to hold them.
    """

    def __init__(self, options: TrainOptions, plan: BatchPlan, device: torch.device) -> None:
        self._clear = options.zero_grad
        self._accumulate = options.accumulate
        self._plan = plan
        self._device = device
        self.steps = -(-len(plan) // options.accumulate)
        self.keeps_gradients = options.accumulate > 1 or options.zero_grad != "batch"

    def clears(self, batch: int) -> bool:
        """Whether gradients are set to zero before a batch."""
        if self._clear == "batch":
            return batch % self._accumulate == 0
        return self._clear == "epoch" and batch == 0

    def share(self, batch: int) -> Tensor | None:
        """Return the share, as a scalar, that a batch's mean loss has in that of its step; None for all of it.

        Ranks average their gradients after a batch, where the sum is meant: so each share is times their number.
        """
        if self._accumulate == 1 and self._plan.ranks == 1:
            return None
        first = batch // self._accumulate * self._accumulate
        share = self._plan.size(batch) / self._plan.size(first, self._accumulate) * self._plan.ranks
        return torch.full((), share, device=self._device)

    def steps_after(self, batch: int) -> bool:
        """Whether the weights change after a batch."""
        return (batch + 1) % self._accumulate == 0 or batch + 1 == len(self._plan)

    def step(self, epoch: int, batch: int) -> int:
        """Return the number, over all epochs, of the step that a batch belongs to."""
        return epoch * self.steps + batch // self._accumulate

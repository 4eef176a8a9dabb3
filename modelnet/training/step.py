"""Do one training step; the loop, the learning-rate finder and sweeps share it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.nn.utils import clip_grad_norm_

from modelnet.data.batches import Batch
from modelnet.training.accumulation import Accumulation
from modelnet.training.schedule import Schedule
from modelnet.training.state import State


class Update(Protocol):
    """Changes weights by their gradients."""

    scaler: GradScaler

    def zero_grad(self) -> None:
        """Clear the gradients."""

    def step(self, number: int) -> None:
        """Change the weights, in step `number` over all epochs."""


@dataclass
class TrainingStep:
    """Trains on one batch after the other.

    Attributes:
        forward: images (B, 3, H, W) -> logits (B, C); (K, B, C) of K networks.
        loss_of: logits, labels, images of the whole batch -> the mean loss; (K,) of K networks.
        update: changes the weights.
        accumulation: which batches begin and end a step.
        autocast: the context that the network computes in.
    """

    forward: Callable[[Tensor], Tensor]
    loss_of: Callable[[Tensor, Tensor, int], Tensor]
    update: Update
    accumulation: Accumulation
    autocast: AbstractContextManager[object]

    def __call__(self, batch: Batch, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """Train on batch `number` of an epoch; return its loss, or this rank's part of it, and its logits."""
        if self.accumulation.clears(number):
            self.update.zero_grad()
        with self.autocast:
            logits = self.forward(batch.images)
        loss = self.loss_of(logits.float(), batch.labels, batch.size)
        total = loss if loss.dim() == 0 else loss.sum()  # a network's loss depends on its own weights alone
        self.update.scaler.scale(total).backward(self.accumulation.share(number))
        if self.accumulation.steps_after(number):
            self.update.step(self.accumulation.step(epoch, number))
        return loss.detach(), logits.detach()


class NetworkUpdate:
    """Changes the weights of one network, and their moving average.

    Args:
        state: of the network.
        clip_grad: the gradient's norm at most, or None.
        schedule: sets the learning rate of each step; None leaves it as it is.
    """

    def __init__(self, state: State, clip_grad: float | None, schedule: Schedule | None) -> None:
        self.state = state
        self.scaler = state.scaler
        self.clip_grad = clip_grad
        self.schedule = schedule

    def zero_grad(self) -> None:
        """Clear the gradients."""
        self.state.optimizer.zero_grad()

    def step(self, number: int) -> None:
        """Clip the gradient, set the learning rate, change the weights and take them into the moving average."""
        network, optimizer = self.state.network, self.state.optimizer
        if self.clip_grad is not None:
            self.scaler.unscale_(optimizer)
            clip_grad_norm_(network.parameters(), self.clip_grad)
        if self.schedule is not None:
            self.schedule.set(optimizer, number, self.state.decays)
        self.scaler.step(optimizer)  # does nothing where a scaled gradient was too large for float16
        self.scaler.update()
        if self.state.average is not None:
            self.state.average.update_parameters(network)

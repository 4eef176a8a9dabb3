"""Run torch's optimizers on stacked weights: one for the slice of the networks of each setting."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from modelnet.options import OPTIONS, TrainOptions
from modelnet.sweep.network import StackedNetworks
from modelnet.training.optimizer import build_optimizer
from modelnet.training.schedule import Schedule


class _Slice:
    """The networks `first` to `end` of a stack and their optimizer, which works element by element.

    Its parameters are views of the stacked weights, and their gradients of the stacked gradients.
    """

    def __init__(self, stacked: StackedNetworks, first: int, end: int, options: TrainOptions, schedule: Schedule):
        self.first = first
        self.networks = range(first, end)
        self.schedule = schedule
        self.weights = nn.ParameterList(nn.Parameter(weights.detach()[first:end]) for weights in stacked.stacked)
        for part, weights in zip(self.weights, stacked.stacked, strict=True):
            assert weights.grad is not None
            part.grad = weights.grad[first:end]
        self.optimizer = build_optimizer(self.weights, options)

    def take_state(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Continue from the state of the networks' own optimizers."""
        for index, part in enumerate(self.weights):
            states = [_state(optimizers[k], index) for k in self.networks]
            if states[0]:
                self.optimizer.state[part] = {
                    name: torch.stack([state[name] for state in states])
                    if _is_stacked(value, part[0])
                    else _copy(value)
                    for name, value in states[0].items()
                }

    def copy_state_to(self, optimizers: Sequence[torch.optim.Optimizer], which: Sequence[int]) -> None:
        """Give the networks' own optimizers their state."""
        for k in set(self.networks) & set(which):
            optimizers[k].param_groups[0]["lr"] = self.optimizer.param_groups[0]["lr"]
            for index, part in enumerate(self.weights):
                own = optimizers[k].param_groups[0]["params"][index]
                optimizers[k].state[own] = {
                    name: _copy(value[k - self.first] if _is_stacked(value, part) else value)
                    for name, value in self.optimizer.state.get(part, {}).items()
                }


class StackedOptimizer:
    """Changes stacked weights: one of torch's optimizers for the networks of each setting.

    Args:
        stacked: K networks; it gets gradients that stay where they are from now on.
        options: of each network; those that are alike should be neighbours.
        schedules: of each network.
    """

    def __init__(
        self, stacked: StackedNetworks, options: Sequence[TrainOptions], schedules: Sequence[Schedule]
    ) -> None:
        for weights in stacked.stacked:
            if weights.grad is None:
                weights.grad = torch.zeros_like(weights)
        self._gradients = [weights.grad for weights in stacked.stacked if weights.grad is not None]
        self._slices = []
        for _, group in groupby(range(len(options)), key=lambda k: _setting(options[k], k)):
            members = list(group)
            first, end = members[0], members[-1] + 1
            self._slices.append(_Slice(stacked, first, end, options[first], schedules[first]))
        self._most_K = None
        if any(own.clip_grad is not None for own in options):
            most = [torch.inf if own.clip_grad is None else own.clip_grad for own in options]
            self._most_K = torch.tensor(most, device=self._gradients[0].device)

    def zero_grad(self) -> None:
        """Clear the gradients, in place."""
        torch._foreach_zero_(self._gradients)

    def step(self, number: int, decays: Sequence[int]) -> None:
        """Change the weights.

        Args:
            number: of the step, from 0, over all epochs.
            decays: of each network, times that a plateau was met.
        """
        if self._most_K is not None:
            self._clip(self._most_K)
        for part in self._slices:
            part.schedule.set(part.optimizer, number, decays[part.first])
            part.optimizer.step()

    def _clip(self, most_K: Tensor) -> None:
        """Scale the gradient of each network to a norm of at most its own, as `clip_grad_norm_` does."""
        norms_K = torch.stack([grad.flatten(1).norm(dim=1) for grad in self._gradients]).norm(dim=0)
        factors_K = (most_K / (norms_K + 1e-6)).clamp(max=1)
        for grad in self._gradients:
            grad.mul_(factors_K.view(-1, *[1] * (grad.dim() - 1)))

    def take_state(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Continue from the state of the K networks' own optimizers."""
        for part in self._slices:
            part.take_state(optimizers)

    def copy_state_to(self, optimizers: Sequence[torch.optim.Optimizer], which: Sequence[int]) -> None:
        """Give networks' own optimizers their state and learning rate.

        Args:
            optimizers: K of them.
            which: are meant; the others are left alone.
        """
        for part in self._slices:
            part.copy_state_to(optimizers, which)


def _setting(options: TrainOptions, k: int) -> tuple[Any, ...]:
    """Return the options that networks must share to have one optimizer; with plateaus, they never share one."""
    alone = k if options.sched == "plateau" else None
    return (*(getattr(options, option.name) for option in OPTIONS.values() if option.compared), alone)


def _state(optimizer: torch.optim.Optimizer, index: int) -> dict[str, Any]:
    """Return the state that an optimizer has of its parameter of that number."""
    found: dict[str, Any] = optimizer.state.get(optimizer.param_groups[0]["params"][index], {})
    return found


def _is_stacked(value: Any, like: Tensor) -> bool:
    """Whether it is a tensor that has an element for every weight; others count steps."""
    return isinstance(value, Tensor) and value.shape == like.shape


def _copy(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value

"""The learning rate as a pure function of the step."""

import math

import torch

from modelnet.options import TrainOptions


class Schedule:
    """The learning rate of every step: a pure function of its number.

    A linear warm-up over `warmup_epochs`, then, by `sched`: none, the rate itself; cosine, half a cosine down to 0 at
    the end of the run; step, × `decay_rate` every `decay_epochs` from the beginning of the run; plateau, × `decay_rate`
    after each `plateau_epochs` epochs without a better one.

    Args:
        options: of the run.
        steps: of an epoch.

    Attributes:
        plateau: epochs without a better one, after each of which the rate decays; None for never.
    """

    def __init__(self, options: TrainOptions, steps: int) -> None:
        self.options = options
        self.steps = steps
        self.warmup = options.warmup_epochs * steps
        self.plateau = options.plateau_epochs if options.sched == "plateau" else None

    def rate(self, step: int, decays: int = 0) -> float:
        """Return the learning rate of a step.

        Args:
            step: from 0, over all epochs.
            decays: times that a plateau was met before it.
        """
        return self.options.learning_rate * self._factor(step, decays)

    def set(self, optimizer: torch.optim.Optimizer, step: int, decays: int) -> None:
        """Give the optimizer the learning rate of a step."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step, decays) * group.get("lr_scale", 1.0)

    def _factor(self, step: int, decays: int) -> float:
        options = self.options
        if step < self.warmup:
            return (step + 1) / self.warmup
        match options.sched:
            case "cosine":
                done = (step - self.warmup) / (options.epochs * self.steps - self.warmup)
                return (1 + math.cos(math.pi * done)) / 2
            case "step":
                return options.decay_rate ** (step // self.steps // options.decay_epochs)
            case "plateau":
                return options.decay_rate**decays
        return 1.0

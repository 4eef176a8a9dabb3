"""The learning-rate finder: a few epochs with each of many rates, all from the same start and in the same order.

A rate that rises from step to step is quicker and shows nothing here: ModelNet's loss hardly moves within the hundred
steps that such a search takes.

The lowest loss after a few epochs is often that of a rate on the brink, at which a longer run fails: what is suggested
is the rate below. On drawn images the lowest after 10 epochs was mostly 0.1 or 0.2 (SGD, four seeds): of eight runs of
60 epochs 3 converged at 0.2, all at 0.1 and at 0.05. On 244 photographs it was 0.002 to 0.01 (AdamW): 7 converged at
0.002, 1 at 0.01.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.amp.grad_scaler import GradScaler

from modelnet.data.workers import worker_deaths
from modelnet.eval.diagnostics import FALLING
from modelnet.eval.loss import blind_loss, build_loss
from modelnet.eval.metrics import RunningMean
from modelnet.options import TrainOptions
from modelnet.progress import Progress
from modelnet.runtime.device import cpu_threads, memory_errors
from modelnet.training.optimizer import build_optimizer
from modelnet.training.setup import Setup
from modelnet.training.state import State
from modelnet.training.step import NetworkUpdate, TrainingStep

RATES = tuple(float(f"{10 ** (i / 3):.1g}") for i in range(-12, 1))  # 0.0001, 0.0002, 0.0005, 0.001, ... 1


@dataclass(frozen=True)
class RateCurve:
    """The losses of each learning rate.

    Attributes:
        epochs: that each was tried for.
        rates: rising.
        losses: mean training loss of the last epoch, as `train` shows it; infinite where training diverged.
        blind: the loss of guessing.
    """

    epochs: int
    rates: Sequence[float]
    losses: list[float]
    blind: float

    @property
    def lowest(self) -> int | None:
        """The number of the rate with the lowest loss; None where no network has learnt anything."""
        best = min(range(len(self.losses)), key=self.losses.__getitem__)
        return best if self._has_learnt(best) else None

    @property
    def suggestion(self) -> float | None:
        """The rate below the one with the lowest loss, where it has learnt too, else that; None where nothing was."""
        if self.lowest is None:
            return None
        return self.rates[self.lowest - 1 if self.lowest and self._has_learnt(self.lowest - 1) else self.lowest]

    def _has_learnt(self, number: int) -> bool:
        return self.losses[number] < self.blind - FALLING

    def __str__(self) -> str:
        """Return a table of rates and losses, and the suggestion."""
        lines = [f"learning rate  loss of epoch {self.epochs}"]
        lines += [f"{rate:13g}  {loss:.4f}" for rate, loss in zip(self.rates, self.losses, strict=True)]
        if self.lowest is not None:
            rate = self.rates[self.lowest]
            below = "" if self.suggestion == rate else "; a longer run is safer a step below"
            low = f"lowest: {self.losses[self.lowest]:.4f} at {rate:g}{below}. Try: --lr {self.suggestion:g}"
            return "\n".join(
                [*lines, low, "one training a rate: with another --seed, a neighbouring rate may be the lowest"]
            )
        if math.isinf(min(self.losses)):
            return "\n".join([*lines, "every rate diverged"])
        what = f"none is better than guessing ({self.blind:.4f}) after {self.epochs} epochs"
        return "\n".join([*lines, f"{what}. Give more --epochs"])


def find_learning_rate(
    options: TrainOptions,
    rates: Sequence[float] = RATES,
    progress: Progress | None = None,
    done: Callable[[int, int], None] | None = None,
) -> RateCurve:
    """Try learning rates: train a network for a few epochs with each, and write no run.

    Where the run trains its last layer alone on cached features, so does this, and leaves them for the run.

    Args:
        options: the options of the planned run, with the few epochs for each rate. Schedule, moving average of the
            weights and validation are ignored.
        rates: the rates to try.
        progress: is told what was chosen for the user, and which options change nothing.
        done: called with (rates tried, rates in all).

    Raises:
        As `train`.
    """
    losses: list[float] = []
    progress = progress or Progress()
    for warning in options.idle:
        progress.warn(warning)
    with cpu_threads(options.threads, options.model, options.batch_size):
        setup = Setup(replace(options, lr=rates[-1]), progress)
        setup.prepare(progress)
        start = copy.deepcopy(setup.state.network.state_dict())
        with worker_deaths(setup.batches.cache.path), memory_errors(setup.device), setup.own_threads():
            for rate in rates:
                setup.state.network.load_state_dict(start)
                losses.append(_last_loss(setup, rate))
                if done is not None:
                    done(len(losses), len(rates))
    blind, _ = blind_loss(build_loss(options, setup.class_counts), setup.class_counts)
    return RateCurve(options.epochs, rates, losses, blind)


def _last_loss(setup: Setup, rate: float) -> float:
    """Train from the network's present weights and return the mean loss of the last epoch."""
    network = setup.state.network.train()
    optimizer = build_optimizer(network, replace(setup.options, lr=rate))
    optimizer.zero_grad()  # of the previous rate, where they are kept
    scaler = GradScaler(setup.device.type, enabled=setup.options.scales_gradients)
    update = NetworkUpdate(State(network, optimizer, scaler=scaler), setup.options.clip_grad, schedule=None)
    forward = setup.trained_part(network)
    train_step = TrainingStep(forward, setup.loss_of, update, setup.accumulation, setup.autocast)
    torch.manual_seed(setup.options.seed)  # of dropout
    running = RunningMean()
    for epoch in range(setup.options.epochs):
        running = RunningMean()
        for number, batch in enumerate(setup.batches.epoch(epoch)):
            loss, logits = train_step(batch, epoch, number)
            running.add(loss, logits, batch.labels)
        if not math.isfinite(running.loss):
            return math.inf
    return running.loss

"""Which learning rate to try: a few epochs with each of many, all from the same start and in the same order.

A rate that rises from step to step is quicker and shows nothing here: ModelNet's loss hardly moves within the hundred
steps that such a search takes.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch.amp.grad_scaler import GradScaler

from modelnet.batches import worker_deaths
from modelnet.device import cpu_threads, memory_errors
from modelnet.metrics import RunningMean
from modelnet.optimization import build_optimizer
from modelnet.options import TrainOptions
from modelnet.progress import Progress
from modelnet.session import Session

RATES = tuple(float(f"{10 ** (i / 3):.1g}") for i in range(-12, 1))  # 0.0001, 0.0002, 0.0005, 0.001, ... 1


@dataclass(frozen=True)
class RateCurve:
    """What became of each learning rate.

    Attributes:
        epochs: that each was tried for.
        rates: rising.
        losses: mean training loss of the last epoch, as `train` shows it; infinite where training diverged.
    """

    epochs: int
    rates: Sequence[float]
    losses: list[float]

    @property
    def suggestion(self) -> float | None:
        """The rate with the lowest loss; None where all diverged."""
        best = min(range(len(self.losses)), key=self.losses.__getitem__)
        return self.rates[best] if math.isfinite(self.losses[best]) else None


def find_learning_rate(
    options: TrainOptions,
    rates: Sequence[float] = RATES,
    progress: Progress | None = None,
    done: Callable[[int, int], None] | None = None,
) -> RateCurve:
    """Train a network for each learning rate, and throw it away; nothing is written.

    Args:
        options: of the run that is to follow, with the few epochs that each rate is tried for. Schedule, accumulation
            and validation play no part.
        rates: that are tried.
        progress: hears of what was chosen for the user.
        done: called with (rates tried, rates in all).

    Raises:
        As `train`.
    """
    losses: list[float] = []
    with cpu_threads(options.threads, options.batch_size):
        session = Session(replace(options, lr=rates[-1]), progress or Progress())
        start = copy.deepcopy(session.state.network.state_dict())
        with worker_deaths(session.cache.path), memory_errors(session.device):
            for rate in rates:
                session.state.network.load_state_dict(start)
                losses.append(_last_loss(session, rate))
                if done is not None:
                    done(len(losses), len(rates))
    return RateCurve(options.epochs, rates, losses)


def _last_loss(session: Session, rate: float) -> float:
    """Train from the network's present weights and return the mean loss of the last epoch."""
    network = session.state.network.train()
    optimizer = build_optimizer(network, replace(session.options, lr=rate))
    scaler = GradScaler(session.device.type, enabled=session.options.scales_gradients)
    torch.manual_seed(session.options.seed)  # of dropout
    running = RunningMean()
    for epoch in range(session.options.epochs):
        running = RunningMean()
        for images, labels in session.batches.epoch(epoch):
            optimizer.zero_grad()
            with session.autocast:
                logits = network(images)
            loss = session.loss_of(logits.float(), labels)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            running.add(loss, logits, labels)
        if not math.isfinite(running.loss):
            return math.inf
    return running.loss

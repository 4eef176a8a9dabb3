"""The loop over epochs and batches of a sweep, whose networks train on the same batches."""

import time
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from modelnet.data.workers import worker_deaths
from modelnet.eval.evaluate import Outcome
from modelnet.eval.metrics import RunningMean
from modelnet.progress import EpochRow, Progress
from modelnet.runs.tables import median_row
from modelnet.runtime.device import memory_errors
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.network import StackedLoss, StackedNetworks, stack
from modelnet.sweep.optimizer import StackedOptimizer
from modelnet.training.loop import SECONDS_BETWEEN_SAVES, TrainingLoop
from modelnet.training.step import TrainingStep
from pipeline.errors import TrainingDiverged


class SweepLoop:
    """Trains networks on the same batches: takes the state of each network's own loop, and returns it every epoch.

    A network that has had all its epochs, has lost patience or has diverged stays as it is; the others go on.

    Args:
        trainings: the networks' own loops, all after the same step.
        rows: of each network, a row an epoch that it has had.
        progress, stop: as for `train`.

    Attributes:
        rows: as above, with the new rows.
        diverged: whether each network diverged.
        trained_accuracy: of each network that has ended, on its training images where their order is not shuffled;
            else None.
        active: the networks that still train.
    """

    def __init__(
        self, trainings: Sequence[TrainingLoop], rows: Sequence[list[EpochRow]], progress: Progress, stop: Stop
    ) -> None:
        self.trainings = trainings
        self.setup = trainings[0].setup
        self.rows = rows
        self.progress = progress
        self.stop = stop
        self.setup.batches.stop = stop
        self.saved_at = time.monotonic()
        self.diverged = [False] * len(trainings)
        self.trained_accuracy: list[float | None] = [None] * len(trainings)
        self.active = [i for i, training in enumerate(trainings) if not training.is_finished]
        self.epochs = max(training.setup.options.epochs for training in trainings)
        self.epoch, self.number = trainings[0].state.epoch, trainings[0].state.step
        self.networks = [training.setup.trained_part(training.state.network) for training in trainings]
        self.stacked = stack(self.networks)
        self.stacked.to(self.setup.device)
        self.stacked.take_gradients(self.networks)
        self.loss_of = StackedLoss([training.setup.loss_of for training in trainings])
        setups = [training.setup for training in trainings]
        self.optimizer = StackedOptimizer(
            self.stacked, [own.options for own in setups], [own.schedule for own in setups]
        )
        self.optimizer.take_state([training.state.optimizer for training in trainings])
        self.average = StackedAverage(self.stacked, trainings) if any(t.state.average for t in trainings) else None
        self.scaler = GradScaler("cpu", enabled=False)  # sweeps compute in float32
        self.train_step = TrainingStep(self.stacked, self.loss_of, self, self.setup.accumulation, nullcontext())

    def run_epochs(self) -> None:
        """Train the remaining epochs and write the results of each network."""
        threads = self.setup.own_threads(len(self.trainings))
        with worker_deaths(self.setup.batches.cache.path), memory_errors(self.setup.device), threads:
            self.finish_late()
            while self.active:
                began = time.perf_counter() - self.trainings[self.active[0]].state.seconds
                self.train_epoch()
                if self.stop.signal:
                    break
                self.finish_epoch(self.validate(), time.perf_counter() - began)
            for i in self.active:
                self.finish(i, None)

    def finish_late(self) -> None:
        """Write the results of networks that were killed after their last epoch."""
        ended = [i for i in range(len(self.trainings)) if i not in self.active]
        late = [i for i in ended if self.setup.val_batches and not self.trainings[i].run.state().has_result]
        outcomes = self.validate() if late else []
        for i in late:
            self.finish(i, outcomes[i])

    def train_epoch(self) -> None:
        """Train on the remaining batches of the current epoch, until its end or a request to stop."""
        steps: list[tuple[Tensor, Tensor, int]] = []
        began = time.perf_counter()
        for batch in self.setup.batches.epoch(self.epoch, self.number):
            losses, logits = self.train_step(batch, self.epoch, self.number)
            self.number += 1
            largest = batch.labels.argmax(1) if batch.labels.dim() == 2 else batch.labels
            steps.append((losses, (logits.argmax(2) == largest).sum(1), batch.size))
            self.progress.step(batch.size)
            if self.stop.signal:
                break
        self.hand_over(steps, time.perf_counter() - began)

    def zero_grad(self) -> None:
        """Clear the gradients of all networks."""
        self.optimizer.zero_grad()

    def step(self, number: int) -> None:
        """Change the weights of all networks, and take them into the moving averages."""
        self.optimizer.step(number, [training.state.decays for training in self.trainings])
        if self.average is not None:
            self.average.update()

    def hand_over(self, steps: list[tuple[Tensor, Tensor, int]], seconds: float) -> None:
        """Copy weights, optimizer state and moving averages of these steps into each network's own state."""
        if not steps:  # stopped after the last batch of the epoch
            return
        losses_TK = torch.stack([losses for losses, _, _ in steps]).double().cpu().numpy()
        counts_T1 = np.array([[count] for _, _, count in steps])
        before = [training.state.running.to_dict() for training in self.trainings]
        begin_K = [values["loss_sum"] for values in before]
        sums_K = np.add.accumulate([begin_K, *(losses_TK * counts_T1)])[-1].tolist()  # one by one, wherever it was cut
        correct_K = torch.stack([correct for _, correct, _ in steps], dim=1).sum(1).tolist()
        self.stacked.copy_to(self.networks, self.active)
        if self.setup.accumulation.keeps_gradients:
            self.stacked.copy_gradients_to(self.networks, self.active)
        self.optimizer.copy_state_to([training.state.optimizer for training in self.trainings], self.active)
        if self.average is not None:
            self.average.copy_to(self.trainings, self.active)
        for i in self.active:
            state = self.trainings[i].state
            correct, images = before[i]["correct"] + correct_K[i], before[i]["images"] + int(counts_T1.sum())
            state.running = RunningMean.from_dict({"loss_sum": sums_K[i], "correct": correct, "images": images})
            state.step, state.seconds = self.number, state.seconds + seconds
            state.waited += self.setup.batches.waited

    def validate(self) -> list[Outcome] | list[None]:
        """Run all networks over the validation images, where there are any."""
        if self.setup.val_batches is None:
            return [None] * len(self.trainings)
        evaluated = self.stacked if self.average is None else self.average.stacked
        logits, labels = [], []
        with torch.inference_mode():
            for batch in self.setup.val_batches.epoch(0):
                logits.append(evaluated(batch.images))
                labels.append(batch.labels)
        labels_N = self.setup.label_map[torch.cat(labels).cpu()]
        return [Outcome(logits_NC, labels_N) for logits_NC in torch.cat(logits, dim=1).float().cpu()]

    def finish_epoch(self, outcomes: list[Outcome] | list[None], seconds: float) -> None:
        """Write the epoch of every network; finish the networks that have ended."""
        self.epoch, self.number = self.epoch + 1, 0
        ended = []
        for i in list(self.active):
            training, outcome = self.trainings[i], outcomes[i]
            try:
                ended.append(training.finish_epoch(outcome, seconds))
            except TrainingDiverged as error:
                self.diverged[i] = True
                self.active.remove(i)
                self.progress.warn(str(error))
                continue
            self.rows[i].append(ended[-1])
            if training.is_finished:
                self.active.remove(i)
                self.finish(i, outcome)
        if time.monotonic() - self.saved_at >= SECONDS_BETWEEN_SAVES * len(self.trainings):
            for i in self.active:
                self.trainings[i].save()
            self.saved_at = time.monotonic()
        if ended:
            self.progress.epoch(median_row(ended), self.epochs)

    def finish(self, i: int, outcome: Outcome | None) -> None:
        """Write the results of a network that ends here, for good or until it is resumed."""
        self.trained_accuracy[i] = self.trainings[i].finish(self.rows[i], outcome).trained_accuracy


class StackedAverage:
    """The moving averages of the weights of K networks; the weights themselves for a network without one.

    Args:
        stacked: the networks.
        trainings: of them; the means go on from theirs.
    """

    def __init__(self, stacked: StackedNetworks, trainings: Sequence[TrainingLoop]) -> None:
        self._of = stacked
        self._begun = any(t.state.average is not None and int(t.state.average.n_averaged) > 0 for t in trainings)
        averages = [t.setup.trained_part(t.state.evaluated) for t in trainings]
        self.stacked = stack(averages)
        self.stacked.to(stacked.stacked[0].device)
        kept_K = torch.tensor([t.setup.options.model_ema or 0.0 for t in trainings], dtype=torch.float64)
        self._parts = [
            (1 - kept_K).float().to(weights.device).view(-1, *[1] * (weights.dim() - 1)) for weights in stacked.stacked
        ]
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after a step; the first replace the mean."""
        for mean, weights, part in zip(self.stacked.stacked, self._of.stacked, self._parts, strict=True):
            mean.lerp_(weights, part) if self._begun else mean.copy_(weights)
        self._begun = True
        self._steps += 1

    def copy_to(self, trainings: Sequence[TrainingLoop], which: Sequence[int]) -> None:
        """Give those networks that have a moving average theirs."""
        averages = {i: trainings[i].state.average for i in which}
        having = {i: average for i, average in averages.items() if average is not None}
        networks = [training.setup.trained_part(training.state.evaluated) for training in trainings]
        self.stacked.copy_to(networks, list(having))
        for average in having.values():
            average.n_averaged += self._steps
        self._steps = 0

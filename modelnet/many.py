"""Many ModelNets in one pass over the data, which differ in their seed: each ends as the run alone would have."""

import copy
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from modelnet.batches import worker_deaths
from modelnet.caches import class_counts
from modelnet.config import describe_run
from modelnet.device import cpu_threads, memory_errors
from modelnet.evaluation import Outcome
from modelnet.hints import blind_loss
from modelnet.interrupt import Stop
from modelnet.metrics import RunningMean
from modelnet.models import MODELNET
from modelnet.network import ModelNet
from modelnet.optimization import build_optimizer
from modelnet.options import TrainOptions
from modelnet.plots import seed_curves
from modelnet.progress import Progress
from modelnet.runs import EpochRow, RunFolder
from modelnet.session import Session, initial_state
from modelnet.split import SPLIT_COLUMNS, split_rows
from modelnet.stacked import StackedModelNet, stacked_losses
from modelnet.training import Training
from pipeline.errors import OptionsError, TrainingDiverged

MOST = 1024  # networks

_NEEDED = {
    "model": MODELNET,
    "weights": None,
    "opt": "sgd",
    "accumulate": 1,
    "zero_grad": "batch",
    "clip_grad": None,
    "amp": False,
    "compile": False,
    "model_ema": None,
    "patience": None,
}


@dataclass(frozen=True)
class ManyResult:
    """How many runs ended.

    Attributes:
        seeds, runs: of the networks, and their folders.
        rows: of each network, a row an epoch; fewer where it diverged.
        converged: networks whose last training loss is less than half of what guessing gives.
        picture: the curves of all.
        interrupted: whether they were asked to stop before the last epoch.
    """

    seeds: list[int]
    runs: list[Path]
    rows: list[list[EpochRow]]
    converged: int
    picture: Path
    interrupted: bool

    def __str__(self) -> str:
        """Return a table of the networks, and a sentence on all."""
        columns = ["train_loss", "train_acc", "val_loss", "val_acc"]
        ended = [rows[-1] for rows in self.rows if rows]
        if not ended or ended[0].val_loss is None:
            columns = columns[:2]
        lines = ["   ".join(["seed", *(f"{column:>10}" for column in columns), "run"])]
        for seed, run, rows in zip(self.seeds, self.runs, self.rows, strict=True):
            values = [getattr(rows[-1], column) for column in columns] if rows else []
            shown = [f"{v:10.1%}" if "acc" in c else f"{v:10.4f}" for c, v in zip(columns, values, strict=False)]
            lines.append("   ".join([f"{seed:4}", *shown, run.name]))
        return "\n".join([*lines, "", f"converged in {self.converged} of {len(self.seeds)} starts"])


def train_many(
    options: TrainOptions, seeds: Sequence[int], progress: Progress | None = None, stop: Stop | None = None
) -> ManyResult:
    """Train ModelNets that differ in their seed alone, at once, each into a run folder of its own.

    All see the same batches, in the order of the one data seed. Each network's losses are those of the run alone, up
    to the rounding of sums. A run that was stopped is gone on with by `resume`, alone.

    Args:
        options: of each run; `seed` plays no part. SGD and its schedules, but no option that a network's own past
            decides on (plateau, patience) or that needs its gradient by itself (clipping).
        seeds: one a network, all different.
        progress: hears of the median network.
        stop: where set, training ends after the step, all saved.

    Raises:
        OptionsError: options or seeds that do not go together with this.
        As `train` otherwise; a network that diverges ends alone.
    """
    progress, stop = progress or Progress(), stop or Stop()
    check_options(options, seeds)
    with ExitStack() as stack:
        stack.enter_context(cpu_threads(options.threads, options.batch_size * len(seeds)))
        session = Session(replace(options, seed=seeds[0]), progress)
        trainings = [_one_of_many(session, seed, len(seeds), stop, stack) for seed in seeds]
        return _Many(session, trainings, list(seeds), progress, stop).run_epochs()


def parse_seeds(text: str) -> list[int]:
    """Return the seeds that a text names: "0-15", "3,5,8" or both.

    Raises:
        ValueError: it names none.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not found:
            raise ValueError(f"seeds are given as 0-15 or 3,5,8, not {text!r}")
        first, last = int(found[1]), int(found[2] or found[1])
        if not first <= last < first + MOST:
            raise ValueError(f"seeds go upwards, at most {MOST} of them, not {part!r}")
        seeds += range(first, last + 1)
    return seeds


def check_options(options: TrainOptions, seeds: Sequence[int]) -> None:
    """Refuse what cannot be done for many networks at once.

    Raises:
        OptionsError: names the option.
    """
    if len(set(seeds)) != len(seeds) or len(seeds) < 2:
        raise OptionsError("--seeds are two or more", None, f"all different, not {', '.join(map(str, seeds))}")
    wrong = [name for name, value in _NEEDED.items() if getattr(options, name) != value]
    wrong += ["sched"] if options.sched == "plateau" else []
    if wrong:
        value = getattr(options, wrong[0])
        flag = f"--{wrong[0].replace('_', '-')}{'' if value is True else f' {value}'}"
        raise OptionsError("--seeds trains ModelNets by plain SGD", None, f"not with {flag}", "Train them one by one")


def _one_of_many(session: Session, seed: int, count: int, stop: Stop, stack: ExitStack) -> Training:
    """Make the folder of one network, and what writes to it."""
    own = copy.copy(session)
    own.options = replace(session.options, seed=seed)
    own.state = initial_state(session.cache, own.options, session.device)
    name = own.options.name and f"{own.options.name}-seed-{seed}"
    own.options = replace(own.options, name=name)
    run = stack.enter_context(RunFolder.create(name, f"{session.cache.path.stem}-{MODELNET}"))
    run.write_config(describe_run(own.options, session.batches, session.val_batches, session.device))
    if session.split is not None:
        run.write_split(SPLIT_COLUMNS, split_rows(session.cache, session.split))
    training = Training(own, run, Progress(), stop)
    training.seconds_between_saves *= count
    training.save()
    return training


class _Many:
    """The networks at work."""

    def __init__(
        self, session: Session, trainings: list[Training], seeds: list[int], progress: Progress, stop: Stop
    ) -> None:
        self.session = session
        self.trainings = trainings
        self.seeds = seeds
        self.progress = progress
        self.stop = stop
        self.networks = [training.state.network for training in trainings]
        self.stacked = StackedModelNet([network for network in self.networks if isinstance(network, ModelNet)]).to(
            session.device
        )
        self.optimizer = build_optimizer(self.stacked, session.options)
        self.rows: list[list[EpochRow]] = [[] for _ in trainings]
        self.diverged: set[int] = set()

    def run_epochs(self) -> ManyResult:
        """Train all epochs, and write down what came of each network."""
        epochs, images = self.session.options.epochs, self.session.batches.images_an_epoch
        runs = [training.run.path for training in self.trainings]
        self.progress.note(f"{len(runs)} networks in {runs[0]} to {runs[-1].name}; the lines show the median")
        self.progress.started(runs[0], images * epochs, 0)
        outcomes: list[Outcome] | list[None] = [None] * len(runs)
        with worker_deaths(self.session.cache.path), memory_errors(self.session.device):
            for epoch in range(epochs):
                began = time.perf_counter()
                self.train_epoch(epoch)
                if self.stop.signal:
                    break
                outcomes = self.validate()
                self.finish_epoch(outcomes, time.perf_counter() - began)
            for i, training in enumerate(self.trainings):
                if i not in self.diverged:
                    training.finish(self.rows[i], outcomes[i])
        return self.result(runs)

    def train_epoch(self, epoch: int) -> None:
        """Train on an epoch, up to its end or to a request to stop."""
        session, stacked, optimizer = self.session, self.stacked, self.optimizer
        began, step = time.perf_counter(), 0
        steps: list[tuple[Tensor, Tensor, int]] = []
        for images, labels in session.batches.epoch(epoch):
            optimizer.zero_grad()
            logits = stacked(images)
            losses = stacked_losses(logits, labels, session.loss_of)
            losses.sum().backward()
            session.schedule.set(optimizer, session.rhythm.step(epoch, step), 0)
            optimizer.step()

            step += 1
            steps.append((losses.detach(), (logits.detach().argmax(2) == labels).sum(1), len(labels)))
            self.progress.step(len(labels))
            if self.stop.signal:
                break
        self.hand_over(step, steps, time.perf_counter() - began)

    def hand_over(self, step: int, steps: list[tuple[Tensor, Tensor, int]], seconds: float) -> None:
        """Give every network's state its weights, momentum and running means."""
        losses_KT = torch.stack([losses for losses, _, _ in steps], dim=1).double()
        correct_K = torch.stack([correct for _, correct, _ in steps], dim=1).sum(1).tolist()
        counts_T = torch.tensor([count for _, _, count in steps])
        sums_K = (losses_KT.cpu() * counts_T).sum(1).tolist()
        self.stacked.copy_to(self.networks)
        optimizers = [training.state.optimizer for training in self.trainings]
        self.stacked.copy_momentum_to(self.optimizer, optimizers)
        for training, loss_sum, correct in zip(self.trainings, sums_K, correct_K, strict=True):
            values = {"loss_sum": loss_sum, "correct": correct, "images": int(counts_T.sum())}
            training.state.step, training.state.running = step, RunningMean.from_dict(values)
            training.state.seconds, training.state.waited = seconds, self.session.batches.waited
            for group in training.state.optimizer.param_groups:
                group["lr"] = self.optimizer.param_groups[0]["lr"]

    def validate(self) -> list[Outcome] | list[None]:
        """Run all networks over the validation images, where there are any."""
        if self.session.val_batches is None:
            return [None] * len(self.trainings)
        logits, labels = [], []
        with torch.inference_mode():
            for images, labels_B in self.session.val_batches.epoch(0):
                logits.append(self.stacked(images))
                labels.append(labels_B)
        labels_N = self.session.label_map[torch.cat(labels).cpu()]
        return [Outcome(logits_NC, labels_N) for logits_NC in torch.cat(logits, dim=1).float().cpu()]

    def finish_epoch(self, outcomes: list[Outcome] | list[None], seconds: float) -> None:
        """Write down an epoch of every network; one that has diverged ends here."""
        for i, (training, outcome) in enumerate(zip(self.trainings, outcomes, strict=True)):
            if i in self.diverged:
                continue
            try:
                self.rows[i].append(training.finish_epoch(outcome, seconds))
            except TrainingDiverged as error:
                self.diverged.add(i)
                self.progress.warn(str(error))
        alive = [rows[-1] for i, rows in enumerate(self.rows) if i not in self.diverged]
        if not alive:
            raise TrainingDiverged("training diverged", self.trainings[0].run.path, "in every network")
        self.progress.epoch(_median(alive), self.session.options.epochs)

    def result(self, runs: list[Path]) -> ManyResult:
        """Count what converged, and draw the curves of all."""
        batches = self.session.batches
        limit = blind_loss(class_counts(batches.cache, batches.subset).tolist()) / 2
        alive = [rows for i, rows in enumerate(self.rows) if i not in self.diverged and rows]
        converged = sum(rows[-1].train_loss < limit for rows in alive)
        picture = self.trainings[0].run.path / "seeds.png"
        if alive:
            title = f"{runs[0].name} to {runs[-1].name}: {len(runs)} seeds"
            self.trainings[0].run.write_picture("seeds.png", seed_curves(alive, title))
        interrupted = self.stop.signal is not None and len(alive[0] if alive else []) < self.session.options.epochs
        return ManyResult(self.seeds, runs, self.rows, converged, picture, interrupted)


def _median(rows: list[EpochRow]) -> EpochRow:
    """Return the row of medians of an epoch."""

    def of(name: str) -> float:
        return float(median(getattr(row, name) for row in rows))

    val = rows[0].val_loss is not None
    return replace(
        rows[0],
        train_loss=of("train_loss"),
        train_acc=of("train_acc"),
        val_loss=of("val_loss") if val else None,
        val_acc=of("val_acc") if val else None,
    )

"""Many ModelNets at once, which differ in seeds and settings: each ends as the run alone would, in its own folder."""

from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import torch

from modelnet.data.split import SPLIT_COLUMNS, split_rows
from modelnet.eval.diagnostics import converged_below
from modelnet.nets.registry import MODELNET
from modelnet.options import TrainOptions
from modelnet.plots.figures import group_curves
from modelnet.progress import EpochRow, Progress
from modelnet.runs.folder import RunFolder
from modelnet.runs.provenance import describe_run
from modelnet.runtime.device import cpu_threads
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks
from modelnet.sweep.grid import SHARED, Sweep, check, cross, label, passes
from modelnet.sweep.loop import SweepLoop
from modelnet.sweep.result import SweepResult
from modelnet.training.loop import TrainingLoop
from modelnet.training.setup import Setup, same_caches
from modelnet.training.train import kept_rows, nothing_left, restored, resumed_options
from pipeline.errors import OptionsError, TrainingDiverged

T = TypeVar("T")


def train_many(
    options: TrainOptions,
    seeds: Sequence[int],
    progress: Progress | None = None,
    stop: Stop | None = None,
    *,
    data_seeds: Sequence[int] | None = None,
    sweep: Sweep | None = None,
    ranks: Ranks | None = None,
) -> SweepResult:
    """Train a ModelNet for each combination of seed, data seed and setting, each in a run folder of its own.

    Networks that can share every batch are trained in one pass over the data. The losses of each network match those
    of a run on its own, up to floating-point rounding.

    Args:
        options: the options that all networks share.
        seeds: the seeds of the initial weights.
        progress: is told how the median network does.
        stop: when it is set, training ends after the current step and saves; `resume_many` continues.
        data_seeds: the seeds of order and augmentation; None means the one of `options`.
        sweep: the values of each option that varies: {"lr": [0.003, 0.01]}.
        ranks: the processes among which the networks of a pass are divided. Each writes its own run folders, and
            stops by itself.

    Raises:
        OptionsError: two networks are equal, there are too few or too many, or they are not ModelNets.
        TrainingDiverged: all networks diverged.
        ValueError: a value is impossible.
        As `train` otherwise; a network that diverges ends alone.
    """
    progress, stop, ranks = progress or Progress(), stop or Stop(), ranks or Ranks()
    members = cross(options, seeds, data_seeds, sweep)
    check(members)
    for warning in members[0].idle:
        if all(warning in member.idle for member in members):  # another setting of the sweep may use it
            progress.warn(warning)
    groups = _own_part(passes(members), ranks)
    with ExitStack() as stack:
        setups = [Setup(members[group[0]], Progress() if i else progress) for i, group in enumerate(groups)]
        same_caches(ranks, setups[0].cache)
        places = {i: (len(group), setup) for group, setup in zip(groups, setups, strict=True) for i in group}
        trainings: dict[int, TrainingLoop] = {}
        for i, options in enumerate(members):
            if i in places:
                count, setup = places[i]
                with _threads(options, count, ranks):
                    trainings[i] = _new_run(setup.beside(options), stop, stack)
            ranks.gather_objects(None)  # one after the other, so that folders are numbered in the order of the networks
        if twins := _start_alike(trainings):
            progress.warn(f"the networks of seeds {twins} start alike: --weights or --init zeros sets all weights")
        return _Group(trainings, members, groups, {i: [] for i in trainings}, progress, stop, ranks).train()


def _start_alike(trainings: dict[int, TrainingLoop]) -> str:
    """Return two seeds whose networks start with the same weights, and differ in nothing else: "0 and 1"; or ""."""
    known: dict[TrainOptions, TrainingLoop] = {}
    for training in trainings.values():
        options = training.setup.options
        other = known.setdefault(replace(options, seed=0, name=None), training)
        pairs = zip(training.state.network.parameters(), other.state.network.parameters(), strict=True)
        if other is not training and all(torch.equal(ours, theirs) for ours, theirs in pairs):
            return f"{other.setup.options.seed} and {options.seed}"
    return ""


def resume_many(
    table: Path,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    ranks: Ranks | None = None,
    **changes: Any,
) -> SweepResult:
    """Continue all networks of a group from their last checkpoints.

    Networks that were saved after the same step continue in one pass.

    Args:
        table: the group.csv in the folder of the first network.
        progress, stop, ranks: as for `train_many`.
        changes: as `resume` takes them.

    Raises:
        RunError: there is no such table, or a run that it names does not exist.
        As `resume` and `train_many` otherwise.
    """
    progress, stop, ranks = progress or Progress(), stop or Stop(), ranks or Ranks()
    with ExitStack() as stack:
        paths = RunFolder.read_group(table)
        members = [resumed_options(RunFolder(path), changes, Ranks()) for path in paths]
        check(members)
        trainings: dict[int, TrainingLoop] = {}
        groups: list[list[int]] = []
        for group in _own_part(passes(members), ranks):
            setup = Setup(members[group[0]], progress, paths[group[0]])
            same_caches(ranks, setup.cache)
            places: dict[tuple[int, int], list[int]] = defaultdict(list)
            for i in group:
                own, run = setup.beside(members[i], paths[i]), RunFolder.open_for_writing(paths[i])
                trainings[i] = _quiet(restored(stack.enter_context(run), own, Progress(), stop))
                places[trainings[i].state.epoch, trainings[i].state.step].append(i)
            groups += [places[place] for place in sorted(places)]
        if all(training.state.epoch == training.setup.options.epochs for training in trainings.values()):
            progress.note(nothing_left(max(member.epochs for member in members)))
        for note in dict.fromkeys(training.resume_note for training in trainings.values()):
            if note:
                progress.note(note)
        rows = {i: kept_rows(training, progress) for i, training in trainings.items()}
        return _Group(trainings, members, groups, rows, progress, stop, ranks).train()


def _own_part(groups: list[list[int]], ranks: Ranks) -> list[list[int]]:
    """Return of each pass the networks of this rank, where it has any.

    Raises:
        OptionsError: a rank would have none at all.
    """
    count = max(map(len, groups))
    if count < ranks.size:
        reason = f"{count} networks in a pass cannot be divided among {ranks.size} ranks"
        raise OptionsError("too many ranks", None, reason, "Give more --seeds")
    own = [torch.tensor(group).tensor_split(ranks.size)[ranks.rank].tolist() for group in groups]
    return [group for group in own if group]


def _new_run(setup: Setup, stop: Stop, stack: ExitStack) -> TrainingLoop:
    """Make the run folder of one network and the object that writes to it."""
    options = setup.options
    run = stack.enter_context(RunFolder.create(options.name, f"{setup.cache.path.stem}-{MODELNET}"))
    run.write_config(describe_run(options, setup.batches, setup.val_batches, setup.device))
    if setup.split is not None:
        run.write_split(SPLIT_COLUMNS, split_rows(setup.cache, setup.split))
    training = _quiet(TrainingLoop(setup, run, Progress(), stop))
    training.save()
    return training


def _quiet(training: TrainingLoop) -> TrainingLoop:
    """Keep a training from saving by itself: all networks save together."""
    training.seconds_between_saves = inf
    return training


def _threads(options: TrainOptions, count: int, ranks: Ranks) -> AbstractContextManager[int]:
    """Set PyTorch's threads for several networks: their batches count as one batch of all images."""
    return cpu_threads(options.threads, MODELNET, options.batch_size * ranks.size, ranks, count)


class _Group:
    """The networks at work, pass by pass.

    Args:
        trainings: of this rank's networks, by their number.
        members: options of all ranks' networks.
        groups: of each pass, the numbers of this rank's networks.
        rows: of each of this rank's, the epochs that it has had.
    """

    def __init__(
        self,
        trainings: dict[int, TrainingLoop],
        members: list[TrainOptions],
        groups: list[list[int]],
        rows: dict[int, list[EpochRow]],
        progress: Progress,
        stop: Stop,
        ranks: Ranks,
    ) -> None:
        self.trainings = trainings
        self.groups = groups
        self.progress = progress
        self.stop = stop
        self.ranks = ranks
        runs = self._of_all({i: training.run.path for i, training in trainings.items()})
        setups = {i: training.setup for i, training in trainings.items()}
        limits = self._of_all({i: converged_below(s.class_counts.tolist(), s.options) for i, s in setups.items()})
        self.result = SweepResult(members, runs, self._of_all(rows), [False] * len(runs), limits, [None] * len(runs))

    def train(self) -> SweepResult:
        """Train the unfinished networks, and write their results."""
        result, count = self.result, len(self.groups)
        several = f" in {count} passes over the data" if count > 1 else ""
        self.progress.note(
            f"{len(result.runs)} networks{several}, in {result.runs[0]} to {result.runs[-1].name}; "
            f"the lines show the median"
        )
        self.progress.started(result.runs[0], *self._images())
        self._write()
        for number, group in enumerate(self.groups):
            if self.stop.signal:
                break
            if count > 1:
                self.progress.note(f"pass {number + 1} of {count}: {self._label(group)}")
            self._train_pass(group)
        over = all(self._of_all({i: result.diverged[i] or t.is_finished for i, t in self.trainings.items()}))
        result.rows[:] = self._of_all({i: result.rows[i] for i in self.trainings})
        result.diverged[:] = self._of_all({i: result.diverged[i] for i in self.trainings})
        result.trained_accuracy[:] = self._of_all({i: result.trained_accuracy[i] for i in self.trainings})
        self.stop.signal = max(self.ranks.gather_objects(self.stop.signal or 0)) or None
        self._write()
        if curves := result.curves():
            title = f"{result.runs[0].name} to {result.runs[-1].name}: {len(result.runs)} networks"
            if self.ranks.is_main:
                guesses = {training.guess() for training in self.trainings.values()}
                guess = guesses.pop() if len(guesses) == 1 else None
                first = RunFolder(result.runs[0])
                first.draw_picture("seeds.png", lambda: group_curves(curves, title, guess), self.progress)
        elif all(result.diverged):
            raise TrainingDiverged("training diverged", result.runs[0], "in every network", "Try a smaller --lr")
        return replace(result, interrupted=self.stop.signal is not None and not over)

    def _of_all(self, own: dict[int, T]) -> list[T]:
        """Return the values of all ranks' networks, in the order of the networks."""
        found = {i: value for part in self.ranks.gather_objects(own) for i, value in part.items()}
        return [found[i] for i in sorted(found)]

    def _write(self) -> None:
        if self.ranks.is_main:
            self.result.write()

    def _train_pass(self, group: list[int]) -> None:
        trainings = [self.trainings[i] for i in group]
        with _threads(trainings[0].setup.options, len(group), self.ranks):
            sweep_loop = SweepLoop(trainings, [self.result.rows[i] for i in group], self.progress, self.stop)
            sweep_loop.run_epochs()
        for i, diverged in zip(group, sweep_loop.diverged, strict=True):
            self.result.diverged[i] = diverged
        for i, accuracy in zip(group, sweep_loop.trained_accuracy, strict=True):
            self.result.trained_accuracy[i] = accuracy

    def _images(self) -> tuple[int, int]:
        """Return how many images all passes will have seen, and how many they have."""
        images = done = 0
        for group in self.groups:
            first = self.trainings[group[0]]
            an_epoch = first.batches.plan.images
            images += an_epoch * max(self.trainings[i].setup.options.epochs for i in group)
            done += an_epoch * first.state.epoch + first.state.running.images
        return images, done

    def _label(self, group: list[int]) -> str:
        """Return the label of a pass."""
        options = self.result.members
        names = [name for name in SHARED if len({getattr(options[other[0]], name) for other in self.groups}) > 1]
        state = self.trainings[group[0]].state
        found = label(options[group[0]], names) or f"from epoch {state.epoch + 1}, batch {state.step + 1} on"
        return f"{len(group)} networks, {found}" if len(group) > 1 else found

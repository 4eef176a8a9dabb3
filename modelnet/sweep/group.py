"""A group of networks at work: unit by unit, each in its own run folder."""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import torch
import xxhash
from torch import nn

from modelnet.data.caches import same_caches
from modelnet.eval.diagnostics import converged_below
from modelnet.options import TrainOptions
from modelnet.plots.figures import Guess, group_curves
from modelnet.progress import EpochRow, Progress
from modelnet.runs.folder import RunFolder
from modelnet.runs.reader import DIVERGED, FINISHED
from modelnet.runtime.device import cpu_threads
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks
from modelnet.sweep.grid import OPENS, PER_PASS, label, passes, varied
from modelnet.sweep.loop import SweepLoop
from modelnet.sweep.out_of_fold import out_of_fold
from modelnet.sweep.progress import OfOne, SaidOnce
from modelnet.sweep.result import NO_MEMORY, SweepResult
from modelnet.sweep.units import go_back_together, own_units
from modelnet.training.frozen_body import WORTH_SAYING, trains_head_alone
from modelnet.training.loop import TrainingLoop
from modelnet.training.setup import Setup
from modelnet.training.start import Opened
from modelnet.training.train import kept_rows, load_run, nothing_left, prepare, start_run, with_threads
from pipeline import TensorCache
from pipeline.errors import OutOfMemory, TrainingDiverged
from pipeline.text import show_minutes

T = TypeVar("T")


class Group:
    """The networks at work. A unit is what is trained at once: the networks of a pass, or one alone.

    Between its turns a network is only in its run folder.

    Args:
        members: options of all ranks' networks.
        progress, stop, ranks: as for `train_many`.
    """

    def __init__(self, members: list[TrainOptions], progress: Progress, stop: Stop, ranks: Ranks) -> None:
        self.members = members
        self.progress = progress
        self.stop = stop
        self.ranks = ranks
        self.units = own_units(passes(members), ranks)
        self.options = {i: members[i] for unit in self.units for i in unit}
        self.runs: dict[int, RunFolder] = {}
        self.ended: dict[int, str] = {}  # how members ended before, if they did
        self.opened: Opened | None = None
        self.caches_key: tuple[Any, ...] = ()  # the options that `opened` depends on
        self.body_key: tuple[Any, ...] = ()  # those that its frozen body depends on
        self.announced: set[TrainOptions] = set()  # settings of which all was said that their setup says
        self.once = SaidOnce(progress)
        self.guesses: set[Guess] = set()
        self.images_trained = 0

    def begin(self, stack: ExitStack, reopened: Mapping[int, RunFolder] | None = None) -> None:
        """Make every run folder, with the network as it starts; leave none where one network cannot be trained.

        Args:
            stack: closes the folders.
            reopened: folders of members that have trained before, which go on.
        """
        self.runs = dict(reopened or {})
        self.ended = {i: run.state(self.members[i]).end for i, run in self.runs.items()}
        if self.ranks.size > 1:
            same_caches(self.ranks, TensorCache(self.members[0].cache))
        size_of = {i: len(unit) for unit in self.units for i in unit}
        starts: dict[tuple[TrainOptions, int], int] = {}
        twins = ""
        try:
            for i, options in enumerate(self.members):
                if i in size_of and i not in self.runs:
                    with self._threads(options, size_of[i]) as threads:
                        own = with_threads(options, threads) if size_of[i] == 1 else options
                        digest = _digest(self._begin(i, own, stack).state.network)
                    seed = starts.setdefault((replace(options, seed=0, name=None), digest), options.seed)
                    if seed != options.seed:
                        twins = twins or f"{seed} and {options.seed}"
                self.ranks.gather_objects(None)  # one after the other: folders are numbered in the networks' order
        except BaseException:
            for run in self.runs.values():
                if reopened is None or run not in reopened.values():
                    run.remove()
            raise
        if twins:
            self.progress.warn(f"the networks of seeds {twins} start alike: --weights or --init zeros sets all weights")

    def _begin(self, i: int, options: TrainOptions, stack: ExitStack) -> TrainingLoop:
        setup = self._setup(i, options)
        self.options[i] = options = setup.options
        counted = f"{setup.cache.path.stem}-{options.model_in_names}"
        self.runs[i] = run = stack.enter_context(RunFolder.create(options.name, counted))
        return start_run(run, setup, Progress(), self.stop)

    def reopen(self, paths: Sequence[Path], stack: ExitStack) -> None:
        """Take the run folders of this rank."""
        for i in self.options:
            self.runs[i] = stack.enter_context(RunFolder.open_for_writing(paths[i]))

    def _setup(self, i: int, options: TrainOptions) -> Setup:
        """Return the setup of a network; what is said of a setting, seeds aside, is said once."""
        setting = replace(options, seed=0, data_seed=0, name=None, threads=None, memory_format=None)
        progress = Progress() if setting in self.announced else self.once
        self.announced.add(setting)
        if (caches := tuple(getattr(options, name) for name in OPENS)) != self.caches_key:
            self.opened = None  # before others are opened: their images may fill the memory
        body = (
            (options.model, options.weights, options.amp, options.memory_format) if trains_head_alone(options) else ()
        )
        opened = self.opened
        if opened is not None and body != self.body_key:
            opened = opened._replace(shared=None, body=None, preloaded=[None, None])
        setup = Setup(options, progress, self.runs[i].path if i in self.runs else None, opened=opened)
        self.opened, self.caches_key, self.body_key = setup.opened, caches, body
        return setup

    def train(self) -> SweepResult:
        """Train the unfinished networks, and write their results."""
        self._describe()
        result, count = self.result, len(self.units)
        self.progress.note(self._summary())
        total, done = sum(map(self._images, self.units)), sum(map(self._images_done, self.units))
        self.progress.started(result.runs[0], total, done)
        self._write()
        for number, unit in enumerate(self.units, 1):
            if self.stop.signal:
                break
            if not (unit := self._unfinished(unit)):
                continue
            if count > 1:
                self.progress.note(f"{'pass' if len(unit) > 1 else 'network'} {number} of {count}: {self._label(unit)}")
            began, had, trained_before = time.monotonic(), self._images_done(unit), self.images_trained
            self._train_unit(unit)
            self._write()
            self.images_trained += max(0, self._images_done(unit) - had)
            if not trained_before and self.images_trained and not self.stop.signal:
                self._tell_rest(self.units[number:], time.monotonic() - began)
        self.stop.signal = max(self.ranks.gather_objects(self.stop.signal or 0)) or None
        self._share(result.rows)
        self._share(result.states)
        self._share(result.trained_accuracy)
        trained = sum(self.ranks.gather_objects(self.images_trained))
        self._write()
        if set(result.states) == {FINISHED} and not trained:
            self.progress.note(nothing_left(max(member.epochs for member in self.members)))
        curves = result.curves()
        if not curves and all(state == NO_MEMORY for state in result.states):
            raise OutOfMemory("out of memory", result.runs[0], "with every network", "Try a smaller --batch-size")
        if not curves and all(state in (DIVERGED, NO_MEMORY) for state in result.states):
            raise TrainingDiverged("training diverged", result.runs[0], "in every network", "Try a smaller --lr")
        finished = {i for i, state in enumerate(result.states) if state == FINISHED}
        judged = out_of_fold(self.members, result.runs, result.settings.values(), finished, self.runs, self.ranks)
        if curves and self.ranks.is_main:  # last: an experiment that has the picture is done
            title = f"{result.runs[0].name} to {result.runs[-1].name}: {len(result.runs)} networks"
            guess = self.guesses.pop() if len(self.guesses) == 1 else None
            first = RunFolder(result.runs[0])
            first.draw_picture("seeds.png", lambda: group_curves(curves, title, guess), self.progress)
        interrupted = self.stop.signal is not None and not all(result.states)
        selection = result.selected() if self.ranks.is_main and not interrupted else None
        return replace(result, out_of_fold=judged, selection=selection, interrupted=interrupted)

    def _unfinished(self, unit: list[int]) -> list[int]:
        """Return the networks of a unit that train, of a pass all at the same step where that can be."""
        rest = [i for i in unit if not self.result.states[i]]
        if rest and len(unit) > 1:
            for i in go_back_together({i: self.runs[i] for i in unit}, rest):
                self.result.states[i] = ""
        return [i for i in unit if not self.result.states[i]]

    def _describe(self) -> None:
        """Begin the result with what the run folders hold."""
        configs = {i: run.read_config() for i, run in self.runs.items()}
        counts = {i: [one["images"] for one in config["cache"]["classes"]] for i, config in configs.items()}
        self.images: dict[int, int] = {i: sum(counts[i]) for i in counts}
        limits = {i: converged_below(counts[i], options) for i, options in self.options.items()}
        rows: dict[int, list[EpochRow]] = {i: run.read_metrics() for i, run in self.runs.items()}
        runs = self._of_all({i: run.path for i, run in self.runs.items()})
        count = len(self.members)
        validated = {i: config["val"]["images"] if config["val"] else 0 for i, config in configs.items()}
        self.result = SweepResult(
            self.members,
            runs,
            self._of_all(rows),
            [self.ended.get(i, "") for i in range(count)],
            self._of_all(limits),
            [None] * count,
            validated=self._of_all(validated),
        )

    def _of_all(self, own: dict[int, T]) -> list[T]:
        """Return the values of all ranks' networks, in the order of the networks."""
        found = {i: value for part in self.ranks.gather_objects(own) for i, value in part.items()}
        return [found[i] for i in sorted(found)]

    def _share(self, values: list[T]) -> None:
        values[:] = self._of_all({i: values[i] for i in self.runs})

    def _write(self) -> None:
        if self.ranks.is_main:
            self.result.write()

    def _train_unit(self, unit: list[int]) -> None:
        """Train the networks of a unit to their end, from wherever they are."""
        try:
            with self._threads(self.options[unit[0]], len(unit)):
                trainings = {i: self._restored(i, Progress(), len(unit)) for i in unit} if len(unit) > 1 else {}
                if self._are_stacked(list(trainings.values())):
                    self._train_together(unit, trainings)
                else:
                    del trainings
                    for i in unit:
                        self._train_alone(i)
        except OutOfMemory as error:
            self.progress.warn(f"{self.runs[unit[0]].path}: {error}")
            for i in unit:
                self.result.states[i] = self.result.states[i] or NO_MEMORY
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # the next network needs blocks of other sizes

    def _restored(self, i: int, progress: Progress, networks: int = 1) -> TrainingLoop:
        training = load_run(self.runs[i], self._setup(i, self.options[i]), progress, self.stop)
        if training.resume_note:
            self.once.note(training.resume_note)
        prepare(training, self.once, networks)
        self.opened = training.setup.opened
        self.result.rows[i] = kept_rows(training, self.progress)
        self.guesses.add(training.guess())
        return training

    def _train_alone(self, i: int) -> None:
        training = self._restored(i, OfOne(self.progress))
        try:
            ended = training.run_epochs(self.result.rows[i])
        except TrainingDiverged as error:
            self.result.states[i] = DIVERGED
            self.progress.warn(str(error))
        else:
            self.result.states[i] = "" if ended.interrupted else FINISHED
            self.result.trained_accuracy[i] = ended.trained_accuracy

    def _are_stacked(self, trainings: list[TrainingLoop]) -> bool:
        """Say whether networks can be trained as one: not where frozen layers before the last are no fixed function."""
        return bool(trainings) and all(
            training.setup.body is not None or not trains_head_alone(training.setup.options) for training in trainings
        )

    def _train_together(self, unit: list[int], trainings: dict[int, TrainingLoop]) -> None:
        places: dict[tuple[int, int], list[int]] = defaultdict(list)
        for i, training in trainings.items():
            training.seconds_between_saves = inf  # all networks save together
            places[training.state.epoch, training.state.step].append(i)
        for (epoch, step), group in sorted(places.items()):
            if len(places) > 1:
                self.progress.note(f"{len(group)} networks from epoch {epoch + 1}, batch {step + 1} on")
            together = [trainings[i] for i in group]
            sweep_loop = SweepLoop(together, [self.result.rows[i] for i in group], self.progress, self.stop)
            sweep_loop.run_epochs()
            for i, diverged, accuracy in zip(group, sweep_loop.diverged, sweep_loop.trained_accuracy, strict=True):
                self.result.states[i] = DIVERGED if diverged else FINISHED if trainings[i].is_finished else ""
                self.result.trained_accuracy[i] = accuracy

    def _threads(self, options: TrainOptions, count: int) -> AbstractContextManager[int]:
        """Set PyTorch's threads for several networks: their batches count as one batch of all images."""
        return cpu_threads(options.threads, options.model, options.batch_size * self.ranks.size, self.ranks, count)

    def _images(self, unit: Iterable[int]) -> int:
        """Return how many images all epochs of a unit have."""
        return max(self._an_epoch(i) * self.options[i].epochs for i in unit)

    def _images_done(self, unit: Iterable[int]) -> int:
        return min(self._an_epoch(i) * len(self.result.rows[i]) for i in unit)

    def _an_epoch(self, i: int) -> int:
        options = self.options[i]
        left_out = self.images[i] % options.batch_size if options.drop_last else 0
        return self.images[i] - left_out

    def _tell_rest(self, units: list[list[int]], seconds: float) -> None:
        """Say how long the units that are left will take, judged by the first."""
        left = sum(self._images(unit) - self._images_done(unit) for unit in units) / self.images_trained * seconds
        if left > WORTH_SAYING:
            self.progress.note(f"about {show_minutes(left)} for the other {sum(map(len, units))}")

    def _summary(self) -> str:
        """Say which networks there are, where, and how they are trained."""
        runs, together = self.result.runs, any(len(unit) > 1 for unit in self.units)
        how = f" in {len(self.units)} passes over the data" if len(self.units) > 1 else ""
        how = how if together else ", one after another"
        median = "; the lines show the median" if together else ""
        return f"{len(runs)} networks{how}, in {runs[0]} to {runs[-1].name}{median}"

    def _label(self, unit: list[int]) -> str:
        """Return what tells a unit from the others."""
        first = self.options[unit[0]]
        if len(unit) == 1:
            setting = label(first, varied(self.members))
            return f"{self.runs[unit[0]].path.name}, {f'{setting} ' if setting else ''}seed={first.seed}"
        names = [name for name in PER_PASS if len({getattr(self.options[other[0]], name) for other in self.units}) > 1]
        return f"{len(unit)} networks, {label(first, names)}"


def _digest(network: nn.Module) -> int:
    """Return a number that two networks share only if they have the same weights."""
    found = xxhash.xxh3_64()
    for parameter in network.parameters():
        found.update(parameter.detach().cpu().contiguous().numpy().data)
    return found.intdigest()

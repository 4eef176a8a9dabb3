"""Many networks, which differ in seeds and settings: each ends as the run alone would, in its own folder.

Small ones are trained together in one pass over the data, others one after another.
"""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from modelnet.options import TrainOptions
from modelnet.progress import Progress, usual_progress
from modelnet.runs.code import allow
from modelnet.runs.folder import RunFolder
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks
from modelnet.sweep.grid import Sweep, all_folds, check, cross
from modelnet.sweep.group import Group
from modelnet.sweep.result import SweepResult
from modelnet.training.train import resumed_options


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
    """Train a network for each combination of setting, fold, data seed and seed, each in a run folder of its own.

    ModelNets and linear layers that can share every batch are trained in one pass over the data. Their losses match
    those of a run on its own, up to floating-point rounding. Other networks are trained one after another, over the
    caches that are open already, and have the bits of a run on its own.

    Args:
        options: the options that all networks share; with fold "all", each fold of the split is validated on once.
        seeds: the seeds of the initial weights.
        progress: is told how the median network of a pass does, or each network that is trained alone.
        stop: when it is set, training ends after the current step and saves; `resume_many` continues.
        data_seeds: the seeds of order and augmentation; None means the one of `options`.
        sweep: the values of each option that varies: {"lr": [0.003, 0.01]}.
        ranks: the processes among which the networks are divided. Each writes its own run folders, and stops by
            itself.

    Raises:
        OptionsError: two networks are equal, there are too few or too many, or one of them cannot be trained so. Then
            no folder is left.
        TrainingDiverged, OutOfMemory: no network could be trained to its end.
        ValueError: a value is impossible.
        As `train` otherwise; a network that diverges or runs out of memory ends alone.
    """
    progress, stop, ranks = progress or usual_progress(), stop or Stop(), ranks or Ranks()
    members = cross(options, seeds, data_seeds, sweep, all_folds(options))
    check(members)
    for warning in members[0].idle:
        if all(warning in member.idle for member in members):  # another setting of the sweep may use it
            progress.warn(warning)
    with ExitStack() as stack:
        group = Group(members, progress, stop, ranks)
        group.begin(stack)
        return group.train()


def resume_many(
    table: Path,
    *,
    progress: Progress | None = None,
    stop: Stop | None = None,
    ranks: Ranks | None = None,
    trust_code: bool = False,
    **changes: Any,
) -> SweepResult:
    """Continue all networks of a group from their last checkpoints.

    Networks of a pass that were saved after the same step continue together.

    Args:
        table: the group.csv in the folder of the first network.
        progress, stop, ranks: as for `train_many`.
        trust_code, changes: as `resume` takes them.

    Raises:
        RunError: there is no such table, or a run that it names does not exist.
        As `resume` and `train_many` otherwise.
    """
    progress, stop, ranks = progress or usual_progress(), stop or Stop(), ranks or Ranks()
    paths = RunFolder.read_group(table)
    members = [resumed_options(RunFolder(path), changes, Ranks()) for path in paths]
    for path in paths if trust_code else ():
        allow(RunFolder(path).read_config().get("code", {}))
    check(members)
    with ExitStack() as stack:
        group = Group(members, progress, stop, ranks)
        group.reopen(paths, stack)
        return group.train()

"""An experiment: sides with options of their own, each with the same seeds, trained as one group.

Its file names everything, so that the same command begins it, goes on with it, and finds it done.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from modelnet.data.caches import find_cache, has_rows_of
from modelnet.nets.weights_file import digest_of
from modelnet.options import OPTIONS, Scope, TrainOptions
from modelnet.options.code import code_name
from modelnet.options.file import checked_options, read_table, unknown
from modelnet.options.folders import RUNS
from modelnet.options.groups import ALL
from modelnet.progress import Progress
from modelnet.runs.code import allow, names_of
from modelnet.runs.folder import RunFolder
from modelnet.runs.reader import FINISHED
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks
from modelnet.sweep.grid import SETTING, all_folds, check, cross, parse_seeds
from modelnet.sweep.group import Group
from modelnet.sweep.result import SweepResult
from modelnet.training.train import resumed_options
from pipeline import TensorCache
from pipeline.errors import OptionsError
from pipeline.format.paths import cache_exists
from pipeline.text import counted, show_path

_WHAT = "the experiment cannot be used"
_SETTINGS = ("name", "seeds", "data_seeds")
_PER_RUN = ("name", "seed", "data_seed")  # the experiment gives them
_IMAGES = [name for name, option in OPTIONS.items() if option.scope is Scope.IMAGES]
_FILES = [name for name, option in OPTIONS.items() if option.compared and Path in option.types]


@dataclass(frozen=True)
class Experiment:
    """What an experiment's file says.

    Attributes:
        path: the file.
        name: the beginning of the names of its runs.
        sides: the options of each side's runs, by the name of the side.
    """

    path: Path
    name: str
    sides: dict[str, list[TrainOptions]]

    @property
    def members(self) -> list[TrainOptions]:
        """The options of all runs, side after side."""
        return [options for side in self.sides.values() for options in side]

    def runs(self, side: str) -> list[Path]:
        """Return the folders of a side's runs."""
        return [RUNS / str(options.name) for options in self.sides[side]]

    def ended(self, side: str) -> list[Path]:
        """Return the folders of a side's runs that have a result; the others failed, or go on.

        Of a seed of which the run of a fold has none, no run is returned: a seed counts with all of its folds.
        """
        members, runs = self.sides[side], [RunFolder(path) for path in self.runs(side)]
        seeds = [(options.seed, options.data_seed) for options in members]
        ends = [run.state(options).end for run, options in zip(runs, members, strict=True)]
        failed = {seed for seed, end in zip(seeds, ends, strict=True) if end != FINISHED}
        return [run.path for run, seed in zip(runs, seeds, strict=True) if seed not in failed]


def read_experiment(path: Path, caches: Path) -> Experiment:
    """Read an experiment's file.

    Args:
        path: TOML or JSON. At its top `seeds`, as --seeds takes them, `data_seeds` and `name`; then a table `common` of
            options, and a table for each side.
        caches: the folder of the one cache, where no side names one.

    Raises:
        SourceError: the file cannot be read.
        OptionsError: says in which key, and what is wrong.
        CacheMissing: no cache is named, and there is none.
    """
    values = read_table(path)
    settings = {key.replace("-", "_"): value for key, value in values.items() if not isinstance(value, dict)}
    for key in settings.keys() - {*_SETTINGS}:
        where = f"{key} is an option of training; those of all sides belong below [common]"
        reason = where if key in OPTIONS else unknown(key, _SETTINGS, what="an experiment")
        raise OptionsError(_WHAT, path, reason)
    name = settings.get("name", path.stem)
    seeds = _seeds(settings, "seeds", path)
    if seeds is None:
        raise OptionsError(_WHAT, path, "it has no seeds", 'Write, for example: seeds = "0-7"')
    data_seeds = _seeds(settings, "data_seeds", path)
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    common = tables.pop("common", {})
    if len(tables) < 2:
        raise OptionsError(
            _WHAT, path, f"it has {counted(len(tables), 'side')}", "Write a table of options for each, as [small]"
        )
    sides = {}
    for side, own in tables.items():
        if not re.fullmatch(r"[\w.+-]+", f"{name}-{side}"):
            raise OptionsError(_WHAT, path, f"{side!r} and {name!r} make no name of a folder", "Use letters and digits")
        options = _options({**common, **own}, path, side, caches)
        members = cross(options, seeds, data_seeds, folds=all_folds(options))
        sides[side] = [replace(member, name=_run_name(f"{name}-{side}", member, options)) for member in members]
    experiment = Experiment(path, name, sides)
    check(experiment.members)
    _refuse_equal_names(experiment)
    _refuse_equal_sides(experiment)
    return experiment


def _run_name(start: str, member: TrainOptions, side: TrainOptions) -> str:
    """Name a run by its own seeds and fold, so that it is found again when the file has more of them."""
    parts = [start]
    parts += [f"fold-{member.fold}"] if side.fold == ALL else []
    parts += [f"data-seed-{member.data_seed}"] if member.data_seed != side.data_seed else []
    return "-".join([*parts, f"seed-{member.seed}"])


def _seeds(settings: Mapping[str, Any], key: str, path: Path) -> list[int] | None:
    if (value := settings.get(key)) is None:
        return None
    try:
        return parse_seeds(",".join(map(str, value)) if isinstance(value, list) else str(value))
    except ValueError as error:
        raise OptionsError(_WHAT, path, f"{key}: {error}") from error


def _options(values: dict[str, Any], path: Path, side: str, caches: Path) -> TrainOptions:
    if at_top := [key for key in values if key.replace("-", "_") in ("seeds", "data_seeds")]:
        reason = f"{side}: {at_top[0]} is of the whole experiment"
        raise OptionsError(_WHAT, path, reason, "Write it at the top, above all tables")
    options = checked_options(values, path, f"{side}: ")
    if given := [name for name in _PER_RUN if name in options]:
        raise OptionsError(_WHAT, path, f"{side}: the experiment gives each run its {given[0]}", "Leave it out")
    cache = options.pop("cache", None)
    try:
        made = TrainOptions(cache or find_cache(caches), **options)
    except OptionsError:
        raise
    except ValueError as error:
        raise OptionsError(_WHAT, path, f"{side}: {error}") from error
    if not made.validates:
        reason, advice = "its runs have no validation images to compare them by", "val, val_fraction, or split and fold"
        raise OptionsError(_WHAT, path, f"{side}: {reason}", f"Give {advice}, below [common]")
    return made


def _refuse_equal_names(experiment: Experiment) -> None:
    first: dict[str, str] = {}
    for side in experiment.sides:
        for name in (run.name for run in experiment.runs(side)):
            if first.setdefault(name, side) != side:
                raise OptionsError(_WHAT, experiment.path, f"{first[name]} and {side} name a run {name}", "Rename one")


def _refuse_equal_sides(experiment: Experiment) -> None:
    first: dict[str, str] = {}
    for side, members in experiment.sides.items():
        options = members[0].resolved()
        key = str([options[name] for name in SETTING])
        if first.setdefault(key, side) != side:
            raise OptionsError(_WHAT, experiment.path, f"{first[key]} and {side} have the same options", "Change one")


def train_experiment(
    experiment: Experiment, progress: Progress, stop: Stop, trust_code: bool = False
) -> SweepResult | None:
    """Train what is left of an experiment: all of it, what was interrupted, or what the file has more than before.

    Args:
        experiment: its runs are found by their names.
        progress, stop: as for `train_many`.
        trust_code: as `resume` takes it.

    Returns:
        The result of all runs; None where nothing is left to train.

    Raises:
        OptionsError: a run of that name has other options, or began with other images, weights, tables or code.
        RunError: a run of that name has trained, and has lost what it would go on from.
        As `train_many` and `resume_many` otherwise.
    """
    members, reopened = experiment.members, dict[int, RunFolder]()
    with ExitStack() as stack:
        for i, options in enumerate(members):
            if (run := RunFolder.reopen(str(options.name))) is not None:
                reopened[i] = stack.enter_context(run)
                if trust_code:
                    allow(run.read_config().get("code", {}))
        if not any(run.has_trained for run in reopened.values()):  # it was killed as it began: once more, all as one
            while reopened:
                reopened.popitem()[1].remove()
        given = _Given()
        for i, run in reopened.items():
            members[i] = _continued(run, members[i], experiment.path, given)
            if not run.state(members[i]).end:
                run.refuse_without_checkpoint()
        ended = len(reopened) == len(members) and all(run.state(members[i]).end for i, run in reopened.items())
        if ended and reopened[0].has_group_results():
            return None
        group = Group(members, progress, stop, Ranks())
        group.begin(stack, reopened)
        return group.train()


class _Given:
    """What the options of an experiment name now; each cache is opened, and each file read, once."""

    def __init__(self) -> None:
        self.opened = cache(TensorCache)
        self.sha256 = cache(digest_of)

    def differences(self, config: dict[str, Any], options: TrainOptions) -> Iterator[str]:
        """Say of each cache and file whether it is another one than a run began with: "its labels had ...".

        One that is not there any more is let be: a run has a copy, or needs it no more, or finds it elsewhere.

        Args:
            config: of the run's config.json.
            options: that the experiment gives the run now.
        """
        stored = TrainOptions.from_dict(config["options"])
        for name in _IMAGES:
            before, now = getattr(stored, name), getattr(options, name)
            if before is None or now is None or not cache_exists(now):
                is_same = before == now
            else:
                is_same = has_rows_of(self.opened(now), config[name]["fingerprint"])
            if not is_same:
                was = "has other images now" if before == now else f"was {before}, and is {now} now, of other images"
                yield f"its {name} {was}"
        code = {name: code_name(text) for name, text in names_of(options).items()}
        files = {name: getattr(options, name) for name in _FILES} | {n: c.path for n, c in code.items() if c}
        kept = {name: config[name]["sha256"] for name in _FILES if config.get(name)} | config.get("code", {})
        for name, file in files.items():
            if name in kept and file is not None and file.exists() and (sha256 := self.sha256(file)) != kept[name]:
                yield f"its {name} had the SHA-256 {kept[name][:12]}, and {show_path(file)} has {sha256[:12]} now"


def _continued(run: RunFolder, options: TrainOptions, path: Path, given: _Given) -> TrainOptions:
    """Return the options that a run goes on with.

    Raises:
        OptionsError: it began with others than the experiment gives it, or with other images, weights, tables or code.
        As `TensorCache`.
    """
    stored, wanted = resumed_options(run, {}, Ranks()).resolved(), options.resolved()
    chosen = {name for name, option in OPTIONS.items() if option.scope is Scope.MACHINE and wanted[name] is None}
    fixed = [name for name, option in OPTIONS.items() if not option.resumable and name not in {"name", *chosen}]
    differences = [
        f"its {name} is {stored[name]}, and {path.name} says {wanted[name]}"
        for name in fixed
        if stored[name] != wanted[name]
    ]
    if differences := differences or [*given.differences(run.read_config(), options)]:
        advice = "Give the experiment another name, or move the runs of this one away"
        raise OptionsError("the run has other options", run.path, differences[0], advice)
    changes = {name: getattr(options, name) for name, option in OPTIONS.items() if option.resumable}
    return resumed_options(run, changes, Ranks())

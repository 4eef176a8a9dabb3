"""List the networks of a group: seeds × data seeds × settings; and divide them into passes over the data."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from modelnet.data.split_table import read_split
from modelnet.options import OPTIONS, Scope, TrainOptions
from modelnet.options.declaration import plain
from modelnet.options.groups import ALL
from modelnet.runtime.device import SMALL
from modelnet.training.frozen_body import trains_head_alone
from pipeline.errors import OptionsError

MOST = 512  # networks: each keeps its run folder open while it is trained

_NEEDED = {"freeze": None, "head_lr": 1.0, "layer_decay": None, "norm_stats": None}
_NEEDED |= {"amp": False}  # half precision gives other results in a stack
_OF_HEADS = {"head_lr": 1.0, "layer_decay": None, "amp": False}  # of last layers that are trained alone
# Networks of one pass over the data have the same values of these; names of run folders always differ.
SHARED = [name for name, option in OPTIONS.items() if option.scope is not Scope.NETWORK and name != "name"]
PER_PASS = [name for name in SHARED if OPTIONS[name].scope not in (Scope.MACHINE, Scope.RECORD)]
# Networks of one setting have the same values of these; they differ in their seeds and folds, or on the machine.
SETTING = [name for name, option in OPTIONS.items() if option.compared or option.scope is Scope.IMAGES]
OPENS = [name for name, option in OPTIONS.items() if option.opens]  # networks that share them share open caches
_SWEEPABLE = {flag.removeprefix("--"): o.name for o in OPTIONS.values() if o.sweepable for flag in (o.flag, *o.flags)}

Sweep = Mapping[str, Sequence[Any]]


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


def parse_sweep(texts: Iterable[str]) -> dict[str, list[Any]]:
    """Return the values of each option that texts like "lr=0.001,0.01" name.

    Values that have commas themselves are divided by semicolons: "augment=none;flip;flip,crop".

    Raises:
        ValueError: no such option, one that cannot be swept, or a value that it cannot have.
    """
    sweep: dict[str, list[Any]] = {}
    for text in texts:
        typed, equals, values = text.partition("=")
        if not equals or not values.strip():
            raise ValueError(f"a sweep is given as lr=0.001,0.01, not {text!r}")
        name = _SWEEPABLE.get(typed.strip().replace("_", "-"), "")
        if not name:
            seeds = {"seed": "; --seeds varies it", "data-seed": "; --data-seeds varies it"}
            seeds |= {"fold": "; --fold all varies it"}
            can = ", ".join(sorted(option.flag.removeprefix("--") for option in OPTIONS.values() if option.sweepable))
            hint = seeds.get(typed.strip().replace("_", "-"), "")
            raise ValueError(f"no sweep over {typed.strip()!r}{hint}. There is {can}")
        if name in sweep:
            raise ValueError(f"two sweeps over {typed.strip()}; give all of its values in one")
        divided = values.split(";" if ";" in values else ",")
        sweep[name] = [_value(name, value.strip()) for value in divided]
    return sweep


def _value(name: str, text: str) -> Any:
    """Read a value as the option has it."""
    kinds = OPTIONS[name].types
    if text.lower() == "none" and (type(None) in kinds or name == "augment"):
        return "" if name == "augment" else None
    try:
        if bool in kinds:
            return {"yes": True, "true": True, "no": False, "false": False}[text.lower()]
        if Path in kinds:
            return Path(text)
        return text if str in kinds else next(kind for kind in (int, float) if kind in kinds)(text)
    except (KeyError, ValueError):
        what = "yes or no" if bool in kinds else "a whole number" if int in kinds else "a number"
        raise ValueError(f"a sweep over {name.replace('_', '-')} needs {what}, not {text!r}") from None


def cross(
    options: TrainOptions,
    seeds: Sequence[int],
    data_seeds: Sequence[int] | None = None,
    sweep: Sweep | None = None,
    folds: Sequence[int] | None = None,
) -> list[TrainOptions]:
    """Return the options of every network: each setting of the sweep, with each fold, data seed and seed.

    Args:
        options: of all, but for what is varied.
        seeds: of the initial weights.
        data_seeds: of order and augmentation; None for the one of `options`.
        sweep: values by option.
        folds: to validate on; None for the one of `options`.

    Raises:
        ValueError: options that nothing can be trained with.
    """
    sweep, folds = sweep or {}, folds or []
    data_seeds = [options.data_seed] if data_seeds is None else data_seeds
    members = []
    for values in product(*sweep.values()):
        setting = dict(zip(sweep, values, strict=True))
        for fold, data_seed, seed in product(list[Any](folds) or [options.fold], data_seeds, seeds):
            parts = [f"{name.replace('_', '-')}-{shown(value)}" for name, value in setting.items()]
            parts += [f"fold-{fold}"] if folds else []
            parts += [f"data-seed-{data_seed}"] if len(data_seeds) > 1 else []
            parts += [f"seed-{seed}"] if len(seeds) > 1 or not parts else []
            suffix = re.sub(r"[^\w.,+-]+", "-", "-".join(parts))  # a path or an expression has more than names allow
            name = options.name and f"{options.name}-{suffix}"
            members.append(replace(options, **setting, fold=fold, data_seed=data_seed, seed=seed, name=name))
    return members


def all_folds(options: TrainOptions) -> range:
    """Return the folds of a split that are all trained on; none where one is, or where there is no split."""
    return range(read_split(options.split).num_folds if options.split is not None and options.fold == ALL else 0)


def check(members: Sequence[TrainOptions]) -> None:
    """Refuse options that a sweep does not take.

    Raises:
        OptionsError: names the option.
    """
    what = "many networks cannot be trained so"
    if len(members) < 2 or len(members) > MOST:
        raise OptionsError(what, None, f"a group has 2 to {MOST} of them, not {len(members)}")
    if len(set(members)) != len(members):
        raise OptionsError(what, None, "all have to be different; a seed or a value is named twice")
    unnamed = {replace(own, name=None) for own in members if not own.uses_data_seed}
    if len({replace(own, data_seed=0) for own in unnamed}) != len(unnamed):
        reason = "all have to be different, and data seeds change nothing without --shuffle or --augment"
        raise OptionsError(what, None, reason, "Give one of these, or --seeds")
    if any(options.compile for options in members):
        raise OptionsError(what, None, "each would be compiled anew", "Leave out --compile, or train them one by one")


def passes(members: Sequence[TrainOptions]) -> list[list[int]]:
    """Divide networks, by their numbers, into passes over the data.

    Small networks that can share every batch are trained in one pass, and so are last layers of a frozen body. Any
    other network has a pass of its own.
    """
    found: dict[tuple[Any, ...], list[int]] = {}
    for i, options in enumerate(members):
        stacked = options.model in SMALL and all(getattr(options, name) == value for name, value in _NEEDED.items())
        alone = not stacked and not (trains_head_alone(options) and _OF_HEADS.items() <= vars(options).items())
        found.setdefault((*(getattr(options, name) for name in SHARED), i if alone else -1), []).append(i)
    return list(found.values())


def varied(members: Sequence[TrainOptions]) -> list[str]:
    """Return the options in which networks differ, seeds aside."""
    return [name for name in SETTING if len({getattr(options, name) for options in members}) > 1]


def label(options: TrainOptions, names: Sequence[str]) -> str:
    """Return the options in which a setting differs from the others: "lr=0.01 momentum=0.9"."""
    return " ".join(f"{name.replace('_', '-')}={shown(getattr(options, name))}" for name in names)


def shown(value: Any) -> str:
    """Return a value as it is typed."""
    value = plain(value)
    if value in (None, "", []):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(value) if isinstance(value, list) else str(value)

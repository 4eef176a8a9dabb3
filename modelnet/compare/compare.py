"""Compare runs on the same validation images: which options differ, and can luck explain the difference?"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelnet.compare.result import Comparison, Flip, Pair, Side, show_seeds, verdict
from modelnet.compare.statistics import Values, compare_accuracies, compare_losses, holm, too_few
from modelnet.options import TrainOptions
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from modelnet.runs.kind import facts_of, kind_of
from modelnet.runs.tables import Prediction, result_row
from pipeline.errors import OptionsError, RunError
from pipeline.text import show_path

_SEEDS = ("seed", "data_seed")


@dataclass(frozen=True)
class _Run:
    """A run that has ended, as far as a comparison needs it; or those of all folds of a seed, as one run."""

    path: Path
    paths: list[Path]
    options: dict[str, Any]
    facts: dict[str, str]
    predictions: list[Prediction]
    result: str

    @property
    def kind(self) -> str:
        """What two runs have in common that differ in their seeds, and perhaps in their folds, alone."""
        return kind_of(self.facts)

    @property
    def seeds(self) -> tuple[int, int]:
        """Seed and data seed."""
        return self.options["seed"], self.options["data_seed"]


def compare_runs(runs: Sequence[Path]) -> Comparison:
    """Compare runs. Those whose options differ only in seed and data seed form one side.

    If there are two runs, and they differ only in their seeds, they are compared with each other. The networks that a
    seed has for several folds of a split are one run over the images of all of these folds.

    Args:
        runs: at least two run folders.

    Raises:
        RunError: a run does not exist or has not ended, has no validation images, or has others than the first.
        OptionsError: there are fewer than two runs, or one is given twice.
    """
    return _compare(_by_kind(_with_all_folds([_load_all(runs)])[0]))


def compare_groups(groups: Sequence[Sequence[Path]]) -> Comparison:
    """Compare groups of runs, whatever their options are.

    Args:
        groups: at least two groups, each with at least one run.

    Raises:
        As `compare_runs`.
    """
    if len(groups) < 2 or not all(groups):
        raise OptionsError("nothing to compare", None, "two groups are needed, with at least one run each")
    loaded = iter(_load_all([run for group in groups for run in group]))
    return _compare(_with_all_folds([[next(loaded) for _ in group] for group in groups]))


def _load_all(paths: Sequence[Path]) -> list[_Run]:
    if len(paths) < 2:
        raise OptionsError("nothing to compare", paths[0] if paths else None, "two runs or more are needed")
    places: dict[Path, Path] = {}
    for path in paths:
        if places.setdefault(Path(path).resolve(), path) is not path:
            raise OptionsError("a run is given twice", path, "each counts once", "Leave it out")
    return [_load(Path(path)) for path in paths]


def _load(path: Path) -> _Run:
    """Read a run, its predictions in the order of their images.

    Raises:
        RunError: it cannot be compared; says why, and what would help.
    """
    folder = RunFolder(path)
    config = folder.read_config()
    options = TrainOptions.from_dict(config["options"])
    if config["val"] is None:
        advice = "Train it again with --val or --val-fraction"
        raise RunError("the run cannot be compared", path, "it was trained without validation images", advice)
    rows, predictions, result = folder.read_metrics(), folder.read_predictions(), config.get("result", "last")
    if not predictions or not _are_of_the_end(predictions, rows, result):
        raise RunError("the run cannot be compared", path, *_why_not(folder, rows, options.epochs))
    if len(predictions) < 2:
        raise RunError("the run cannot be compared", path, "one validation image is too few", "Validate on more")
    return _Run(path, [path], options.to_dict(), facts_of(config), predictions, result)


def _why_not(folder: RunFolder, rows: list[EpochRow], epochs: int) -> tuple[str, str]:
    """Return why a run has no predictions of its last epoch, and what to do."""
    if divergence := folder.read_divergence():
        return f"it diverged: {divergence}", "Leave it out"
    done = rows[-1].epoch if rows else 0
    reason = f"{done} of {epochs} epochs" if done < epochs else "its predictions are not written yet"
    return f"it has not ended: {reason}", f"Continue with: python cli.py train --resume {shlex.quote(str(folder.path))}"


def _are_of_the_end(predictions: list[Prediction], rows: list[EpochRow], result: str) -> bool:
    """Say whether predictions belong to the result; a resumed run keeps the old ones until it ends."""
    loss = float(np.mean([prediction.loss for prediction in predictions]))
    row = result_row(rows, result) if rows else None
    return row is not None and row.val_loss is not None and bool(np.isclose(loss, row.val_loss, rtol=1e-4))


def _with_all_folds(groups: list[list[_Run]]) -> list[list[_Run]]:
    """Take the networks that a seed has for several folds as one run, over the images of all of these folds.

    Raises:
        RunError: a seed lacks a fold that another has.
    """
    folds = {run.options["fold"] for group in groups for run in group}
    if len(folds) > 1 and None not in folds:
        groups = [_by_seeds(group, folds) for group in groups]
    for run in (runs := [run for group in groups for run in group]):
        run.predictions.sort(key=lambda p: (p.class_id, p.sha256, p.file))
        _check_same_images(runs[0], run)
    return groups


def _by_seeds(group: list[_Run], folds: set[int]) -> list[_Run]:
    _check_seeds(group)
    seeds: dict[tuple[Any, ...], list[_Run]] = {}
    for run in group:
        seeds.setdefault((run.kind, run.seeds), []).append(run)
    whole = []
    for parts in seeds.values():
        parts.sort(key=lambda run: run.options["fold"])
        if missing := folds - {run.options["fold"] for run in parts}:
            reason = f"its seed {parts[0].seeds[0]} lacks fold {show_seeds(list(missing))}, which another run has"
            raise RunError("the runs cannot be compared", parts[0].path, reason, "Give the runs of all folds")
        facts = parts[0].facts | {"fold": show_seeds(list(folds))}
        predictions = [prediction for run in parts for prediction in run.predictions]
        result = "best" if any(run.result == "best" for run in parts) else "last"
        whole.append(
            replace(parts[0], paths=[r.path for r in parts], facts=facts, predictions=predictions, result=result)
        )
    return whole


def _check_same_images(first: _Run, other: _Run) -> None:
    """Refuse runs that were validated on other images: class and content tell an image.

    Raises:
        RunError: says how many they share.
    """
    ours, theirs = ([(p.class_id, p.sha256) for p in run.predictions] for run in (first, other))
    if ours == theirs:
        return
    shared = len(set(ours) & set(theirs))
    reason = f"it was validated on other images than {show_path(first.path)}: {len(theirs)} and {len(ours)}, "
    reason += f"{shared} of them the same"
    if shared < len({sha for _, sha in ours} & {sha for _, sha in theirs}):
        reason += "; some are the same photographs in other classes"
    advice = "Train with the same --val, or the same cache and --val-fraction or --split"
    raise RunError("the runs cannot be compared", other.path, reason, advice)


def _by_kind(runs: list[_Run]) -> list[list[_Run]]:
    """Put runs together that differ in their seeds alone, in the order of their first ones."""
    kinds: dict[str, list[_Run]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    return [[run] for run in runs] if len(runs) == 2 else list(kinds.values())


def _compare(groups: list[list[_Run]]) -> Comparison:
    for group in groups:
        group.sort(key=lambda run: run.seeds)
        _check_seeds(group)
    sides = [_side(label_of(i), group) for i, group in enumerate(groups)]
    pairs, folds = _pairs(sides, groups), len(groups[0][0].paths)
    return Comparison(len(groups[0][0].predictions), folds, sides, _differs(groups), pairs, _notes(sides, groups))


def _check_seeds(group: list[_Run]) -> None:
    """Refuse a run beside its repetition: it would pass for another seed.

    Raises:
        RunError: names both.
    """
    seen: dict[tuple[str, ...], _Run] = {}
    for run in group:
        key = (run.kind, *(run.facts[name] for name in (*_SEEDS, "fold") if name in run.facts))
        if key in seen:
            reason = f"it repeats {show_path(seen[key].path)}: the same options, seed and data seed"
            raise RunError("the runs cannot be compared", run.path, reason, "Leave one of them out")
        seen[key] = run


def label_of(index: int) -> str:
    """Return A to Z, then AA, AB, ..."""
    return chr(ord("A") + index) if index < 26 else label_of(index // 26 - 1) + label_of(index % 26)


def _side(label: str, group: list[_Run]) -> Side:
    return Side(
        label,
        [path for run in group for path in run.paths],
        [run.options["seed"] for run in group],
        [run.options["data_seed"] for run in group],
        _correct(group).mean(1).tolist(),
        _losses(group).mean(1).tolist(),
        [run.result for run in group],
    )


def _correct(group: list[_Run]) -> Values:
    """Return (runs, images): 1 where a run is right."""
    return np.array([[p.correct for p in run.predictions] for run in group], float)


def _losses(group: list[_Run]) -> Values:
    """Return (runs, images) losses."""
    return np.array([[p.loss for p in run.predictions] for run in group])


def _pairs(sides: list[Side], groups: list[list[_Run]]) -> list[Pair]:
    """Compare each other side with the first."""
    correct = [_correct(group) for group in groups]
    losses = [_losses(group) for group in groups]
    same_seeds = [_same_seeds(sides[0], side) for side in sides]
    folds = len(groups[0][0].paths)
    tests = sum(not too_few(sides[0].count, side.count) for side in sides[1:])
    accuracies = [
        compare_accuracies(correct[0], other, same, max(1, tests), folds)
        for other, same in zip(correct[1:], same_seeds[1:], strict=True)
    ]
    adjusted = iter(holm([accuracy.p for accuracy in accuracies if accuracy.p is not None]))
    pairs = []
    for i, accuracy in enumerate(accuracies, 1):
        p = None if accuracy.p is None else next(adjusted)
        better = sides[i if accuracy.value > 0 else 0].label if p is not None and p < 0.05 else None
        words = verdict(sides[0], sides[i], correct[0].shape[1], accuracy, better, tests)
        alone = _alone(correct[0][0], correct[i][0]) if len(correct[0]) == len(correct[i]) == 1 else None
        flips = _flips(groups[0][0].predictions, correct[0], correct[i])
        loss = compare_losses(losses[0], losses[i], same_seeds[i], folds)
        pairs.append(Pair(sides[0].label, sides[i].label, accuracy, loss, alone, p, better, flips, words))
    return pairs


def _alone(first_N: Values, second_N: Values) -> tuple[int, int]:
    """Count the images that only the first, and only the second of two networks gets right."""
    return int((first_N > second_N).sum()), int((first_N < second_N).sum())


def _same_seeds(first: Side, second: Side) -> bool:
    """Say whether both sides have the same seeds in the same order."""
    seeds = [list(zip(side.seeds, side.data_seeds, strict=True)) for side in (first, second)]
    return seeds[0] == seeds[1] and len(set(seeds[0])) == len(seeds[0])


def _flips(images: list[Prediction], first_KN: Values, second_LN: Values) -> list[Flip]:
    rights = zip(images, first_KN.mean(0).tolist(), second_LN.mean(0).tolist(), strict=True)
    flips = [Flip(image.class_id, image.file, a, b) for image, a, b in rights if (a > 0.5) != (b > 0.5)]
    return sorted(flips, key=lambda flip: -abs(flip.right_2 - flip.right_1))


def _differs(groups: list[list[_Run]]) -> dict[str, list[str]]:
    """Return each fact that is not the same in all runs, as text for each side."""
    names = dict.fromkeys(name for group in groups for run in group for name in run.facts)
    differs = {}
    for name in names:
        values = [list(dict.fromkeys(run.facts.get(name, "-") for run in group)) for group in groups]
        if len({value for side in values for value in side}) > 1:
            seeds = name in _SEEDS
            differs[name] = [show_seeds(list(map(int, side))) if seeds else ", ".join(side) for side in values]
    return differs


def _notes(sides: list[Side], groups: list[list[_Run]]) -> list[str]:
    notes = [*_luck(sides)]
    mixed = [side.label for side, group in zip(sides, groups, strict=True) if len({run.kind for run in group}) > 1]
    if mixed:
        notes.append(f"runs of {', '.join(mixed)} differ in more than their seeds; that counts as luck here")
    chosen = [run for group in groups for run in group if run.options["patience"] or run.options["sched"] == "plateau"]
    if chosen:
        notes.append("--patience and --sched plateau used these images: the accuracies are a little too high")
    if len(groups[0][0].paths) > 1:
        luck = "not in the interval" if all(side.count == 1 for side in sides) else "in the interval"
        notes.append(
            f"a run is the networks of all folds of a seed; luck with the training images, which folds share, is {luck}"
        )
    if len(sides) > 2:
        notes.append("p-values by Holm's rule count all comparisons; an interval is for one by itself")
    return notes


def _luck(sides: list[Side]) -> list[str]:
    """Say which luck the intervals hold, and which they do not."""
    alone = [side.label for side in sides if side.count == 1]
    if len(alone) == len(sides):
        return [
            "one run a side: this is about these networks. What other seeds would make of the same options is not in "
            "the interval; train several of each (--seeds 0-7) and compare them all"
        ]
    notes = [f"{', '.join(alone)}: one run; the luck of its seeds is not in the interval"] if alone else []
    paired = [side.label for side in sides[1:] if _same_seeds(sides[0], side)]
    if paired:
        notes.append(f"runs of {', '.join(paired)} are paired with those of {sides[0].label} that have the same seeds")
    several = [side for side in sides if side.count > 1]
    luck = (("seed", "initial weights", "seeds"), ("data seed", "order and augmentation", "data_seeds"))
    for name, what, field in luck:
        values = {side.label: sorted(set(getattr(side, field))) for side in several}
        varied = [label for label, seeds in values.items() if len(seeds) > 1]
        fixed = {label: seeds[0] for label, seeds in values.items() if len(seeds) == 1}
        if varied:
            notes.append(f"{name} varied in {', '.join(varied)}: luck with {what} is in the interval")
        if len(set(fixed.values())) == 1:
            notes.append(f"{name} {min(fixed.values())} in {', '.join(fixed)}: luck with {what} is not in the interval")
        elif fixed:
            shown = ", ".join(f"{label}: {seed}" for label, seed in fixed.items())
            notes.append(f"one {name} each ({shown}): luck with {what} is not in the interval, and may differ")
    return notes

"""Compare runs on the same validation images: which options differ, and can luck explain the difference?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from modelnet.compare.load import SEEDS, Answers, Run, check_seeds, load_all, with_all_folds
from modelnet.compare.result import Comparison, Flip, Pair, Side, show_seeds, verdict
from modelnet.compare.selection import select
from modelnet.compare.statistics import Values, compare_accuracies, compare_losses, holm, too_few
from modelnet.runs.kind import NOT_GIVEN
from modelnet.runs.tables import Prediction
from pipeline.errors import OptionsError

Labels = Callable[[list[list[Path]]], list[str]]


def compare_runs(runs: Sequence[Path], answers: Answers | None = None, labels: Labels | None = None) -> Comparison:
    """Compare runs. Those whose options differ only in seed and data seed form one side.

    If there are two runs, and they differ only in their seeds, they are compared with each other. The networks that a
    seed has for several folds of a split are one run over the images of all of these folds.

    Args:
        runs: at least two run folders.
        answers: what each says of test images, which are compared instead of the validation images.
        labels: names the sides, given the folders of each; None: A, B, ...

    Raises:
        RunError: a run does not exist or has not ended, has no validation images, or has others than the first.
        OptionsError: there are fewer than two runs, or one is given twice.
    """
    loaded = load_all(runs, answers)
    two_tested = answers is not None and len(loaded) == 2  # networks of two folds, perhaps
    groups = with_all_folds([[run] for run in loaded] if two_tested else _by_kind(loaded), answers)
    whole = [run for group in groups for run in group]
    return _compare([[run] for run in whole] if len(whole) == 2 else groups, answers, labels)


def compare_groups(groups: Sequence[Sequence[Path]], answers: Answers | None = None) -> Comparison:
    """Compare groups of runs, whatever their options are.

    Args:
        groups: at least two groups, each with at least one run.
        answers: as for `compare_runs`.

    Raises:
        As `compare_runs`.
    """
    if len(groups) < 2 or not all(groups):
        raise OptionsError("nothing to compare", None, "two groups are needed, with at least one run each")
    loaded = iter(load_all([run for group in groups for run in group], answers))
    return _compare(with_all_folds([[next(loaded) for _ in group] for group in groups], answers), answers)


def _by_kind(runs: list[Run]) -> list[list[Run]]:
    """Put runs together that differ in their seeds and folds alone, in the order of their first ones."""
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    return list(kinds.values())


def _compare(groups: list[list[Run]], answers: Answers | None, labels: Labels | None = None) -> Comparison:
    for group in groups:
        group.sort(key=lambda run: run.seeds)
        check_seeds(group)
    paths = [[path for run in group for path in run.paths] for group in groups]
    names = [label_of(i) for i in range(len(groups))] if labels is None else labels(paths)
    sides = [_side(name, group) for name, group in zip(names, groups, strict=True)]
    folds = 1 if answers is not None else len(groups[0][0].paths)
    kind = "validation" if answers is None else "test"
    pairs, notes = _pairs(sides, groups, folds, kind), _notes(sides, groups, folds, kind)
    return Comparison(len(groups[0][0].predictions), kind, folds, sides, _differs(groups), pairs, notes)


def label_of(index: int) -> str:
    """Return A to Z, then AA, AB, ..."""
    return chr(ord("A") + index) if index < 26 else label_of(index // 26 - 1) + label_of(index % 26)


def _side(label: str, group: list[Run]) -> Side:
    return Side(
        label,
        [path for run in group for path in run.paths],
        [run.options["seed"] for run in group],
        [run.options["data_seed"] for run in group],
        _correct(group).mean(1).tolist(),
        _losses(group).mean(1).tolist(),
        [run.result for run in group],
    )


def _correct(group: list[Run]) -> Values:
    """Return (runs, images): 1 where a run is right."""
    return np.array([[p.correct for p in run.predictions] for run in group], float)


def _losses(group: list[Run]) -> Values:
    """Return (runs, images) losses."""
    return np.array([[p.loss for p in run.predictions] for run in group])


def _pairs(sides: list[Side], groups: list[list[Run]], folds: int, kind: str) -> list[Pair]:
    """Compare each other side with the first."""
    judges = [_judges(group, kind) for group in groups]
    correct = [_correct(group) for group in groups]
    losses = [_losses(group) for group in groups]
    same_seeds = [_same_seeds(sides[0], side) for side in sides]
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
        alone = _alone(correct[0][0], correct[i][0]) if judges[0] == judges[i] == 1 else None
        flips = _flips(groups[0][0].predictions, correct[0], correct[i])
        loss = compare_losses(losses[0], losses[i], same_seeds[i], folds)
        pairs.append(Pair(sides[0].label, sides[i].label, accuracy, loss, alone, p, better, flips, words))
    return pairs


def _judges(group: list[Run], kind: str) -> int:
    """Count the networks that judge an image: those of all folds judge each test image, else one of them does."""
    return len(group) if kind == "validation" else sum(len(run.paths) for run in group)


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


def _differs(groups: list[list[Run]]) -> dict[str, list[str]]:
    """Return each fact that is not the same in all runs, as text for each side."""
    names = dict.fromkeys(name for group in groups for run in group for name in run.facts)
    differs = {}
    for name in sorted(names, key=SEEDS.__contains__):  # the seeds last
        values = [list(dict.fromkeys(run.facts.get(name, NOT_GIVEN) for run in group)) for group in groups]
        if len({value for side in values for value in side}) > 1:
            seeds = name in SEEDS
            differs[name] = [show_seeds(list(map(int, side))) if seeds else ", ".join(side) for side in values]
    return differs


def _notes(sides: list[Side], groups: list[list[Run]], folds: int, kind: str) -> list[str]:
    notes = [*_luck(sides)]
    if len(sides) == 1:
        notes.append("the runs differ in seeds and folds alone: one side, and nothing to compare it with")
    mixed = [side.label for side, group in zip(sides, groups, strict=True) if len({run.kind for run in group}) > 1]
    if mixed:
        notes.append(f"runs of {', '.join(mixed)} differ in more than their seeds; that counts as luck here")
    if others := _other_labels(groups):
        notes.append(f"--labels gives {others} images other labels on one side; each side is judged by its own")
    chosen = [run for group in groups for run in group if run.options["patience"] or run.options["sched"] == "plateau"]
    if chosen and kind == "validation":
        notes.append("--patience and --sched plateau used these images: the accuracies are a little too high")
    if any(len(run.paths) > 1 for group in groups for run in group):
        counted = folds > 1 and any(side.count > 1 for side in sides)
        luck = "in the interval" if counted else "not in the interval"
        notes.append(f"a run is the networks of all folds of a seed. Folds share training images; this luck is {luck}")
    if kind == "test" and len({frozenset(run.facts.get("fold", NOT_GIVEN) for run in group) for group in groups}) > 1:
        notes.append("the sides were trained on other folds: luck with the training images is not in the interval")
    if len(sides) > 2:
        best = select([_correct(group) for group in groups])
        notes.append(f"{sides[best.best].label} has the highest accuracy, {best}")
        notes.append("p-values by Holm's rule count all comparisons; an interval is for one by itself")
    return notes


def _other_labels(groups: list[list[Run]]) -> int:
    """Count the validation images that do not have the same label in all runs."""
    labels = zip(*([p.label or p.class_id for p in run.predictions] for group in groups for run in group), strict=True)
    return sum(len(set(of_image)) > 1 for of_image in labels)


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

"""Hold the result of a comparison, as plain values and as text."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelnet.compare.statistics import CONFIDENCE, FEWEST_RUNS, Difference, too_few
from pipeline.text import ShownAsText, align, counted, first_lines, show_path

FLIPS_SHOWN = 10
MOST_NEEDED = 1_000_000  # a larger number tells nothing more


@dataclass(frozen=True)
class Side:
    """A run, or several that differ in their seeds alone.

    Attributes:
        label: "A", "B", ...
        runs: the folders; of networks of several folds, all of a run's, one after another.
        seeds, data_seeds: of each run.
        accuracies: of each, 0..1, on the validation images by the weights that are its result.
        losses: of each, mean cross-entropy.
        results: of each, the epoch of these weights: "last", or "best" where `--patience` picked it.
    """

    label: str
    runs: list[Path]
    seeds: list[int]
    data_seeds: list[int]
    accuracies: list[float]
    losses: list[float]
    results: list[str]

    @property
    def count(self) -> int:
        """The number of runs; the networks of all folds of a seed are one."""
        return len(self.seeds)

    @property
    def name(self) -> str:
        """The folder, or the first and the last of several."""
        first, last = show_path(self.runs[0]), show_path(self.runs[-1].name)
        return first if len(self.runs) == 1 else f"{first} ... {last}"


@dataclass(frozen=True)
class Flip:
    """An image that only one side gets right; with several networks, more than half of them.

    Attributes:
        class_id, file: the image.
        right_1, right_2: share of the first and of the second side's networks that get it right.
    """

    class_id: str
    file: str
    right_1: float
    right_2: float


@dataclass(frozen=True)
class Pair:
    """Two sides against each other.

    Attributes:
        first, second: their labels.
        accuracy, loss: of the second less the first; of several runs, of their means.
        alone: images that only the first, and only the second side gets right; None where several networks judge each.
        p_adjusted: that of the accuracy, by Holm's rule where there are several pairs; None with too few runs.
        better: label of the side whose accuracy is higher beyond chance, or None.
        flips: images that change sides, the clearest first.
        verdict: all this in a sentence.
    """

    first: str
    second: str
    accuracy: Difference
    loss: Difference
    alone: tuple[int, int] | None
    p_adjusted: float | None
    better: str | None
    flips: list[Flip]
    verdict: str


@dataclass(frozen=True)
class Comparison(ShownAsText):
    """The comparison of runs that were validated on the same images.

    Attributes:
        images: their number N.
        kind: "validation", or "test" images.
        folds: that a run has networks of.
        sides: at least one side.
        differs: {option: its value on each side}, for options that are not the same on all sides.
        pairs: each other side against the first.
        notes: what the intervals leave out, and other remarks for the reader.
    """

    images: int
    kind: str
    folds: int
    sides: list[Side]
    differs: dict[str, list[str]]
    pairs: list[Pair]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = asdict(self)
        for side in values["sides"]:
            side["runs"] = [os.fspath(run) for run in side["runs"]]
        return values | {"confidence": CONFIDENCE}

    def __repr__(self) -> str:
        verdicts = "; ".join(f"{pair.second} against {pair.first}: {pair.verdict}" for pair in self.pairs)
        return f"Comparison({verdicts or counted(len(self.sides), 'side')})"

    def __str__(self) -> str:
        """Return the options that differ, a table of results, each pair, and notes."""
        parts = ["\n".join(f"{side.label}  {side.name}" for side in self.sides)]
        if self.differs:
            rows = [[name, *values] for name, values in self.differs.items()]
            parts.append("\n".join(_columns([["", *(s.label for s in self.sides)], *rows])))
        of_folds = f" of {self.folds} folds" if self.folds > 1 else ""
        images = f"{self.images} {self.kind} images{of_folds}, {_weights(self.sides)}"
        parts.append("\n".join([images, *self._results()]))
        parts += [self._pair_text(pair) for pair in self.pairs]
        if self.notes:
            parts.append("\n".join(f"note: {note}" for note in self.notes))
        return "\n\n".join(parts)

    def _results(self) -> list[str]:
        if all(side.count == 1 for side in self.sides):
            rows = [[s.label, f"{s.accuracies[0]:.1%}", f"{s.losses[0]:.4f}"] for s in self.sides]
            return _columns([["", "accuracy", "loss"], *rows])
        header = ["", "runs", "accuracy: mean", "quartiles", "best", "loss: mean", "quartiles", "best"]
        return _columns([header, *([s.label, str(s.count), *_spread(s)] for s in self.sides)])

    def _pair_text(self, pair: Pair) -> str:
        lines = [
            f"{pair.second} against {pair.first}",
            f"  accuracy  {_points(pair)}",
            f"  loss      {_loss(pair.loss)}",
        ]
        if pair.alone is not None:
            first, second = map(_images, pair.alone)
            lines.append(f"  only {pair.first} is right: {first}; only {pair.second}: {second}")
        if pair.flips and len(self.pairs) == 1:
            lines += self._flip_lines(pair)
        return "\n".join([*lines, pair.verdict])

    @property
    def _has_shares(self) -> bool:
        """Whether the networks of all folds judge each image, as they do test images."""
        return self.kind == "test" and any(len(side.runs) > side.count for side in self.sides)

    def _flip_lines(self, pair: Pair) -> list[str]:
        several, judges = pair.alone is None, "networks" if self._has_shares else "runs"
        what = f"that more than half of the {judges} get right on one side alone" if several else "that flip"
        lines = [f"  images {what}: {len(pair.flips)}"]
        flips = []
        for flip in pair.flips:
            both = (flip.right_1, flip.right_2)
            ends = [f"{right:.0%} of the {judges}" if several else "right" if right else "wrong" for right in both]
            flips.append(f"{show_path(f'{flip.class_id}/{flip.file}')}: {' -> '.join(ends)}")
        return lines + [f"    {line}" for line in first_lines(flips, FLIPS_SHOWN, ": --json lists all")]


def verdict(first: Side, second: Side, images: int, accuracy: Difference, better: str | None, pairs: int) -> str:
    """Return a sentence: do the accuracies differ, or how many runs or images would show it?

    Args:
        first, second: the sides.
        images: validated on.
        accuracy: the second's less the first's.
        better: the label of the side that is, beyond chance.
        pairs: compared at once.
    """
    low, high, single = accuracy.low, accuracy.high, first.count == second.count == 1
    if low is None or high is None:
        few = " and ".join(f"{side.label} has {side.count}" for side in (first, second) if too_few(side.count))
        return f"too few runs: {few}; at least {FEWEST_RUNS} runs of a side show the spread of its seeds"
    if better is not None:
        winner, other = (second, first) if better == second.label else (first, second)
        than = f" than {_as_one(other, single)}" if other.count == 1 < winner.count else ""
        than = f" than {other.label}" if winner.count == 1 < other.count else than
        ends = (low, high) if winner is second else (-high, -low)
        return (
            f"{_as_one(winner, single)} is better{than} by {100 * abs(accuracy.value):.1f} points "
            f"(95 % interval {show_points(*ends)})"
        )
    text = f"not distinguishable with {_images(images)}"
    if not single:
        text += f" and {first.count} + {second.count} runs"
    if pairs > 1 and not low <= 0 <= high:
        text += f" among {pairs} comparisons"
    return f"{text}; {_needed(accuracy, single)}" if accuracy.value else f"{text}: no difference"


def _as_one(side: Side, single: bool) -> str:
    """Name a side: its options if it has several runs, or its network."""
    if side.count > 1:
        return side.label
    what = "run" if len(side.runs) > 1 else "network"
    return f"the {what} of {side.label}" if single else f"this {what} of {side.label}"


def _needed(accuracy: Difference, single: bool) -> str:
    size = f"to see a difference of {100 * abs(accuracy.value):.1f} points"
    if accuracy.images_needed is not None:
        what = f"{_about(accuracy.images_needed)} images"
    elif accuracy.runs_needed is not None:
        what = f"{_about(accuracy.runs_needed)} runs a side"
    else:
        return f"more images{'' if single else ' and more runs'} would be needed {size}"
    return f"{what} would be needed {size} four times in five"


def show_p(p: float) -> str:
    """Return a p-value with two digits, with more beside 0.05, or an upper limit of a tiny one."""
    digits = 2
    while p != 0.05 and digits < 9 and float(f"{p:.{digits}g}") == 0.05:
        digits += 1
    return "less than 0.0001" if p < 1e-4 else f"{p:.{digits}g}"


def show_seeds(seeds: Sequence[int]) -> str:
    """Return numbers as --seeds takes them: "0-7" or "0,2,5-9"."""
    spans: list[list[int]] = []
    for seed in sorted(set(seeds)):
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)


def _about(count: int) -> str:
    return f"more than {MOST_NEEDED:,}" if count > MOST_NEEDED else f"about {count:,}"


def _weights(sides: Sequence[Side]) -> str:
    """Say which weights the numbers are of."""
    results = {result for side in sides for result in side.results}
    if results == {"last"}:
        return "by the weights at the end"
    return "by the weights of the best epoch where --patience picked it" + (
        ", else the last" if "last" in results else ""
    )


def _images(count: int) -> str:
    return counted(count, "image")


def _points(pair: Pair) -> str:
    value, p = f"{100 * pair.accuracy.value:+z.1f} points", pair.accuracy.p  # z: no -0.0
    if pair.accuracy.low is None or pair.accuracy.high is None or p is None or pair.p_adjusted is None:
        return f"{value} (too few runs for an interval)"
    holm = f" ({show_p(pair.p_adjusted)} by Holm's rule)" if pair.p_adjusted != p else ""
    return f"{value} (95 % interval {show_points(pair.accuracy.low, pair.accuracy.high, '+')}), p = {show_p(p)}{holm}"


def _loss(loss: Difference) -> str:
    interval = "" if loss.low is None else f" (95 % interval {loss.low:+z.4f} to {loss.high:+z.4f})"
    return f"{loss.value:+z.4f}{interval}"


def show_points(low: float, high: float, sign: str = "") -> str:
    """Return both ends of an interval of accuracies, with so many digits that an end beside 0 is not shown as 0."""
    low, high, digits = 100 * low, 100 * high, 1
    while low * high > 0 and digits < 9 and not round(min(abs(low), abs(high)), digits):
        digits += 1
    return f"{low:{sign}z.{digits}f} to {high:{sign}z.{digits}f}"


def _spread(side: Side) -> list[str]:
    texts = []
    for values, best, shape in ((side.accuracies, max(side.accuracies), ".1%"), (side.losses, min(side.losses), ".4f")):
        low, high = np.quantile(values, (0.25, 0.75))
        texts += [format(np.mean(values), shape), f"{low:{shape}} to {high:{shape}}", format(best, shape)]
    return texts


def _columns(rows: list[list[str]]) -> list[str]:
    return align(rows, left=range(len(rows[0])))

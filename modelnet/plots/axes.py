"""Draw runs against the epoch: lines and bands, limits that one spike does not move, ticks, the line of guessing."""

from collections.abc import Mapping, Sequence
from math import nan
from statistics import median
from typing import Any, Literal

from modelnet.plots.palette import COLORS, GREY
from modelnet.progress import EpochRow

Groups = Mapping[str, Sequence[Sequence[EpochRow]]]

MEASURES = {"loss": "cross-entropy loss", "acc": "accuracy"}
PARTS = {"train": "training (average over the epoch)", "val": "validation"}
COLORED = len(COLORS)  # groups that have a color of their own
MARKED_UP_TO = 20  # epochs, each with a marker

_SPIKE = 4.0  # × the loss of guessing: higher losses do not stretch the axis
_SPIKE_UNKNOWN = 10.0  # × the upper quartile, where the loss of guessing is not known
_MARGIN = 0.04  # of the axis, left free above and below the lines
_TICKS = 8


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """Make a figure that needs no screen and leaves pyplot alone; drawing one without a layout takes half the time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout=layout)
    FigureCanvasAgg(figure)
    return figure


def draw_runs(axes: Any, groups: Groups, measure: str, parts: Sequence[str], guess: float | None) -> None:
    """Draw one measure of groups of runs by their medians and quartiles.

    Args:
        axes: empty.
        groups: by name; the parts of a single one have a line each, several have a color each.
        measure: "loss" or "acc".
        parts: of "train" and "val".
        guess: as `finish_axes` has it.
    """
    axes.set_prop_cycle(color=COLORS)
    for group, color in group_colors(groups).items():
        for part in parts:
            label = PARTS[part] if len(groups) == 1 else group
            style = "--" if part != parts[-1] else "-"
            draw_band(axes, groups[group], f"{part}_{measure}", label, color, style)
    if len(groups) > COLORED:
        axes.plot([], [], color=GREY, label=f"{len(groups) - COLORED} others")
    of = "" if len(groups) == 1 else f"{PARTS[parts[-1]]}: "
    finish_axes(axes, measure, f"{of}{MEASURES[measure]}", guess)


def parts_shown(groups: Groups) -> list[str]:
    """Return the parts to draw: "train" and "val" of one group; for several groups, one that all of them have."""
    validated = all(rows[0].val_loss is not None for runs in groups.values() for rows in runs)
    parts = ["train", "val"] if validated else ["train"]
    return parts if len(groups) == 1 else parts[-1:]


def group_colors(groups: Groups) -> dict[str, str | None]:
    """Return a color for each group, in drawing order; None for the next of the usual colors."""
    if len(groups) <= COLORED:
        return dict.fromkeys(groups)

    def ended(group: str) -> float:
        last = [rows[-1] for rows in groups[group]]
        return median(-row.train_loss if row.val_acc is None else row.val_acc for row in last)

    ranked = sorted(groups, key=ended)
    return dict.fromkeys(ranked[:-COLORED], GREY) | dict.fromkeys(reversed(ranked[-COLORED:]))


def draw_band(
    axes: Any, runs: Sequence[Sequence[EpochRow]], column: str, label: str, color: str | None, style: str = "-"
) -> None:
    """Draw the median of runs, and the band between their quartiles unless the color is grey.

    A run that ended early stays at its last row. Runs without a value of the column, as validation, count no epoch.
    """
    import numpy as np

    length = max(map(len, runs))
    padded = [[*rows, *[rows[-1]] * (length - len(rows))] for rows in runs]
    values_RE = np.array([[value_of(row, column) for row in rows] for rows in padded])
    low, middle, high = np.quantile(values_RE, (0.25, 0.5, 0.75), axis=0)
    epochs = [row.epoch for row in max(runs, key=len)]
    if color is not None:
        axes.plot(epochs, middle, color=color, linewidth=0.8)
        return
    marker = "o" if length < MARKED_UP_TO else ""
    (line,) = axes.plot(epochs, middle, label=label, marker=marker, linestyle=style)
    if len(runs) > 1:
        axes.fill_between(epochs, low, high, alpha=0.2, color=line.get_color(), linewidth=0)


def value_of(row: EpochRow, column: str) -> float:
    """Return a number of an epoch; NaN, which leaves a gap, where there is none."""
    value: float | None = getattr(row, column)
    return nan if value is None else value


def finish_axes(axes: Any, measure: str, label: str, guess: float | None = None) -> None:
    """Set labels, limits and ticks once all lines are drawn, and draw the line of guessing.

    Args:
        axes: with lines over the epochs.
        measure: "loss" or "acc".
        label: of the vertical axis.
        guess: loss or accuracy of the best answer that ignores the image; None where it is not known.
    """
    points = [point for line in axes.get_lines() for point in zip(*line.get_data(), strict=True)]
    top = 1.0 if measure == "acc" else _set_loss_limit(axes, points, guess)
    if guess is not None:
        axes.axhline(guess, color=GREY, linestyle=":", linewidth=1, label="guessing")
    axes.set(xlabel="epoch", ylabel=label, ylim=(-_MARGIN * top, (1 + _MARGIN) * top))
    epochs = [int(x) for x, _ in points] or [1]
    axes.set_xticks(epoch_ticks(min(epochs), max(epochs)))
    axes.grid(alpha=0.3)


def _set_loss_limit(axes: Any, points: Sequence[tuple[float, float]], guess: float | None) -> float:
    """Return the top of a loss axis; say how high the highest spike is where it is above."""
    known = [(x, y) for x, y in points if y == y]
    if not known:
        return 1.0
    top = loss_top([y for _, y in known], guess)
    x, y = max(known, key=lambda point: point[1])
    if y > top:
        text = f"↑ up to {y:,.4g} in epoch {x:g}"
        axes.text(0.5, 0.98, text, transform=axes.transAxes, ha="center", va="top", fontsize="small", color="gray")
    return top


def loss_top(losses: Sequence[float], guess: float | None) -> float:
    """Return the top of an axis for losses: their maximum, unless single ones are far above the others."""
    ordered = sorted(losses)
    limit = _SPIKE_UNKNOWN * ordered[3 * len(ordered) // 4 - (len(ordered) % 4 == 0)] if guess is None else 0.0
    limit = limit or _SPIKE * max(guess or 0.0, ordered[len(ordered) // 2])
    below = [loss for loss in ordered if loss <= limit]
    top = max([*below[-1:], 0.0 if guess is None else 1.1 * guess])
    return top if top > 0 else 1.0


def epoch_ticks(first: int, last: int) -> list[int]:
    """Return at most about eight epochs to label, the first and the last among them."""
    span = last - first
    steps = (digit * 10**power for power in range(12) for digit in (1, 2, 5))
    step = next(step for step in steps if span <= step * _TICKS)
    between = range((first // step + 1) * step, last, step)
    inner = [epoch for epoch in between if epoch - first >= step / 2 and last - epoch >= step / 2]
    return sorted({first, *inner, last})

"""Pictures of a run, and of the search for a learning rate."""

import io
from collections.abc import Mapping, Sequence
from math import inf, nan
from statistics import median
from typing import Any

from modelnet.progress import EpochRow

NAMED_UP_TO, NUMBERED_UP_TO = 25, 10  # classes of a confusion matrix, that there is room for


def loss_curves(rows: Sequence[EpochRow], title: str) -> bytes:
    """Draw loss and accuracy against the epoch, of training and validation where there is one.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)  # draws without a screen, and leaves pyplot's global state alone
    loss, accuracy = figure.subplots(1, 2)
    epochs = [row.epoch for row in rows]
    marker = "o" if len(rows) < 20 else ""
    loss.plot(epochs, [row.train_loss for row in rows], marker=marker, label="training (running mean)")
    accuracy.plot(epochs, [row.train_acc for row in rows], marker=marker, label="training (running mean)")
    if any(row.val_loss is not None for row in rows):
        loss.plot(epochs, [row.val_loss for row in rows], marker=marker, label="validation")
        accuracy.plot(epochs, [row.val_acc for row in rows], marker=marker, label="validation")
    loss.set(xlabel="epoch", ylabel="cross-entropy loss", ylim=(0, None))
    accuracy.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1.02))
    for axes in (loss, accuracy):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure, title)


def group_curves(groups: Mapping[str, Sequence[Sequence[EpochRow]]], title: str) -> bytes:
    """Draw loss and accuracy of groups of runs: the median of each, and the band between its quartiles.

    With one group, training and validation; with several, which have a color each, validation alone where there is any.
    Of more than eight, those that ended best are colored, the others grey.

    Args:
        groups: the rows of the runs of each, by its name; a run that ended early stays where it was.
        title: of the picture.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4) if len(groups) == 1 else (13, 4.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    first = next(iter(groups.values()))[0][0]
    parts = ["train"] + ["val"] * (first.val_loss is not None)
    parts = parts if len(groups) == 1 else parts[-1:]
    names = {"train": "training (running mean)", "val": "validation"}
    for axes, measure, what in zip(
        figure.subplots(1, 2), ("loss", "acc"), ("cross-entropy loss", "accuracy"), strict=True
    ):
        for group, color in group_colors(groups).items():
            for part in parts:
                label = f"{names[part]}: median, quartiles" if len(groups) == 1 else group
                draw_band(axes, groups[group], f"{part}_{measure}", label, color)
        if len(groups) > COLORED:
            axes.plot([], [], color=GREY, label=f"{len(groups) - COLORED} others")
        of = "" if len(groups) == 1 else f"{names[parts[0]]}: "
        axes.set(xlabel="epoch", ylabel=f"{of}{what}", ylim=(0, 1.02 if measure == "acc" else None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    if len(groups) == 1:
        for axes in figure.axes:
            axes.legend()
    else:
        lines, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(lines, labels, loc="outside right upper", title="median, quartiles", fontsize="small")
    return _png(figure, title)


COLORED, GREY = 8, "0.8"


def group_colors(groups: Mapping[str, Sequence[Sequence[EpochRow]]]) -> dict[str, str | None]:
    """Return a color for each group, in the order in which they are drawn; None for the next of the usual ones."""
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
    """Draw the median of runs, and between their quartiles a band unless they are grey."""
    import numpy as np

    length = max(map(len, runs))
    padded = [[*rows, *[rows[-1]] * (length - len(rows))] for rows in runs]
    values_RE = np.array([[getattr(row, column) for row in rows] for rows in padded])
    low, middle, high = np.quantile(values_RE, (0.25, 0.5, 0.75), axis=0)
    epochs = range(1, length + 1)
    if color is not None:
        axes.plot(epochs, middle, color=color, linewidth=0.8)
        return
    (line,) = axes.plot(epochs, middle, label=label, marker="o" if length < 20 else "", linestyle=style)
    if len(runs) > 1:
        axes.fill_between(epochs, low, high, alpha=0.2, color=line.get_color(), linewidth=0)


def rate_curve(
    rates: Sequence[float], losses: Sequence[float], blind: float, suggestion: float | None, epochs: int, title: str
) -> bytes:
    """Draw the loss against the learning rate, with the suggested rate and the loss of guessing.

    Args:
        rates: the learning rates, rising.
        losses: of each, after `epochs`; infinite where training diverged.
        blind: the loss of guessing.
        suggestion: one of the rates, or None.
        epochs: that each was tried for.
        title: of the picture.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(rates, [loss if loss < inf else nan for loss in losses], marker="o")
    axes.axhline(blind, color="gray", linestyle="--", label=f"guessing: {blind:.3f}")
    if suggestion is not None:
        axes.axvline(suggestion, color="black", linestyle=":", label=f"suggested: {suggestion:g}")
        axes.set_ylim(0, 2 * blind)  # nobody asks how bad a rate is that fails
    axes.legend()
    axes.set(xlabel="learning rate", ylabel=f"training loss of epoch {epochs}", xscale="log")
    axes.grid(alpha=0.3)
    return _png(figure, title)


def confusion_picture(confusion: Sequence[Sequence[int]], names: Sequence[str], title: str) -> bytes:
    """Draw the confusion matrix, each row by its shares; with the numbers and names where there is room for them.

    Args:
        confusion: [true label][predicted label], numbers of images.
        names: of the classes.
        title: of the picture.

    Returns:
        A PNG.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    counts_CC = np.array(confusion)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    side = min(3 + 0.45 * len(names), 12)
    figure = Figure(figsize=(side + 1, side), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(names) <= NAMED_UP_TO:
        shown = [_plain_text(name if len(name) <= 20 else f"{name[:19]}…") for name in names]
        axes.set_xticks(range(len(names)), shown, rotation=90 if len(names) > 4 else 0)
        axes.set_yticks(range(len(names)), shown)
    if len(names) <= NUMBERED_UP_TO:
        for (true, said), count in np.ndenumerate(counts_CC):
            color = "white" if shares_CC[true, said] > 0.5 else "black"
            axes.text(said, true, f"{count}", ha="center", va="center", color=color)
    return _png(figure, title)


def _png(figure: Any, title: str) -> bytes:
    figure.suptitle(_plain_text(title))
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _plain_text(text: str) -> str:
    """Return a text that can be drawn: the font has no other letters, and nothing in a name is mathematics."""
    return text.encode("ascii", "replace").decode().replace("$", r"\$")

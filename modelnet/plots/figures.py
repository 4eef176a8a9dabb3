"""Draw pictures of runs, and of the search for a learning rate, as PNG."""

import io
from collections.abc import Sequence
from math import inf, nan
from typing import Any, NamedTuple

from modelnet.plots.axes import MEASURES, Groups, draw_runs, new_figure, parts_shown
from modelnet.plots.letters import letters_for
from modelnet.plots.palette import COLORS, GREY
from modelnet.progress import EpochRow


class Guess(NamedTuple):
    """How good the best answer is that ignores the image.

    Attributes:
        loss: mean loss of the training, from the sizes of the classes.
        accuracy: 0..1, the share of the largest class.
    """

    loss: float
    accuracy: float


def loss_curves(rows: Sequence[EpochRow], title: str, guess: Guess | None = None) -> bytes:
    """Draw loss and accuracy against the epoch, of training, and of validation where there is one.

    Returns:
        A PNG.
    """
    return group_curves({"": [rows]}, title, guess)


def group_curves(groups: Groups, title: str, guess: Guess | None = None) -> bytes:
    """Draw loss and accuracy of groups of runs: the median of each, and the band between its quartiles.

    One group shows training and validation. Several have a color each and show validation alone where there is any.
    Of more than eight groups, those that ended best are colored, and the others grey.

    Args:
        groups: the rows of the runs of each, by its name; a run that ended early stays at its last row.
        title: of the picture.
        guess: drawn as a line where it is known.

    Returns:
        A PNG.
    """
    many = len(groups) > 1
    figure = new_figure(13, 4.5) if many else new_figure(10, 4, None)
    both = figure.subplots(1, 2)
    if not many:  # nothing stands outside the axes: their place is known
        figure.subplots_adjust(left=0.08, right=0.98, bottom=0.13, top=0.9, wspace=0.2)
    for axes, measure, level in zip(both, MEASURES, guess or (None, None), strict=True):
        draw_runs(axes, groups, measure, parts_shown(groups), level)
    several = max(map(len, groups.values())) > 1
    if many:
        handles, labels = both[0].get_legend_handles_labels()
        heading = "median, quartiles" if several else None
        figure.legend(handles, labels, loc="outside right upper", title=heading, fontsize="small")
    else:
        for axes in both:
            axes.legend(title="median, quartiles" if several else None, fontsize="small")
    return png_of(figure, title)


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
    figure = new_figure(7, 4)
    axes = figure.subplots()
    axes.set_prop_cycle(color=COLORS)
    axes.plot(rates, [loss if loss < inf else nan for loss in losses], marker="o")
    axes.axhline(blind, color=GREY, linestyle=":", label=f"guessing: {blind:.3f}")
    if suggestion is not None:
        axes.axvline(suggestion, color="black", linestyle=":", label=f"suggested: {suggestion:g}")
        axes.set_ylim(-0.04 * blind, 2 * blind)  # losses of failing rates are not worth space on the axis
    axes.legend()
    axes.set(xlabel="learning rate", ylabel=f"training loss of epoch {epochs}", xscale="log")
    axes.grid(alpha=0.3)
    return png_of(figure, title)


def png_of(figure: Any, title: str) -> bytes:
    """Put a title above a figure, and return it as PNG."""
    letters = letters_for([title])
    figure.suptitle(letters.drawable(title), family=letters.families)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()

"""Draw a confusion matrix as PNG; of many classes, the pairs that are most often confused beside it."""

from collections.abc import Sequence
from typing import Any

from modelnet.plots.axes import new_figure
from modelnet.plots.figures import png_of
from modelnet.plots.letters import Letters, letters_for
from modelnet.plots.palette import BAR, FULL

NAMED_UP_TO, NUMBERED_UP_TO = 25, 10  # largest number of classes for which names fit, and numbers
PAIRS = 20
LONGEST = 20  # letters of a name


def confusion_picture(confusion: Sequence[Sequence[int]], names: Sequence[str], title: str) -> bytes:
    """Draw the confusion matrix, each row by its shares.

    Up to 25 classes have their names beside the matrix, up to 10 have numbers in it. With more than 25, the pairs that
    are most often confused stand beside it with their names.

    Args:
        confusion: [true label][predicted label], numbers of images.
        names: of the classes.
        title: of the picture.

    Returns:
        A PNG.
    """
    letters = letters_for(names)
    shown = [letters.drawable(name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…") for name in names]
    pairs = confused_pairs(confusion)[:PAIRS] if len(names) > NAMED_UP_TO else []
    if pairs:
        figure = new_figure(17, 9)
        matrix, beside = figure.subplots(1, 2, width_ratios=(3, 2))
        _draw_pairs(beside, pairs, shown, letters)
    else:
        side = min(3 + 0.45 * len(names), 12)
        figure = new_figure(side + 1, side)
        matrix = figure.subplots()
    _draw_matrix(figure, matrix, confusion)
    if len(names) <= NAMED_UP_TO:
        matrix.set_xticks(range(len(names)), shown, rotation=90 if len(names) > 4 else 0, family=letters.families)
        matrix.set_yticks(range(len(names)), shown, family=letters.families)
    return png_of(figure, title)


def confused_pairs(confusion: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Return (images, true label, predicted label) of the pairs of classes that are confused, the most often first."""
    pairs = [
        (count, true, said)
        for true, counts in enumerate(confusion)
        for said, count in enumerate(counts)
        if count and true != said
    ]
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))


def _draw_matrix(figure: Any, axes: Any, confusion: Sequence[Sequence[int]]) -> None:
    import numpy as np
    from matplotlib.colors import LinearSegmentedColormap

    counts_CC = np.array(confusion)
    shares_CC = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    blues = LinearSegmentedColormap.from_list("full", ["#ffffff", FULL])
    image = axes.imshow(shares_CC, cmap=blues, vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    axes.set(xlabel="predicted class", ylabel="true class")
    if len(confusion) <= NUMBERED_UP_TO:
        for (true, said), count in np.ndenumerate(counts_CC):
            color = "white" if shares_CC[true, said] > 0.5 else "black"
            axes.text(said, true, f"{count}", ha="center", va="center", color=color)


def _draw_pairs(axes: Any, pairs: Sequence[tuple[int, int, int]], names: Sequence[str], letters: Letters) -> None:
    """Draw a bar for each pair."""
    labels = [f"{names[true]} → {names[said]}" for _, true, said in pairs]
    bars = axes.barh(range(len(pairs)), [count for count, _, _ in pairs], color=BAR)
    axes.bar_label(bars, padding=3)
    axes.set_yticks(range(len(pairs)), labels, family=letters.families)
    axes.set(xlabel="images", title="most often confused: true → predicted")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.invert_yaxis()
    axes.margins(x=0.1)

"""Pictures of a run, and of the search for a learning rate."""

import io
from collections.abc import Sequence
from math import inf, nan
from typing import Any

from modelnet.finding import RateCurve
from modelnet.runs import EpochRow


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


def seed_curves(runs: Sequence[Sequence[EpochRow]], title: str) -> bytes:
    """Draw loss and accuracy of many runs: their median, and the band between their quartiles.

    Returns:
        A PNG.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    epochs = [row.epoch for row in runs[0]]
    parts = [("train", "training (running mean)")]
    parts += [("val", "validation")] if runs[0][0].val_loss is not None else []
    for axes, measure, name in zip(
        figure.subplots(1, 2), ("loss", "acc"), ("cross-entropy loss", "accuracy"), strict=True
    ):
        for part, label in parts:
            values_RE = np.array([[getattr(row, f"{part}_{measure}") for row in rows] for rows in runs])
            low, middle, high = np.quantile(values_RE, (0.25, 0.5, 0.75), axis=0)
            (line,) = axes.plot(epochs, middle, label=f"{label}, median", marker="o" if len(epochs) < 20 else "")
            axes.fill_between(epochs, low, high, alpha=0.25, color=line.get_color(), label="quartiles")
        axes.set(xlabel="epoch", ylabel=name, ylim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend()
    return _png(figure, title)


def rate_curve(curve: RateCurve, title: str) -> bytes:
    """Draw the loss against the learning rate, with the rate that is suggested.

    Returns:
        A PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot(curve.rates, [loss if loss < inf else nan for loss in curve.losses], marker="o")
    if curve.suggestion is not None:
        axes.axvline(curve.suggestion, color="black", linestyle=":", label=f"lowest: {curve.suggestion:g}")
        axes.legend()
    axes.set(xlabel="learning rate", ylabel=f"training loss of epoch {curve.epochs}", xscale="log")
    axes.grid(alpha=0.3)
    return _png(figure, title)


def _png(figure: Any, title: str) -> bytes:
    figure.suptitle(title.encode("ascii", "replace").decode().replace("$", r"\$"))  # the font has no others; no maths
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()

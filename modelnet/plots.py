"""Pictures of a run."""

import io
from collections.abc import Sequence

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
    figure.suptitle(title.encode("ascii", "replace").decode().replace("$", r"\$"))  # the font has no others; no maths
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()

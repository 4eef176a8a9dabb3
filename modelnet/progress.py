"""Events of a training. `Progress` ignores them; a `ProgressBar` shows them, by default in notebooks alone."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self


@dataclass(frozen=True)
class EpochRow:
    """A row of metrics.csv.

    Attributes:
        epoch: from 1.
        train_loss, train_acc: averages over the epoch, taken before each step.
        val_loss, val_acc: of the validation images, after the epoch; None without them.
        lr: learning rate at the end of the epoch.
        images_per_s: training images, validation not counted.
        data_wait_s: seconds of the training spent waiting for batches.
        epoch_s: seconds of the whole epoch, validation included.
    """

    epoch: int
    train_loss: float
    train_acc: float
    val_loss: float | None
    val_acc: float | None
    lr: float
    images_per_s: float
    data_wait_s: float
    epoch_s: float


class Progress:
    """Receives the events of a training and ignores them. Override the methods that you need."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Receive a note: a choice that was made for the user."""

    def warn(self, text: str) -> None:
        """Receive a warning."""

    def started(self, run: Path, images: int, done: int) -> None:
        """Receive the run folder, the number of images in all epochs, and the number already done."""

    def step(self, images: int) -> None:
        """Receive the number of images of a step."""

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Receive the results of an epoch, one of `epochs`."""


class ProgressBar(Progress):
    """Shows a bar of images, the results of the last epoch, notes and warnings: in a notebook, or on stderr.

    It is what `train` uses in a notebook unless it is given another `Progress`; elsewhere `train` is quiet.
    """

    _bar: Any = None

    def note(self, text: str) -> None:
        """Write a note above the bar."""
        from tqdm.auto import tqdm

        tqdm.write(text, file=sys.stderr)

    def warn(self, text: str) -> None:
        """Write a warning above the bar."""
        self.note(f"warning: {text}")

    def started(self, run: Path, images: int, done: int) -> None:
        """Begin a bar, named as the run."""
        from tqdm.auto import tqdm

        self._close()
        self._bar = tqdm(desc=run.name, total=images, initial=done, unit=" images", dynamic_ncols=True)

    def step(self, images: int) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(images)

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Show the results of an epoch beside the bar; after the last one, end it."""
        if self._bar is None:
            return
        shown = {"epoch": f"{row.epoch}/{epochs}", "loss": f"{row.train_loss:.4f}"}
        if row.val_acc is not None:
            shown["validation"] = f"{row.val_acc:.1%}"
        self._bar.set_postfix(shown)
        if row.epoch == epochs:
            self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def __exit__(self, *error: object) -> None:
        self._close()


def usual_progress() -> Progress:
    """Return what hears of a training where nothing else was given: a bar in a notebook, elsewhere nothing."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    in_notebook = shell is not None and "IPKernelApp" in shell.config
    return ProgressBar() if in_notebook else Progress()

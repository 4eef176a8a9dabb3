"""Events of a training. Nothing here prints; the command line overrides the methods."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self


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

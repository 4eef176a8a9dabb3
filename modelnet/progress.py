"""What a run tells while it goes. Nothing here prints: the command line overrides these methods and does."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True)
class EpochRow:
    """A line of metrics.csv.

    Attributes:
        epoch: from 1.
        train_loss, train_acc: running means over the images of the epoch, each measured before the step it led to.
        val_loss, val_acc: over the validation images, after the epoch; None without them.
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
    """Listens to a run and does nothing with it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def note(self, text: str) -> None:
        """Hear what a user should know: a choice that was made for them."""

    def warn(self, text: str) -> None:
        """Hear of something odd, though usable."""

    def started(self, run: Path, images: int, done: int) -> None:
        """Hear where the run is kept, how many training images it will see in all, and how many it has seen."""

    def step(self, images: int) -> None:
        """Hear that a step has seen so many more images."""

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Hear that one of `epochs` is finished."""

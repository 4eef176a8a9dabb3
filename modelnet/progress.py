"""What a run tells while it goes. Nothing here prints: the command line overrides these methods and does."""

from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:  # the command line needs this class before it needs torch
    from modelnet.run_tables import EpochRow


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

    def epoch(self, row: "EpochRow", epochs: int) -> None:
        """Hear that one of `epochs` is finished."""

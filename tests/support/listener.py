"""The progress of a training as tests hear it, and stop it."""

from modelnet.progress import Progress
from modelnet.runtime.interrupt import Stop


class Listener(Progress):
    """Remembers what was noted and warned of; asks to stop after some steps.

    Args:
        stop: that the training polls; None to let it end by itself.
        cut: the number of the step to stop after, from 1.
    """

    def __init__(self, stop: Stop | None = None, cut: int = 0) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.stop, self.left = stop, cut

    @property
    def hints(self) -> list[str]:
        """The notes that are hints, without that word."""
        return [note.removeprefix("hint: ") for note in self.notes if note.startswith("hint: ")]

    def note(self, text: str) -> None:
        """Remember it."""
        self.notes.append(text)

    def warn(self, text: str) -> None:
        """Remember it."""
        self.warnings.append(text)

    def step(self, images: int) -> None:
        """Count it."""
        self.left -= 1
        if self.stop and self.left == 0:
            self.stop.signal = 2

"""Pass on what a group's networks say, without repeating it."""

from modelnet.progress import EpochRow, Progress


class SaidOnce(Progress):
    """Passes on a note or a warning once."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._said: set[str] = set()

    def note(self, text: str) -> None:
        """Pass it on, if it is new."""
        if text not in self._said:
            self._said.add(text)
            self._progress.note(text)

    def warn(self, text: str) -> None:
        """Pass it on, if it is new."""
        if text not in self._said:
            self._said.add(text)
            self._progress.warn(text)


class OfOne(Progress):
    """Passes on what one of several networks does; only that it starts, which the group has said of all."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def note(self, text: str) -> None:
        """Pass it on."""
        self._progress.note(text)

    def warn(self, text: str) -> None:
        """Pass it on."""
        self._progress.warn(text)

    def step(self, images: int) -> None:
        """Pass it on."""
        self._progress.step(images)

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Pass it on."""
        self._progress.epoch(row, epochs)

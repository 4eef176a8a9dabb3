"""The run folder: the one place that knows what is in `runs/<name>/` and how it is written.

    config.json       every option, the seeds, versions, the caches' fingerprints, the command that repeats it
    metrics.csv       a line an epoch
    split.csv         a line an image, the side it is on, where one cache serves for training and validation
    predictions.csv   a line an image of the validation set, by the weights at the end
    scores.json       how good these are, class by class
    checkpoints/      last.pt, the one before it as previous.pt, best.pt
    loss.png          the curves
    confusion.png     what was taken for what, of the validation images
    report.html       all of it, to be looked at
    tensorboard/      every epoch for TensorBoard, where that was asked for
    diverged.txt      where training diverged, until the run goes on
    group.csv, seeds.png   of the first of many that were trained together: all of them

Nothing in it holds the folder's own path, so that it can be moved as a whole.
"""

import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from modelnet.progress import EpochRow, Progress
from modelnet.runs import checkpoint
from modelnet.runs.config import json_text, parse_config, parse_scores
from modelnet.runs.publish import keep_previous, publish, storage_errors
from modelnet.runs.tables import (
    Prediction,
    best_row,
    csv_text,
    epochs_text,
    parse_epochs,
    parse_group,
    parse_predictions,
)
from pipeline.errors import (
    AccessDenied,
    CheckpointError,
    OutputError,
    RunBusy,
    RunDamaged,
    RunError,
    StorageError,
)

RUNS = Path("runs")
T = TypeVar("T")


class RunFolder:
    """A run folder that this process alone writes to, from `create` or `open_for_writing` until it ends."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._lock: int | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @classmethod
    def create(cls, name: str | None, counted: str) -> "RunFolder":
        """Make a new folder below `runs/`: `name`, or `counted` with the next free number.

        Raises:
            OutputError: `name` is there already, or nothing can be made there.
        """
        number = 1
        while True:
            run = cls(RUNS / (name or f"{counted}-{number:03}"))
            try:
                run.path.mkdir(parents=True)
                run.checkpoints.mkdir()
                run._take_lock()
                return run
            except FileExistsError as error:
                if name or not run.path.is_dir():
                    raise OutputError(
                        "a run of that name is there", run.path, "runs are never overwritten", "Give another --name"
                    ) from error
                number += 1
            except OSError as error:
                kind = AccessDenied if isinstance(error, PermissionError) else OutputError
                raise kind("the run folder cannot be made", run.path, error.strerror or str(error)) from error

    @classmethod
    def open_for_writing(cls, path: Path) -> "RunFolder":
        """Go on in the folder of an earlier run.

        Raises:
            RunError: no run there.
            RunBusy: another process trains in it.
        """
        run = cls(path)
        run.read_config()
        run._take_lock()
        return run

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes write to the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.register_at_fork(after_in_child=self.close)  # a worker that outlives a killed run would keep it locked
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise RunBusy("the run is busy", self.path, "another process trains in it", "Wait for it") from error
        except OSError:
            pass  # a disk without locks: runs of different names still never meet

    @property
    def is_written(self) -> bool:
        """Whether what is given to it is written: so that nobody prepares in vain what is not."""
        return True

    def write_config(self, config: dict[str, Any]) -> None:
        """Publish config.json."""
        self._publish("config.json", json_text(config).encode())

    def read_config(self) -> dict[str, Any]:
        """Return what `write_config` was given.

        Raises:
            RunError: there is no run, or its config.json cannot be read.
        """
        path = self.path / "config.json"
        if not path.exists():
            raise self._no_run()
        config: dict[str, Any] = read(path, parse_config)
        return config

    def _no_run(self) -> RunError:
        reason = "it has no config.json" if self.path.exists() else "no such folder"
        advice = "Give a folder below runs/"
        if self.path.suffix == ".csv" and self.path.is_file():
            reason, advice = "it is a table of several", "Give one of the folders that it names"
        return RunError("no run there", self.path, reason, advice)

    def append_metrics(self, row: EpochRow) -> None:
        """Add a line to metrics.csv."""
        path = self.path / "metrics.csv"
        with storage_errors(path), path.open("a", encoding="utf-8", newline="") as file:
            file.write(epochs_text([row], with_header=file.tell() == 0))

    def read_metrics(self) -> list[EpochRow]:
        """Return the whole lines of metrics.csv; the last one may be torn where the process was killed.

        Raises:
            RunError: it is not the table that this program writes.
        """
        path = self.path / "metrics.csv"
        return read(path, parse_epochs) if path.exists() else []

    @property
    def best_epoch(self) -> EpochRow | None:
        """The epoch of checkpoints/best.pt; None where metrics.csv is lost."""
        rows = self.read_metrics()
        return best_row(rows) if rows else None

    def keep_metrics(self, epochs: int) -> list[EpochRow]:
        """Drop the lines after `epochs`, which training will write again, and return the others."""
        rows = [row for row in self.read_metrics() if row.epoch <= epochs]
        self._publish("metrics.csv", epochs_text(rows).encode())
        return rows

    def write_split(self, header: list[str], rows: Iterable[list[Any]]) -> None:
        """Publish split.csv."""
        self._publish("split.csv", csv_text([header, *rows]).encode("utf-8", "surrogateescape"))

    def write_predictions(self, header: list[str], rows: Iterable[list[Any]]) -> None:
        """Publish predictions.csv."""
        self._publish("predictions.csv", csv_text([header, *rows]).encode("utf-8", "surrogateescape"))

    def read_predictions(self) -> list[Prediction]:
        """Return predictions.csv, in its order; empty where the run has not written it.

        Raises:
            RunError: it is not the table that this program writes.
        """
        path = self.path / "predictions.csv"
        return read(path, parse_predictions) if path.exists() else []

    def read_scores(self) -> dict[str, Any] | None:
        """Return what `write_scores` was given; None where there is no such file.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / "scores.json"
        return read(path, parse_scores) if path.exists() else None

    def write_scores(self, scores: dict[str, Any]) -> None:
        """Publish scores.json."""
        self._publish("scores.json", json_text(scores).encode())

    def write_group(self, header: list[str], rows: Iterable[list[Any]]) -> None:
        """Publish group.csv; its first column, "run", names folders beside this one."""
        self._publish("group.csv", csv_text([header, *rows]).encode("utf-8", "surrogateescape"))

    @staticmethod
    def read_group(path: Path) -> list[Path]:
        """Return the folders that a group.csv names.

        Raises:
            RunError: it is none.
        """
        return [path.parent.parent / name for name in read(path, parse_group, "no group of runs there")]

    def write_divergence(self, where: str) -> None:
        """Publish diverged.txt."""
        self._publish("diverged.txt", f"{where}\n".encode("utf-8", "surrogateescape"))

    def read_divergence(self) -> str:
        """Return what `write_divergence` was given; empty where training did not diverge.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / "diverged.txt"
        return read(path, lambda data: data.decode("utf-8", "surrogateescape").strip()) if path.exists() else ""

    def forget_divergence(self) -> None:
        """Remove diverged.txt: the run goes on."""
        path = self.path / "diverged.txt"
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def draw_picture(self, name: str, draw: Callable[[], bytes], progress: Progress) -> None:
        """Publish a picture; one that cannot be drawn costs a warning, never the run.

        Args:
            name: of the file.
            draw: makes the PNG.
            progress: hears the warning.
        """
        if not self.is_written:
            return
        try:
            png = draw()
        except Exception as error:  # a font that cannot be read, a broken installation of matplotlib
            progress.warn(f"{name} cannot be drawn: {type(error).__name__}: {error}")
        else:
            self._publish(name, png)

    def save_checkpoint(self, content: dict[str, Any], best: bytes | None = None) -> None:
        """Publish last.pt, keeping the one it replaces as previous.pt, and best.pt where there is a new one, encoded.

        The best comes first: killed in between, a run goes on from an older last.pt and finds that best once more.
        """
        if best is not None:
            self._publish("checkpoints/best.pt", best)
        last = self.checkpoints / "last.pt"
        if last.exists():
            keep_previous(last, self.checkpoints / "previous.pt")
        self._publish("checkpoints/last.pt", checkpoint.encode(content))

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any]:
        """Return what `save_checkpoint` was given, with tensors on the CPU.

        Raises:
            RunError: there is none.
            CheckpointDamaged, CheckpointUnsafe: it is not as it was written; names the one before where that is whole.
        """
        path = self.checkpoints / name
        try:
            return checkpoint.decode(path.read_bytes(), path)
        except FileNotFoundError as error:
            raise RunError("no checkpoint", path, "the run ended before it saved one", "Train again") from error
        except OSError as error:
            raise StorageError("the checkpoint cannot be read", path, error.strerror or str(error)) from error
        except CheckpointError as error:
            if name == "last.pt":
                error.advice = self._advice_on_a_bad_last()
            raise

    def _advice_on_a_bad_last(self) -> str:
        previous = self.checkpoints / "previous.pt"
        try:
            content = checkpoint.decode(previous.read_bytes(), previous)
        except (OSError, CheckpointError):
            return "There is no whole one before it; train again"
        return f"The one before it is whole (epoch {content.get('epoch', '?')}): rename previous.pt to last.pt"

    def _publish(self, name: str, data: bytes) -> None:
        publish(data, self.path / name)


class UnwrittenRun(RunFolder):
    """The run folder as all ranks but the first have it: they know its name, and write nothing."""

    @property
    def is_written(self) -> bool:
        """False."""
        return False

    def append_metrics(self, row: EpochRow) -> None:
        """Do nothing."""

    def save_checkpoint(self, content: dict[str, Any], best: bytes | None = None) -> None:
        """Do nothing."""

    def forget_divergence(self) -> None:
        """Do nothing."""

    def _publish(self, name: str, data: bytes) -> None:
        pass


def read(path: Path, parse: Callable[[bytes], T], what: str = "the run cannot be read") -> T:
    """Return what a file of a run holds.

    Args:
        path: of the file.
        parse: makes a value of its bytes, or raises ValueError that says what is wrong.
        what: the error says.

    Raises:
        RunError: it is not there, or cannot be opened.
        RunDamaged: it is not what a run writes.
    """
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise RunError(what, path, error.strerror or str(error)) from error
    except ValueError as error:
        raise RunDamaged(what, path, str(error)) from error

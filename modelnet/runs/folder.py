"""Write the run folder `runs/<name>/`. No other module knows its files.

    config.json       every option, the seeds, versions, the caches' fingerprints, the command that repeats it
    metrics.csv       one line for each epoch
    labels.csv        copy of the table of other labels, if any (or .tsv, .jsonl, .parquet)
    code/             copies of a person's own code, where options name any
    split.csv         one line for each image: training or validation, where one cache is divided; with --split a copy
    predictions.csv   one line for each validation image: prediction of the resulting weights
    scores.json       precision, recall and F1 of each class, confusion matrix
    checkpoints/      last.pt, the one before it as previous.pt, best.pt
    loss.png          the curves
    confusion.png     confusion matrix of the validation images
    report.html       all of this as one page
    show.html         what the network looks at, by `show`
    evaluations/      scores and predictions of other caches and of test images, by `evaluate`
    tensorboard/      every epoch for TensorBoard, with --tensorboard
    diverged.txt      where training diverged, until the run goes on
    group.csv, seeds.png   only in the first of many networks trained together: all of them
    out_of_fold.csv   only in the first of a setting's networks of all folds: each image by networks that never saw it

No file holds the folder's own path, so the folder can be moved as a whole.
"""

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from modelnet.options import TrainOptions
from modelnet.options.folders import RUNS
from modelnet.progress import EpochRow, Progress
from modelnet.runs import checkpoint
from modelnet.runs.config import json_text
from modelnet.runs.publish import keep_previous, publish, storage_errors
from modelnet.runs.reader import RunReader
from modelnet.runs.tables import Prediction, epochs_text, predictions_text
from pipeline.errors import AccessDenied, OutputError, RunBusy, RunError
from pipeline.system import files
from pipeline.text import csv_text, shorten


class RunFolder(RunReader):
    """A run folder that only this process writes to, from `create` or `open_for_writing` until `close`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._lock: int | None = None
        self._is_new = False

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
                run._is_new = True
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
        """Open the folder of an earlier run to resume it.

        Raises:
            RunError: no run there.
            RunBusy: another process trains in it.
        """
        run = cls(path)
        run.read_config()
        run._take_lock()
        return run

    @classmethod
    def reopen(cls, name: str) -> "RunFolder | None":
        """Open `runs/<name>` to go on with it; None where there is none.

        What a process left that was killed as it made the folder is removed.

        Raises:
            RunBusy: another process trains in it.
            RunError: it has trained and lacks what it would go on from, or a file of it cannot be read.
        """
        run = cls(RUNS / name)
        if not run.path.is_dir():
            return None
        run._take_lock()
        with ExitStack() as stack:
            stack.callback(run.close)
            if run._can_go_on():
                stack.pop_all()
                return run
            run.remove()
        return None

    def _can_go_on(self) -> bool:
        """Say whether there is something to go on from, or the result; False where nothing was trained.

        Raises:
            RunError: neither; names what is there.
        """
        has_config, has_last = (self.path / "config.json").exists(), (self.checkpoints / "last.pt").exists()
        if has_config and (has_last or self.state().has_result):
            return True
        results = [*self.results(), *(["checkpoints/last.pt"] if self.saved_step() > (0, 0) else [])]
        if results:
            raise self._cannot_go_on(f"it has {shorten(results)}, and no", has_config)
        return False

    def refuse_without_checkpoint(self) -> None:
        """Refuse a run that has a config.json, is to go on, and has lost its checkpoint.

        Raises:
            RunError: as above.
        """
        if not (self.checkpoints / "last.pt").exists():
            raise self._cannot_go_on("it has no", has_config=True)

    def _cannot_go_on(self, reason: str, has_config: bool) -> RunError:
        advice = "Put it back, or move the folder away: then it is trained anew"
        if has_config and (self.checkpoints / "previous.pt").exists():
            advice = "Rename previous.pt to last.pt: it is the checkpoint before"
        missing = "checkpoints/last.pt" if has_config else "config.json"
        return RunError("the run cannot go on", self.path, f"{reason} {missing}", advice)

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        if error[0] is not None and self._is_new and not (self.checkpoints / "last.pt").exists():
            self.remove()

    def remove(self) -> None:
        """Remove a folder in which nothing was trained: its name would be taken, and nothing could be resumed.

        One that holds a result, or something of a user's, is left as it is.
        """
        if self.results():
            return
        with suppress(OSError):
            for path in sorted(self.path.rglob("*"), key=lambda path: (path.is_dir(), -len(path.parts))):
                path.rmdir() if path.is_dir() else files.remove(path)
            self.path.rmdir()

    def close(self) -> None:
        """Let other processes write to the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.register_at_fork(after_in_child=self.close)  # otherwise a worker that outlives a killed run keeps the lock
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise RunBusy("the run is busy", self.path, "another process trains in it", "Wait for it") from error
        except OSError:
            pass  # a disk without locks: runs with different names still do not collide

    @property
    def is_written(self) -> bool:
        """Whether this object writes anything; where it does not, nothing needs to be prepared."""
        return True

    def write_config(self, config: dict[str, Any]) -> None:
        """Publish config.json."""
        self._publish("config.json", json_text(config).encode())

    def write_code(self, sources: Mapping[str, bytes]) -> None:
        """Publish code/<option>.py for each option that names a file of a person's own."""
        for option, source in sources.items():
            path = self.code_path(option)
            with storage_errors(path):
                path.parent.mkdir(exist_ok=True)
            publish(source, path)

    def write_labels(self, content: bytes, options: TrainOptions) -> None:
        """Publish the copy of the table of labels that the options name."""
        path = self.labels_path(options)
        assert path is not None
        self._publish(path.name, content)

    def append_metrics(self, row: EpochRow) -> None:
        """Add a line to metrics.csv."""
        path = self.path / "metrics.csv"
        with storage_errors(path), path.open("a", encoding="utf-8", newline="") as file:
            file.write(epochs_text([row], with_header=file.tell() == 0))

    def keep_metrics(self, epochs: int) -> list[EpochRow]:
        """Drop the lines after `epochs`, which training will write again, and return the others."""
        rows = [row for row in self.read_metrics() if row.epoch <= epochs]
        self._publish("metrics.csv", epochs_text(rows).encode())
        return rows

    def write_split(self, data: bytes) -> None:
        """Publish split.csv."""
        self._publish("split.csv", data)

    def write_predictions(self, predictions: Sequence[Prediction]) -> None:
        """Publish predictions.csv."""
        self._publish_predictions("predictions.csv", predictions)

    def write_out_of_fold(self, predictions: Sequence[Prediction], folds: Sequence[int]) -> Path:
        """Publish out_of_fold.csv, with the fold of each image; return its path."""
        self._publish_predictions("out_of_fold.csv", predictions, folds)
        return self.path / "out_of_fold.csv"

    def write_scores(self, scores: dict[str, Any]) -> None:
        """Publish scores.json."""
        self._publish("scores.json", json_text(scores).encode())

    def write_evaluation(self, name: str, description: dict[str, Any], predictions: Sequence[Prediction]) -> Path:
        """Publish evaluations/<name>.json and .csv, of images that the run was not validated on.

        An evaluation of another cache with the same name is kept: the new one has the fingerprint in its name.

        Args:
            name: of the cache, and of the checkpoint where it is not the result of the run.
            description: plain JSON values, the fingerprint of the cache among them.
            predictions: of its images.

        Returns:
            The path of the JSON file.
        """
        folder, fingerprint = self.path / "evaluations", description["fingerprint"]
        with storage_errors(folder):
            folder.mkdir(exist_ok=True)
            if (older := folder / f"{name}.json").exists() and fingerprint not in older.read_text("utf-8", "replace"):
                name = f"{name}-{fingerprint[:8]}"
        self._publish_predictions(f"evaluations/{name}.csv", predictions)
        self._publish(f"evaluations/{name}.json", json_text(description).encode())
        return folder / f"{name}.json"

    def write_group(self, header: list[str], rows: Iterable[list[Any]]) -> None:
        """Publish group.csv; its first column, "run", names folders beside this one."""
        self._publish("group.csv", csv_text([header, *rows]).encode("utf-8", "surrogateescape"))

    def write_divergence(self, where: str) -> None:
        """Publish diverged.txt."""
        self._publish("diverged.txt", f"{where}\n".encode("utf-8", "surrogateescape"))

    def forget_divergence(self) -> None:
        """Remove diverged.txt, because the run is resumed."""
        path = self.path / "diverged.txt"
        with storage_errors(path):
            path.unlink(missing_ok=True)

    def has_group_results(self) -> bool:
        """Whether the results of its group are there: no kill left one half written, and the picture is the last."""
        return (self.path / "seeds.png").exists() and not any(self.path.glob("*.new"))

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

    def save_checkpoint(self, content: dict[str, Any], best: dict[str, Any] | None = None) -> None:
        """Publish last.pt, keeping the one it replaces as previous.pt, and best.pt where there is a new one.

        best.pt is written first: a run killed in between goes on from an older last.pt and finds that best epoch again.
        """
        if best is not None:
            self._publish("checkpoints/best.pt", checkpoint.encode(best))
        last = self.checkpoints / "last.pt"
        if last.exists():
            keep_previous(last, self.checkpoints / "previous.pt")
        self._publish("checkpoints/last.pt", checkpoint.encode(content))

    def go_back(self) -> None:
        """Let previous.pt be last.pt."""
        with storage_errors(self.checkpoints / "last.pt"):
            files.rename(self.checkpoints / "previous.pt", self.checkpoints / "last.pt")

    def _publish_predictions(
        self, name: str, predictions: Sequence[Prediction], folds: Sequence[int] | None = None
    ) -> None:
        self._publish(name, predictions_text(predictions, folds).encode("utf-8", "surrogateescape"))

    def _publish(self, name: str, data: bytes) -> None:
        publish(data, self.path / name)


class UnwrittenRun(RunFolder):
    """The run folder of all ranks but the first: it knows its name and writes nothing."""

    @property
    def is_written(self) -> bool:
        """False."""
        return False

    def append_metrics(self, row: EpochRow) -> None:
        """Do nothing."""

    def save_checkpoint(self, content: dict[str, Any], best: dict[str, Any] | None = None) -> None:
        """Do nothing."""

    def forget_divergence(self) -> None:
        """Do nothing."""

    def _publish(self, name: str, data: bytes) -> None:
        pass

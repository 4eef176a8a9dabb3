"""Read the files of a run folder; each is checked whole, and nothing is written."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

from modelnet.data.caches import find, home_of
from modelnet.data.split_table import SplitTable, read_split
from modelnet.options import TrainOptions
from modelnet.progress import EpochRow
from modelnet.runs import checkpoint
from modelnet.runs.config import parse_config, parse_scores
from modelnet.runs.tables import Prediction, are_of_the_end, best_row, parse_epochs, parse_group, parse_predictions
from pipeline.errors import CheckpointError, OptionsError, RunDamaged, RunError, StorageError
from pipeline.text import command_line, show_path

FINISHED, DIVERGED = "finished", "diverged"  # how a run ended
# What a run folder has before the first step, some of it while a process makes the folder.
_OF_START = re.compile(
    r"(config\.json|(split|metrics|group)\.csv|labels(\.\w+)?|code(/\w+\.py)?|checkpoints(/last\.pt)?)(\.new)?"
)

T = TypeVar("T")


@dataclass(frozen=True)
class RunState:
    """How far a run is by what its files say: has it ended, and is its result there?

    Attributes:
        config: of config.json.
        options: of it, or those that the run goes on with.
        rows: of metrics.csv.
        predictions: of predictions.csv; empty without it.
        has_scores: whether scores.json is there.
        divergence: where it diverged; empty where it did not.
    """

    config: Mapping[str, Any]
    options: TrainOptions
    rows: Sequence[EpochRow]
    predictions: Sequence[Prediction]
    has_scores: bool
    divergence: str

    @property
    def result(self) -> str:
        """Which weights are the result: the "last", or the "best" where `patience` chooses that epoch."""
        return str(self.config.get("result", "last"))

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs, also if metrics.csv lacks lines."""
        return self.rows[-1].epoch if self.rows else 0

    @property
    def is_trained(self) -> bool:
        """Whether all epochs are done, or so many without a better one that patience has ended."""
        if self.epochs_done >= self.options.epochs:
            return True
        if not self.rows or self.options.patience is None:
            return False
        return self.epochs_done - best_row(self.rows).epoch >= self.options.patience

    @property
    def has_result(self) -> bool:
        """Whether predictions and scores of its result are there; a resumed run keeps the old ones until it ends."""
        return self.has_scores and are_of_the_end(self.predictions, self.rows, self.result)

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left to train or to write. Without validation images, its last epoch may not be saved."""
        return not self.divergence and self.is_trained and (self.has_result or self.config["val"] is None)

    @property
    def end(self) -> str:
        """How it ended: "finished" with a result, "diverged", or "" while there is more to do."""
        if self.divergence:
            return DIVERGED
        asked = self.epochs_done <= self.options.epochs  # else it is refused as it goes on
        return FINISHED if asked and self.is_trained and self.has_result else ""


class RunReader:
    """The files of a run, as far as they are there."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    def code_path(self, option: str) -> Path:
        """Return where the copy of a person's own code is that an option named."""
        return self.path / "code" / f"{option}.py"

    def labels_path(self, options: TrainOptions) -> Path | None:
        """Return where the copy of the run's table of labels is; None of a run without."""
        return None if options.labels is None else self.path / f"labels{options.labels.suffix.lower()}"

    def read_config(self) -> dict[str, Any]:
        """Return the values given to `write_config`.

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

    def cache_path(self, side: str = "cache", given: Path | None = None) -> Path:
        """Return where a cache of the run is now, although it was moved: by its path, or by its fingerprint.

        Args:
            side: "cache", trained on, or "val", validated on; of one cache that was divided, both are it.
            given: its path in the options that the run goes on with. Another one than before is believed as it is.

        Raises:
            CacheMissing: it is nowhere.
        """
        config = self.read_config()
        options, images = config["options"], config[side] or config["cache"]
        typed = (options.get("val") if side == "val" else None) or options["cache"]
        if given is not None and given != Path(typed):
            return given
        return find(Path(typed), self.path, images["fingerprint"])

    def read_split(self) -> SplitTable:
        """Return the folds that the run was trained with: it keeps a copy of the table.

        Raises:
            RunError: there is no copy, or another one than the run began with.
            TableDamaged: it is no table of folds.
        """
        path, kept = self.path / "split.csv", self.read_config().get("split") or {}
        digest = read(path, lambda data: sha256(data).hexdigest())
        if digest != kept.get("sha256"):
            reason = f"its SHA-256 is {digest[:12]}, and the run has {kept.get('sha256', 'none')[:12]}"
            raise RunDamaged("the split of the run was changed", path, reason, "Copy the first one there")
        return read_split(path)

    def split_path(self) -> Path:
        """Return where the split of the run is, beside which looks at its test images are counted.

        Raises:
            OptionsError: the run has no split.
            RunError: it is not there any more, or was changed.
        """
        config = self.read_config()
        if (typed := config["options"].get("split")) is None:
            advice = f"Train with --split FILE, which {command_line()} split writes"
            raise OptionsError("no test images", self.path, "the run was trained without a split", advice)
        for path in (Path(typed), home_of(self.path) / typed):
            if path.exists() and read(path, lambda data: sha256(data).hexdigest()) == config["split"]["sha256"]:
                return path
        reason = f"{typed} is not there any more, or was changed; looks at its test images are counted beside it"
        raise RunError("the run's split is gone", self.path, reason, f"Copy {show_path(self.path / 'split.csv')} there")

    def read_metrics(self) -> list[EpochRow]:
        """Return the whole lines of metrics.csv; the last one may be torn where the process was killed.

        Raises:
            RunError: it is not the table that this program writes.
        """
        path = self.path / "metrics.csv"
        return read(path, parse_epochs) if path.exists() else []

    def results(self) -> list[str]:
        """Return the names of all that a run does not have before its first step: its results, or a user's files."""
        paths = [path for path in sorted(self.path.rglob("*")) if path.is_symlink() or not self._is_of_start(path)]
        names = [path.relative_to(self.path).as_posix() for path in paths]
        metrics = self.path / "metrics.csv"
        has_rows = metrics.exists() and len(metrics.read_bytes().splitlines()) > 1  # below the names of the columns
        return [*(["metrics.csv"] if has_rows else []), *names]

    def _is_of_start(self, path: Path) -> bool:
        return _OF_START.fullmatch(path.relative_to(self.path).as_posix()) is not None

    @property
    def has_trained(self) -> bool:
        """Whether a step of the run is saved, or it diverged. The first checkpoint is that of no step."""
        return bool(self.results()) or self.saved_step() > (0, 0)

    def saved_step(self, name: str = "last.pt") -> tuple[int, int]:
        """Return after how many epochs, and batches of the next one, a checkpoint was saved; (-1, -1) without one.

        Raises:
            CheckpointError: it is not whole.
        """
        if not (self.checkpoints / name).exists():
            return -1, -1
        content = self.load_checkpoint(name)
        return content.get("epoch", 0), content.get("step", 0)

    @property
    def has_weights(self) -> bool:
        """Whether the weights of its result are there: a person may have removed the checkpoints of a run."""
        return (self.checkpoints / f"{self.state().result}.pt").exists()

    def state(self, options: TrainOptions | None = None) -> RunState:
        """Return how far the run is.

        Args:
            options: that it goes on with; None for its own.

        Raises:
            RunError: one of its files cannot be read.
        """
        config = self.read_config()
        return RunState(
            config,
            options or TrainOptions.from_dict(config["options"]),
            self.read_metrics(),
            self.read_predictions(),
            (self.path / "scores.json").exists(),
            self.read_divergence(),
        )

    def read_predictions(self) -> list[Prediction]:
        """Return predictions.csv, in its order; empty where the run has not written it.

        Raises:
            RunError: it is not the table that this program writes.
        """
        path = self.path / "predictions.csv"
        return read(path, parse_predictions) if path.exists() else []

    def read_scores(self) -> dict[str, Any] | None:
        """Return the values given to `write_scores`; None without the file.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / "scores.json"
        return read(path, parse_scores) if path.exists() else None

    @staticmethod
    def read_group(path: Path) -> list[Path]:
        """Return the folders that a group.csv names.

        Raises:
            RunError: it is none.
        """
        return [path.parent.parent / name for name in read(path, parse_group, "no group of runs there")]

    def read_divergence(self) -> str:
        """Return the text given to `write_divergence`; empty if training did not diverge.

        Raises:
            RunError: it cannot be read.
        """
        path = self.path / "diverged.txt"
        return read(path, lambda data: data.decode("utf-8", "surrogateescape").strip()) if path.exists() else ""

    def load_checkpoint(self, name: str = "last.pt") -> dict[str, Any]:
        """Return the content given to `save_checkpoint`, with tensors on the CPU.

        Raises:
            RunError: there is none.
            CheckpointDamaged, CheckpointUnsafe: it is not as it was written; names the one before where that is whole.
        """
        path = self.checkpoints / name
        try:
            return checkpoint.decode(path.read_bytes(), path)
        except FileNotFoundError as error:
            reason = "it was removed, or the run ended before it saved one"
            raise RunError("no checkpoint", path, reason, "Train again") from error
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
            return "No earlier checkpoint is whole; train again"
        return f"The one before it is whole (epoch {content.get('epoch', '?')}): rename previous.pt to last.pt"


def folds_of(options: TrainOptions, run: Path | None) -> SplitTable | None:
    """Return the split that options name: a run's own copy, or the file where no run has one yet; None without.

    Raises:
        As `RunReader.read_split` and `read_split`.
    """
    if options.split is None:
        return None
    return read_split(options.split) if run is None else RunReader(run).read_split()


def read(path: Path, parse: Callable[[bytes], T], what: str = "the run cannot be read") -> T:
    """Return the content of a file of a run.

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

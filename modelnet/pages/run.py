"""Read a run for a report, and warn where its numbers mislead."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import isclose
from pathlib import Path
from typing import Any

from modelnet.eval.diagnostics import GUESSING_AFTER, converged_below, guess_of, guessing
from modelnet.eval.scores import Scores, accuracy_interval
from modelnet.options import TrainOptions
from modelnet.plots.figures import Guess
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from modelnet.runs.kind import facts_of, images_of, kind_of
from modelnet.runs.reader import FINISHED, RunState
from modelnet.runs.tables import Prediction, best_row, result_row
from pipeline.errors import RunDamaged
from pipeline.text import show_path


@dataclass(frozen=True)
class Run:
    """A run, read from its folder.

    Attributes:
        path: the folder.
        config: config.json.
        options: of the run.
        rows: a row an epoch.
        scores: of the validation images by the weights at the end; None without them, or before the end.
        predictions: of the validation images, where there are scores.
        divergence: where training diverged; empty where it did not.
    """

    path: Path
    config: dict[str, Any]
    options: TrainOptions
    rows: list[EpochRow]
    scores: Scores | None
    predictions: list[Prediction]
    divergence: str = ""

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run folder.

        Raises:
            RunError: no run there, or one of its files is not as this program writes it.
        """
        folder = RunFolder(path)
        config, scores = folder.read_config(), folder.read_scores()
        if scores is not None:
            named, scored = ([str(one["id"]) for one in side["classes"]] for side in (config["cache"], scores))
            if named != scored:
                reason = "its classes are others than those of config.json"
                raise RunDamaged("the run cannot be read", path / "scores.json", reason)
        return cls(
            path,
            config,
            TrainOptions.from_dict(config["options"]),
            folder.read_metrics(),
            None if scores is None else Scores.from_dict(scores),
            folder.read_predictions(),
            folder.read_divergence(),
        )

    @cached_property
    def state(self) -> RunState:
        """How far it is."""
        has_scores = self.scores is not None
        return RunState(self.config, self.options, self.rows, self.predictions, has_scores, self.divergence)

    @cached_property
    def classes(self) -> dict[str, str]:
        """The readable name of each class by its id as text, in the order of the labels."""
        classes = self.config["cache"]["classes"]
        names = [str(one["name"] or one["id"]) for one in classes]
        uses = Counter(names)  # ImageNet calls two classes "crane"
        return {
            str(one["id"]): show_path(name if uses[name] == 1 else f"{name} ({one['id']})")
            for name, one in zip(names, classes, strict=True)
        }

    @property
    def counts(self) -> list[int]:
        """Training images of each class."""
        return [int(one["images"]) for one in self.config["cache"]["classes"]]

    @property
    def val_counts(self) -> list[int] | None:
        """Validation images of each class; None without any."""
        if self.config["val"] is None:
            return None
        images = {str(one["id"]): int(one["images"]) for one in self.config["val"]["classes"]}
        return [images.get(class_id, 0) for class_id in self.classes]

    @property
    def converged(self) -> bool:
        """Whether the training loss is nearer to the lowest possible loss than to the loss of guessing."""
        return bool(self.rows) and self.rows[-1].train_loss < converged_below(self.counts, self.options)

    @property
    def guess(self) -> Guess:
        """How good the best answer is that ignores the image."""
        return guess_of(self.counts, self.val_counts, self.options)

    @property
    def best_epoch(self) -> EpochRow:
        """The best epoch by its rows; there is one at least."""
        return best_row(self.rows)

    @property
    def result(self) -> EpochRow:
        """The epoch whose weights are the result: the best where patience chose it, else the last; there is one."""
        return result_row(self.rows, self.state.result)

    @property
    def scored_epoch(self) -> int | None:
        """The epoch of the scores, that of the result unless the run went on and was stopped; None if nothing tells."""
        if self.scores is None or not self.rows:  # metrics.csv may be lost
            return None
        loss = self.scores.loss
        fitting = [row for row in self.rows if row.val_loss is not None and isclose(row.val_loss, loss, rel_tol=1e-4)]
        return self.result.epoch if self.result in fitting else max((row.epoch for row in fitting), default=None)

    @property
    def epochs_done(self) -> int:
        """Number of finished epochs, also if metrics.csv lacks lines."""
        return self.state.epochs_done

    @property
    def has_ended(self) -> bool:
        """Whether it came to its end, and has its result."""
        return self.state.has_ended

    @property
    def is_comparable(self) -> bool:
        """Whether it ended with predictions of validation images."""
        return self.state.end == FINISHED

    @property
    def images_validated(self) -> tuple[str, float | None, str] | None:
        """A key that runs share if they were validated on the same images, or folds; None without validation."""
        val, split = self.config["val"], self.config.get("split") or {}
        return None if val is None else (images_of(val), self.options.val_fraction, split.get("sha256", ""))

    @property
    def group_key(self) -> str:
        """A key that runs share if they differ only in their seeds."""
        return f"{kind_of(facts_of(self.config))} {self.images_validated}"

    def notes(self) -> list[str]:
        """Return warnings about the numbers."""
        notes = []
        if self.divergence:
            notes.append(f"The run diverged: {show_path(self.divergence)}. The page shows the epochs before that.")
        elif not self.has_ended:
            done = f"{self.epochs_done} of {self.options.epochs} epochs are done"
            notes.append(f"{done}: the run was stopped, or still trains.")
        if self.config["val"] is None:
            notes.append("No validation images: this page cannot say how good the network is on new images.")
        if self.scored_epoch is not None and self.scored_epoch < self.result.epoch:
            notes.append(f"Scores and mistakes are those after epoch {self.scored_epoch}; the run was continued since.")
        if self.rows and not self.options.shuffle:
            notes.append(class_after_class("The order"))
        if len(self.rows) >= GUESSING_AFTER and (hint := guessing(self.rows, self.counts, self.options)):
            notes.append(f"{hint[0].upper()}{hint[1:]}.")
        if self.scores is not None:
            notes += self._luck(self.scores)
        return notes

    def _luck(self, scores: Scores) -> list[str]:
        most = max(scores.classes, key=lambda one: one.images)
        always = most.images / scores.images
        low, high = accuracy_interval(scores.accuracy * scores.images, scores.images)
        if low > always:
            return []
        blind = f"that of always answering {self.classes[str(most.id)]}: {always:.1%}"
        if high < always:
            return [f"This accuracy is below {blind}."]
        return [f"With {scores.images} images this accuracy cannot be told from {blind}."]


def class_after_class(order: str) -> str:
    """Say that an order was not shuffled, and that the training numbers mislead."""
    return (
        f"{order} was not shuffled (--no-shuffle): class after class, the average training loss and accuracy look "
        "better than the network is, and whether it converged follows from that loss."
    )

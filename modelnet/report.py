"""What a report shows: runs as their folders tell of them, in groups that differ in their seeds alone."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from modelnet.hints import GUESSING_AFTER, converged_below, guessing
from modelnet.mistakes import Mistake, Pictures, find_mistakes, read_pictures
from modelnet.options import OF_ONE_START, PLACES, TrainOptions
from modelnet.runs import EpochRow, Prediction, RunFolder
from modelnet.scores import ClassScore, Scores, accuracy_interval, class_scores
from pipeline.errors import RunError, show_path

MISTAKES = 12  # shown of each kind


@dataclass(frozen=True)
class Run:
    """A run as its folder tells of it.

    Attributes:
        path: the folder.
        config: config.json.
        options: of the run.
        rows: a row an epoch.
        scores: of the validation images by the weights at the end; None without them, or before the end.
        predictions: of the validation images, where there are scores.
    """

    path: Path
    config: dict[str, Any]
    options: TrainOptions
    rows: list[EpochRow]
    scores: Scores | None
    predictions: list[Prediction]

    @classmethod
    def read(cls, path: Path) -> "Run":
        """Read a run folder.

        Raises:
            RunError: no run there, or one of its files is not as this program writes it.
        """
        folder = RunFolder(path)
        config, rows = folder.read_config(), folder.read_metrics()
        try:
            scores = folder.read_scores()
            run = cls(
                path,
                config,
                TrainOptions.from_dict(config["options"]),
                rows,
                None if scores is None else Scores.from_dict(scores),
                folder.read_predictions(),
            )
            _ = run.classes, run.counts, run.val_counts, config["cache"]["fingerprint"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError("the run cannot be read", path, f"not as it was written ({error})") from error
        return run

    @cached_property
    def classes(self) -> dict[str, str]:
        """What to call each class, by its id as text, in the order of the labels."""
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
        """Whether the training loss is nearer to the lowest there can be than to that of guessing."""
        limit = converged_below(self.counts, self.options.smoothing)
        return bool(self.rows) and self.rows[-1].train_loss < limit

    @property
    def best_epoch(self) -> EpochRow:
        """The epoch of checkpoints/best.pt; there is one at least."""
        return max(self.rows, key=lambda r: (-r.train_loss,) if r.val_loss is None else (r.val_acc or 0, -r.val_loss))

    @property
    def scored_epoch(self) -> int | None:
        """The epoch of the scores, the last one unless the run went on and was stopped; None where nothing tells."""
        if self.scores is None:
            return None
        return max((row.epoch for row in self.rows if row.val_loss == self.scores.loss), default=None)

    @property
    def has_ended(self) -> bool:
        """Whether it came to its last epoch, or seems to have run out of patience."""
        epochs = len(self.rows)
        return epochs >= self.options.epochs or (self.options.patience is not None and self.scored_epoch == epochs)

    @property
    def images_validated(self) -> tuple[str, float | None] | None:
        """What two runs that were validated on the same images share; None without validation."""
        val = self.config["val"]
        return None if val is None else (str(val["fingerprint"]), self.options.val_fraction)

    @property
    def group_key(self) -> str:
        """What runs share that differ in their seeds alone."""
        options = {k: v for k, v in self.options.to_dict().items() if k not in OF_ONE_START + PLACES}
        images = [None if side is None else side["fingerprint"] for side in (self.config["cache"], self.config["val"])]
        return json.dumps([options, images], sort_keys=True)

    def notes(self) -> list[str]:
        """Say what a person should know before the numbers are believed."""
        notes = []
        if not self.has_ended:
            notes.append(
                f"{len(self.rows)} of {self.options.epochs} epochs are done: the run was stopped, or is still training."
            )
        if self.config["val"] is None:
            notes.append("No validation images: nothing here says how good the network is on images it has not seen.")
        if self.scored_epoch is not None and self.scored_epoch < len(self.rows):
            notes.append(f"Scores and mistakes are those after epoch {self.scored_epoch}; the run has gone on since.")
        if len(self.rows) >= GUESSING_AFTER and (hint := guessing(self.rows, self.counts)):
            notes.append(f"{hint[0].upper()}{hint[1:]}.")
        if self.scores is not None:
            notes += self._luck(self.scores)
        return notes

    def _luck(self, scores: Scores) -> list[str]:
        most = max(scores.classes, key=lambda one: one.images)
        always = most.images / scores.images
        low, _ = accuracy_interval(scores.accuracy * scores.images, scores.images)
        if low > always:
            return []
        name = self.classes[str(most.id)]
        blind = f"that of always answering {name}: {always:.1%}"
        return [f"With {scores.images} images this accuracy cannot be told from {blind}."]


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone; often just one.

    Attributes:
        label: "A", "B", ...; empty where there is one group.
        runs: at least one.
    """

    label: str
    runs: list[Run]

    @property
    def started(self) -> list[Run]:
        """The runs that have an epoch to show."""
        return [run for run in self.runs if run.rows]

    @cached_property
    def confusion(self) -> list[list[int]] | None:
        """[true label][predicted label], numbers of images, added up over the runs; None without scores."""
        matrices = [run.scores.confusion for run in self.runs if run.scores is not None]
        return [[sum(cells) for cells in zip(*rows, strict=True)] for rows in zip(*matrices, strict=True)] or None

    @property
    def class_scores(self) -> list[ClassScore] | None:
        """How good the networks are at each class, all their answers taken together; None without scores."""
        if self.confusion is None:
            return None
        classes = self.runs[0].classes
        return class_scores(self.confusion, list(classes), list(classes.values()))


@dataclass(frozen=True)
class Gallery:
    """Mistakes with a title, and a sentence on what they are."""

    title: str
    about: str
    mistakes: list[Mistake]


@dataclass(frozen=True)
class Report:
    """All that a page shows.

    Attributes:
        groups: of runs.
        galleries: mistakes; none where the runs were not all validated on the same images.
        pictures: of these.
        notes: what a person should know before the numbers are believed.
    """

    groups: list[Group]
    galleries: list[Gallery]
    pictures: Pictures
    notes: list[str]

    @property
    def runs(self) -> list[Run]:
        """Of all groups."""
        return [run for group in self.groups for run in group.runs]


def gather(paths: Sequence[Path]) -> Report:
    """Read runs, and whatever is still there of what they were made of.

    Args:
        paths: folders of runs, at least one; the order of the groups is that of their first runs.

    Raises:
        RunError: one of them is no run, or cannot be read.
    """
    runs = [Run.read(path) for path in paths]
    groups = group_runs(runs)
    galleries, notes = _galleries(runs), runs[0].notes() if len(runs) == 1 else _notes_on_many(runs)
    wanted = {mistake.image for gallery in galleries for mistake in gallery.mistakes}
    if not wanted:
        return Report(groups, galleries, Pictures({}), notes)
    pictures = read_pictures(runs[0].path, runs[0].options, runs[0].config["val"]["fingerprint"], wanted)
    return Report(groups, galleries, pictures, notes)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs that differ in their seeds alone together; the same folder twice counts once."""
    grouped: dict[str, dict[Path, Run]] = {}
    for run in runs:
        grouped.setdefault(run.group_key, {})[run.path.resolve()] = run
    labels = [""] if len(grouped) == 1 else [_letters(number) for number in range(len(grouped))]
    return [Group(label, list(group.values())) for label, group in zip(labels, grouped.values(), strict=True)]


def _letters(number: int) -> str:
    """A to Z, AA, AB, ..."""
    before, last = divmod(number, 26)
    return (_letters(before - 1) if before else "") + chr(ord("A") + last)


def _galleries(runs: Sequence[Run]) -> list[Gallery]:
    scored = [run for run in runs if run.predictions]
    if not scored or len({run.images_validated for run in scored}) > 1:
        return []
    mistakes = find_mistakes(run.predictions for run in scored)
    if not mistakes:
        return []
    if len(scored) > 1:
        about = f"Of {len(mistakes)} images that some run got wrong, those that most of the {len(scored)} did."
        return [Gallery("Images most often wrong", about, mistakes[: 2 * MISTAKES])]
    images = len(scored[0].predictions)
    if len(mistakes) <= 2 * MISTAKES:
        return [Gallery("Mistakes", f"All {len(mistakes)} of {images} images, the surest first.", mistakes)]
    return [
        Gallery(
            "Surest mistakes", f"Of {len(mistakes)} of {images} images, those it was surest of.", mistakes[:MISTAKES]
        ),
        Gallery("Least sure mistakes", "Those that were nearly right.", mistakes[: -MISTAKES - 1 : -1]),
    ]


def _notes_on_many(runs: Sequence[Run]) -> list[str]:
    notes = []
    unfinished = [run.path.name for run in runs if not run.has_ended]
    if unfinished:
        notes.append(
            f"{len(unfinished)} of {len(runs)} runs were stopped before their last epoch, or are still training: "
            f"{', '.join(map(show_path, unfinished[:5]))}{' ...' if len(unfinished) > 5 else ''}."
        )
    validated = {run.images_validated for run in runs}
    if validated == {None}:
        notes.append("No validation images: nothing here says how good the networks are on images not seen.")
    elif len(validated) > 1:
        notes.append("The runs were not validated on the same images: their validation losses cannot be compared.")
    return notes

"""Collect what a report shows: runs in groups that differ only in their seeds, their comparison, mistakes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from modelnet.compare.compare import compare_runs
from modelnet.compare.result import Comparison, Flip
from modelnet.eval.scores import ClassScore, class_scores
from modelnet.pages.mistakes import ImageKey, Mistake, Pictures, find_mistakes, read_pictures
from modelnet.pages.names import group_names
from modelnet.pages.run import Run, class_after_class
from modelnet.runs.kind import refuse_repeats
from pipeline.errors import OptionsError, RunError
from pipeline.text import counted, shorten, show_path

MISTAKES = 12  # shown of each kind


@dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds, and perhaps in their folds, alone; often just one.

    Attributes:
        label: "lr=0.1", "lr=0.2", ... or "A", "B", ...; empty where there is one group.
        runs: at least one.
    """

    label: str
    runs: list[Run]

    @property
    def started(self) -> list[Run]:
        """The runs that have an epoch to show."""
        return [run for run in self.runs if run.rows]

    @property
    def folds(self) -> int:
        """How many folds the runs were validated on: 1 where there is no split, or one fold of it."""
        return len({run.options.fold for run in self.runs})

    @property
    def differs_in(self) -> list[str]:
        """What tells its runs apart, of which there are several: "seeds", "folds" or both."""
        seeds = len({(run.options.seed, run.options.data_seed) for run in self.runs})
        return [name for name, count in (("seeds", seeds), ("folds", self.folds)) if count > 1] or ["seeds"]

    @property
    def counts(self) -> list[int]:
        """Training images of each class; with several folds, those of all: each trains on the images of the others."""
        first = self.runs[0]
        if self.folds == 1 or first.val_counts is None:
            return first.counts
        return [trained + kept for trained, kept in zip(first.counts, first.val_counts, strict=True)]

    @property
    def val_counts(self) -> list[int] | None:
        """Validation images of each class, of all folds; None without any."""
        of_folds = {run.options.fold: run.val_counts for run in self.runs}.values()
        known = [counts for counts in of_folds if counts is not None]
        return [sum(of_class) for of_class in zip(*known, strict=True)] or None

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
        groups: of runs; where they can be compared, the sides of the comparison.
        comparison: of the groups; None of a single one, and where the runs cannot be compared.
        galleries: mistakes; none where the runs were not all validated on the same images.
        pictures: of these.
        notes: warnings about the numbers.
    """

    groups: list[Group]
    comparison: Comparison | None
    galleries: list[Gallery]
    pictures: Pictures
    notes: list[str]

    @property
    def runs(self) -> list[Run]:
        """Of all groups."""
        return [run for group in self.groups for run in group.runs]

    @cached_property
    def labels(self) -> dict[ImageKey, str]:
        """The class of each validation image to which a table of labels gave one, in the first run that has it."""
        runs = reversed(self.runs)  # each network of a split's folds has other images
        return {ImageKey(p.class_id, p.file): p.label for run in runs for p in run.predictions if p.label}


def gather(paths: Sequence[Path]) -> Report:
    """Read runs, compare their groups, and read the pictures of their mistakes from the cache.

    Args:
        paths: folders of runs, at least one; the order of the groups is that of their first runs.

    Raises:
        RunError: one of them is no run, or cannot be read.
    """
    runs = list({path.resolve(): Run.read(path) for path in paths}.values())  # a folder given twice counts once
    keys = [(run.group_key, run.options.fold, run.options.seed, run.options.data_seed, run.epochs_done) for run in runs]
    refuse_repeats(zip((run.path for run in runs), keys, strict=True), "the runs cannot be shown together")
    notes = runs[0].notes() if len(runs) == 1 else _notes_on_many(runs)
    groups, comparison = _compared(runs, notes)
    galleries = _galleries(runs)
    wanted = {mistake.image for gallery in galleries for mistake in gallery.mistakes}
    wanted |= {ImageKey(flip.class_id, flip.file) for flip in flips_shown(comparison)}
    if not wanted:
        return Report(groups, comparison, galleries, Pictures({}), notes)
    run = next(run for run in runs if run.predictions)
    pictures = read_pictures(run.path, run.options, run.config["val"]["fingerprint"], wanted)
    return Report(groups, comparison, galleries, pictures, notes)


def _compared(runs: Sequence[Run], notes: list[str]) -> tuple[list[Group], Comparison | None]:
    """Compare the runs that can be compared; name the others in the notes, and show them in groups of their own."""
    groups, compared = group_runs(runs), [run for run in runs if run.is_comparable]
    left_out = [run for run in runs if not run.is_comparable]
    if len(groups) < 2:
        return groups, None
    rest = [group.runs for group in group_runs(left_out)]
    by_path = {run.path: run for run in runs}

    def labels(sides: list[list[Path]]) -> list[str]:
        return group_names([*([by_path[path] for path in side] for side in sides), *rest])[: len(sides)]

    try:
        chosen = compared if len(group_runs(compared)) > 1 else runs
        comparison = compare_runs([run.path for run in chosen], labels=labels)
    except (RunError, OptionsError) as error:
        notes.append(f"No comparison: {error}.")
        return groups, None
    if left_out:
        names = shorten([show_path(run.path.name) for run in left_out])
        notes.append(f"Left out of the comparison, without validation images or before their end: {names}.")
    shown = [*([by_path[path] for path in side.runs] for side in comparison.sides), *rest]
    return [*map(Group, group_names(shown), shown)], comparison if comparison.pairs else None


def flips_shown(comparison: Comparison | None) -> list[Flip]:
    """Return the images that flip, the clearest first, as many as are shown; of two sides alone."""
    return comparison.pairs[0].flips[:MISTAKES] if comparison is not None and len(comparison.pairs) == 1 else []


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Put runs together that differ in seeds and folds alone: where they cannot be compared, which does so as well."""
    grouped: dict[str, list[Run]] = {}
    for run in runs:
        grouped.setdefault(run.group_key, []).append(run)
    return [*map(Group, group_names([*grouped.values()]), grouped.values())]


def _galleries(runs: Sequence[Run]) -> list[Gallery]:
    scored = [run for run in runs if run.predictions]
    if not scored or len({run.images_validated for run in scored}) > 1:
        return []
    mistakes = find_mistakes(run.predictions for run in scored)
    if not mistakes:
        return []
    if len(scored) > 1:
        shown = mistakes[: 2 * MISTAKES]
        about = f"{counted(len(mistakes), 'image was', 'images were')} wrong in at least one run"
        about += "; these were wrong most often." if len(mistakes) > len(shown) else "."
        return [Gallery("Images most often wrong", about, shown)]
    images = len(scored[0].predictions)
    if len(mistakes) <= 2 * MISTAKES:
        wrong = "The only wrong prediction" if len(mistakes) == 1 else f"All {len(mistakes)} wrong predictions"
        about = f"{wrong} of {counted(images, 'image')}, the most confident first."
        return [Gallery("Mistakes", about, mistakes)]
    return [
        Gallery(
            "Surest mistakes",
            f"{len(mistakes):,} of {images:,} images were wrong. These are the most confident predictions.",
            mistakes[:MISTAKES],
        ),
        Gallery(
            "Nearly right",
            "Mistakes in which the true class was hardly less probable than the predicted one.",
            sorted(mistakes, key=lambda m: (m.p_predicted - m.p_true, m.image))[:MISTAKES],
        ),
    ]


def _notes_on_many(runs: Sequence[Run]) -> list[str]:
    notes = []
    diverged = [run for run in runs if run.divergence]
    unfinished = [run for run in runs if not run.divergence and not run.has_ended]
    for some, what in ((diverged, "diverged"), (unfinished, "were stopped before their last epoch, or still train")):
        if some:
            names = shorten([show_path(run.path.name) for run in some])
            notes.append(f"{len(some)} of {len(runs)} runs {what}: {names}.")
    if in_order := sum(bool(run.rows) and not run.options.shuffle for run in runs):
        notes.append(
            class_after_class("The order" if in_order == len(runs) else f"In {in_order} of {len(runs)} runs the order")
        )
    validated = {run.images_validated for run in runs}
    if validated == {None}:
        notes.append("No validation images: this page cannot say how good the networks are on new images.")
    elif len(validated) > 1:
        notes.append("The runs were not validated on the same images: their validation losses cannot be compared.")
    return notes

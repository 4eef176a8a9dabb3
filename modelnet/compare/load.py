"""Read the runs of a comparison, and take those of all folds of a seed as one."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelnet.compare.result import show_seeds
from modelnet.options import TrainOptions
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from modelnet.runs.kind import facts_of, kind_of
from modelnet.runs.tables import Prediction, are_of_the_end
from pipeline.errors import OptionsError, RunError
from pipeline.text import command_line, show_path

Answers = Mapping[Path, list[Prediction]]
SEEDS = ("seed", "data_seed")


@dataclass(frozen=True)
class Run:
    """A run that has ended, as far as a comparison needs it; or those of all folds of a seed, as one run."""

    path: Path
    paths: list[Path]
    options: dict[str, Any]
    facts: dict[str, str]
    predictions: list[Prediction]
    result: str

    @property
    def kind(self) -> str:
        """What two runs have in common that differ in their seeds, and perhaps in their folds, alone."""
        return kind_of(self.facts)

    @property
    def seeds(self) -> tuple[int, int]:
        """Seed and data seed."""
        return self.options["seed"], self.options["data_seed"]


def load_all(paths: Sequence[Path], answers: Answers | None) -> list[Run]:
    """Read runs, each once.

    Raises:
        RunError: one has not ended, or has no validation images.
        OptionsError: there are fewer than two, or one is given twice.
    """
    if len(paths) < 2:
        raise OptionsError("nothing to compare", paths[0] if paths else None, "two runs or more are needed")
    places: dict[Path, Path] = {}
    for path in paths:
        if places.setdefault(Path(path).resolve(), path) is not path:
            raise OptionsError("a run is given twice", path, "each counts once", "Leave it out")
    return [_load(Path(path), None if answers is None else answers[path]) for path in paths]


def _load(path: Path, answers: list[Prediction] | None) -> Run:
    """Read a run, its predictions in the order of their images, or those of other images.

    Raises:
        RunError: it cannot be compared; says why, and what would help.
    """
    folder = RunFolder(path)
    config = folder.read_config()
    options = TrainOptions.from_dict(config["options"])
    if answers is not None:
        rows = folder.read_metrics()
        if options.patience is None and (not rows or rows[-1].epoch < options.epochs):
            raise RunError("the run cannot be compared", path, *_why_not(folder, rows, options.epochs))
        return Run(path, [path], options.to_dict(), facts_of(config), answers, config.get("result", "last"))
    if config["val"] is None:
        advice = "Train it again with --val or --val-fraction"
        raise RunError("the run cannot be compared", path, "it was trained without validation images", advice)
    rows, predictions, result = folder.read_metrics(), folder.read_predictions(), config.get("result", "last")
    if not are_of_the_end(predictions, rows, result):
        raise RunError("the run cannot be compared", path, *_why_not(folder, rows, options.epochs))
    if len(predictions) < 2:
        raise RunError("the run cannot be compared", path, "one validation image is too few", "Validate on more")
    return Run(path, [path], options.to_dict(), facts_of(config), predictions, result)


def _why_not(folder: RunFolder, rows: list[EpochRow], epochs: int) -> tuple[str, str]:
    """Return why a run has no predictions of its last epoch, and what to do."""
    if divergence := folder.read_divergence():
        return f"it diverged: {divergence}", "Leave it out"
    done = rows[-1].epoch if rows else 0
    reason = f"{done} of {epochs} epochs" if done < epochs else "its predictions are not written yet"
    advice = f"Continue with: {command_line()} train --resume {shlex.quote(str(folder.path))}"
    return f"it has not ended: {reason}", advice


def with_all_folds(groups: list[list[Run]], answers: Answers | None) -> list[list[Run]]:
    """Take the networks that a seed has for several folds as one run, over the images of all of these folds.

    Where all have judged the same test images, its answer to an image is the mean of theirs.

    Raises:
        RunError: a seed lacks a fold that another has.
    """
    folds = {run.options["fold"] for group in groups for run in group} - {None}
    if len(folds) > 1:
        groups = [_by_seeds(group, folds, answers is not None) for group in groups]
    for run in (runs := [run for group in groups for run in group]):
        run.predictions.sort(key=lambda p: (p.class_id, p.sha256, p.file))
        _check_same_images(runs[0], run)
    return groups


def _by_seeds(group: list[Run], folds: set[int], judge_the_same: bool) -> list[Run]:
    check_seeds(group)
    seeds: dict[tuple[Any, ...], list[Run]] = {}
    for run in group:
        seeds.setdefault((run.kind, run.seeds), []).append(run)
    whole: list[Run] = []
    for parts in seeds.values():
        if parts[0].options["fold"] is None:  # trained on all folds
            whole += parts
            continue
        parts.sort(key=lambda run: run.options["fold"])
        if missing := folds - {run.options["fold"] for run in parts}:
            reason = f"its seed {parts[0].seeds[0]} lacks fold {show_seeds(list(missing))}, which another run has"
            raise RunError("the runs cannot be compared", parts[0].path, reason, "Give the runs of all folds")
        facts = parts[0].facts | {"fold": show_seeds(list(folds))}
        predictions = [prediction for run in parts for prediction in run.predictions]
        if judge_the_same:
            predictions = [_mean(of_image) for of_image in zip(*(run.predictions for run in parts), strict=True)]
        result = "best" if any(run.result == "best" for run in parts) else "last"
        whole.append(
            replace(parts[0], paths=[r.path for r in parts], facts=facts, predictions=predictions, result=result)
        )
    return whole


def _mean(answers: Sequence[Prediction]) -> Prediction:
    """Return the share of networks that are right about an image, and their mean loss."""
    correct, loss = (float(np.mean([getattr(one, name) for one in answers])) for name in ("correct", "loss"))
    return answers[0]._replace(correct=correct, loss=loss)


def _check_same_images(first: Run, other: Run) -> None:
    """Refuse runs that were validated on other images: class and content tell an image.

    Raises:
        RunError: says how many they share.
    """
    ours, theirs = ([(p.class_id, p.sha256) for p in run.predictions] for run in (first, other))
    if ours == theirs:
        return
    shared = len(set(ours) & set(theirs))
    reason = f"it was validated on other images than {show_path(first.path)}: {len(theirs)} and {len(ours)}, "
    reason += f"{shared} of them the same"
    if shared < len({sha for _, sha in ours} & {sha for _, sha in theirs}):
        reason += "; some are the same photographs in other classes"
    advice = "Train with the same --val, or the same cache and --val-fraction or --split"
    raise RunError("the runs cannot be compared", other.path, reason, advice)


def check_seeds(group: list[Run]) -> None:
    """Refuse a run beside its repetition: it would pass for another seed.

    Raises:
        RunError: names both.
    """
    seen: dict[tuple[str, ...], Run] = {}
    for run in group:
        key = (run.kind, *(run.facts[name] for name in (*SEEDS, "fold") if name in run.facts))
        if key in seen:
            reason = f"it repeats {show_path(seen[key].path)}: the same options, seed and data seed"
            raise RunError("the runs cannot be compared", run.path, reason, "Leave one of them out")
        seen[key] = run

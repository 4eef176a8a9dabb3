"""Read the runs of a comparison, and take those of all folds of a seed as one."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from modelnet.compare.result import show_seeds
from modelnet.runs.kind import NOT_GIVEN, facts_of, kind_of, refuse_repeats
from modelnet.runs.reader import RunReader, RunState
from modelnet.runs.tables import Prediction
from pipeline.errors import OptionsError, RunError
from pipeline.text import command_line, show_path

_WHAT = "the run cannot be compared"
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
    folder = RunReader(path)
    config = folder.read_config()
    if answers is None and config["val"] is None:
        advice = "Train it again with --val or --val-fraction"
        raise RunError(_WHAT, path, "it was trained without validation images", advice)
    state = check_ended(folder)
    predictions = list(state.predictions if answers is None else answers)
    return Run(path, [path], state.options.to_dict(), facts_of(config), predictions, state.result)


def check_ended(run: RunReader) -> RunState:
    """Return how a run ended; refuse one that diverged, or has more to do.

    Raises:
        RunError: says how far it is, and what to do.
    """
    state = run.state()
    if state.divergence:
        raise RunError(_WHAT, run.path, f"it diverged: {state.divergence}", "Leave it out")
    reason = ""
    if not state.is_trained:
        reason = f"{state.epochs_done} of {state.options.epochs} epochs"
    elif not state.has_ended:
        reason = "its predictions are not written yet"
    elif state.config["val"] is None and run.saved_step() < (state.epochs_done, 0):
        reason = "its last epoch is not saved yet"
    if reason:
        advice = f"Continue with: {command_line()} train --resume {shlex.quote(str(run.path))}"
        raise RunError(_WHAT, run.path, f"it has not ended: {reason}", advice)
    return state


def with_all_folds(groups: list[list[Run]], answers: Answers | None) -> list[list[Run]]:
    """Take the networks that a seed has for several folds as one run, over the images of all of these folds.

    Where all have judged the same test images, its answer to an image is the mean of theirs, and sides may have other
    folds.

    Raises:
        RunError: a seed lacks a fold that another has, of its side or of all; or there is a single image.
    """
    tested = answers is not None
    of_groups = [{run.options["fold"] for run in group} - {None} for group in groups]
    if not tested:  # together all sides have judged the same images
        of_groups = [set[int]().union(*of_groups)] * len(groups)
    pairs = zip(groups, of_groups, strict=True)
    groups = [_by_seeds(group, folds, tested) if len(folds) > 1 else group for group, folds in pairs]
    for run in (runs := [run for group in groups for run in group]):
        run.predictions.sort(key=lambda p: (p.class_id, p.sha256, p.file))
        _check_same_images(runs[0], run, tested)
    if len(runs[0].predictions) < 2:
        kind, advice = ("test", "Keep more: split --test") if tested else ("validation", "Validate on more")
        raise RunError(_WHAT, runs[0].path, f"one {kind} image is too few", advice)
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
            which = "another run of its side" if judge_the_same else "another run"
            reason = f"its seed {parts[0].seeds[0]} lacks fold {show_seeds(list(missing))}, which {which} has"
            advice = "Give the runs of all folds" + ("" if judge_the_same else ", or compare them by --on test")
            raise RunError("the runs cannot be compared", parts[0].path, reason, advice)
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


def _check_same_images(first: Run, other: Run, tested: bool) -> None:
    """Refuse runs that were validated or tested on other images: class and content tell an image.

    Raises:
        RunError: says how many they share.
    """
    ours, theirs = ([(p.class_id, p.sha256) for p in run.predictions] for run in (first, other))
    if ours == theirs:
        return
    shared = len(set(ours) & set(theirs))
    judged = "tested" if tested else "validated"
    reason = f"it was {judged} on other images than {show_path(first.path)}: {len(theirs)} and {len(ours)}, "
    reason += f"{shared} of them the same"
    if shared < len({sha for _, sha in ours} & {sha for _, sha in theirs}):
        reason += "; some are the same photographs in other classes"
    if any(run.facts.get("labels", NOT_GIVEN) != NOT_GIVEN for run in (first, other)):
        reason += "; images in no row of --labels are left out"
    same_split = "Compare runs with the same --split and --labels"
    advice = same_split if tested else "Train with the same --val, or the same cache and --val-fraction or --split"
    raise RunError("the runs cannot be compared", other.path, reason, advice)


def check_seeds(group: list[Run]) -> None:
    """Refuse a run beside its repetition: it would pass for another seed.

    Raises:
        RunError: names both.
    """
    names = (*SEEDS, "fold")
    keys = [(run.path, (run.kind, *(run.facts.get(name) for name in names))) for run in group]
    refuse_repeats(keys, "the runs cannot be compared")

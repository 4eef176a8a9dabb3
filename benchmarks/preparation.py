"""Does the preparation of photographs matter? Squash, crop and pad, for ModelNet and for a pretrained network.

SOURCE is the folder that holds the `train/` and `val/` of PyTorch's hymenoptera photographs. With WEIGHTS, a file of
timm's tf_efficientnet_lite0, a linear layer is also trained on that network's features.
"""

import contextlib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.dataset import Workplace
from benchmarks.photographs import BEST, options_text
from benchmarks.tables import Table
from modelnet import TrainOptions, build_features, compare_groups, train, train_many
from modelnet.nets.preparation import preparation_of
from pipeline import build_cache
from pipeline.recipe import Fit

SEEDS = range(24)
NETWORK = "timm:tf_efficientnet_lite0"
LINEAR: dict[str, Any] = {"model": "linear", "epochs": 30, "batch_size": 16}


def measure(work: Workplace) -> list[Table]:
    """Train each network on each preparation, and compare it with squashed photographs."""
    if not all((work.source / part).is_dir() for part in ("train", "val")):
        return [Table("Preparation", (), notes=["Not measured: SOURCE holds no train/ and val/."])]
    with contextlib.chdir(work.folder):  # runs/ is made there
        table = accuracies(f"ModelNet, {len(SEEDS)} seeds: validation accuracy by fit")
        groups = {fit: _modelnet(work, fit) for fit in get_args(Fit)}
        add_groups(table, groups, "squash")
        table.notes.append(f"Settings: `{options_text(BEST)}`.")
        if work.weights is None:
            return [table, Table("Linear layer on features", (), notes=["Not measured: no WEIGHTS were given."])]
        features = accuracies(f"Linear layer on features of {NETWORK}, {len(SEEDS)} seeds: validation accuracy")
        own = preparation_of(NETWORK)
        squashed = {"size": own["size"], "mean": own["mean"], "std": own["std"]}
        name = f"its own ({own['fit']}, {own['interpolation']})"
        of_features = {"squash, bilinear": _linear(work, "squashed", squashed), name: _linear(work, "like", own)}
        add_groups(features, of_features, "squash, bilinear")
        features.notes.append(f"Settings: `{options_text(LINEAR)}`.")
        return [table, features]


def _modelnet(work: Workplace, fit: str) -> list[Path]:
    work.say(f"preparation: ModelNet, {fit}")
    caches = _caches(work, f"modelnet-{fit}", {"fit": fit})
    return train_many(TrainOptions(caches[0], val=caches[1], name=f"modelnet-{fit}", **BEST), SEEDS).runs


def _linear(work: Workplace, name: str, recipe: dict[str, Any]) -> list[Path]:
    work.say(f"preparation: linear layer, {name}")
    assert work.weights is not None
    features = []
    for cache in _caches(work, name, recipe):
        features.append(cache.with_name(f"{cache.stem}-features.h5"))
        build_features(cache, features[-1], NETWORK, work.weights)
    options = [TrainOptions(features[0], val=features[1], name=f"{name}-{s}", seed=s, **LINEAR) for s in SEEDS]
    return [train(each).run for each in options]


def _caches(work: Workplace, name: str, recipe: dict[str, Any]) -> list[Path]:
    paths = [work.folder / f"{name}-{part}.h5" for part in ("train", "val")]
    for path, part in zip(paths, ("train", "val"), strict=True):
        build_cache(work.source / part, path, dtype="uint8", **recipe)
    return paths


def accuracies(title: str) -> Table:
    """Make an empty table for `add_groups`."""
    return Table(title, ("median", "lowest–highest", "against the first, in points", "verdict"))


def add_groups(table: Table, groups: dict[str, list[Path]], base: str) -> None:
    """Add a row for each group of runs; the verdict compares it with the group `base`."""
    comparison = compare_groups([groups[base], *(runs for name, runs in groups.items() if name != base)])
    names = [base, *(name for name in groups if name != base)]
    for side, name in zip(comparison.sides, names, strict=True):
        pair = next((pair for pair in comparison.pairs if pair.second == side.label), None)
        table.add(name, *_spread(side.accuracies), *(("–", "–") if pair is None else _difference(pair)))


def _difference(pair: Any) -> tuple[str, str]:
    points = pair.accuracy
    return f"{100 * points.value:+.1f} ({100 * points.low:+.1f} to {100 * points.high:+.1f})", pair.verdict


def _spread(accuracies: Sequence[float]) -> tuple[str, str]:
    return f"{statistics.median(accuracies):.3f}", f"{min(accuracies):.3f}–{max(accuracies):.3f}"

"""Folds on PyTorch's hymenoptera photographs: a linear layer on pretrained features, and a choice of settings.

SOURCE is the folder that holds their `train/` and `val/`; the first table needs --weights, of tf_efficientnet_lite0.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dataset import Workplace
from benchmarks.photographs import BEST, build, options_text
from benchmarks.tables import Table
from modelnet import Trained, TrainOptions, build_features, train_many
from modelnet.data.split_table import SplitTable, write_split
from modelnet.sweep.result import SweepResult
from pipeline import TensorCache

PROBE: dict[str, Any] = {"model": "linear", "epochs": 30, "batch_size": 16, "opt": "adamw", "lr": 0.001}
NETWORK = "timm:tf_efficientnet_lite0"
PROBE_FOLDS, CHOICE_FOLDS = 5, 4
SEEDS = range(8)
SETTINGS: dict[str, Sequence[Any]] = {"lr": [0.0025, 0.005, 0.01], "augment": ["flip", "flip,crop,color"]}


def measure(work: Workplace) -> list[Table]:
    """Train the networks of all folds."""
    train_folder, val_folder = work.source / "train", work.source / "val"
    if not (train_folder.is_dir() and val_folder.is_dir()):
        return [Table("Folds on photographs", (), notes=["Not measured: SOURCE holds no train/ and val/."])]
    with contextlib.chdir(work.folder):  # runs/ is made there
        tables = [probe(work, [train_folder, val_folder])] if work.weights else []
        return [*tables, choice(work, train_folder, val_folder)]


def probe(work: Workplace, sources: Sequence[Path]) -> Table:
    """Judge a linear layer on pretrained features by five folds of all photographs."""
    assert work.weights is not None
    for image in (image for source in sources for image in source.glob("*/*")):
        link = Path("all") / image.parent.name / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(image.resolve())
    images = build(Path("all"), Path("all.h5"))
    build_features(images, Path("features.h5"), NETWORK, work.weights)
    work.say(f"folds: {PROBE_FOLDS} folds × {len(SEEDS)} seeds of a linear layer")
    split = fold_by_content(Path("features.h5"), PROBE_FOLDS)
    start = time.monotonic()
    result = train_many(TrainOptions(Path("features.h5"), split=split, fold="all", **PROBE), SEEDS)
    seconds = time.monotonic() - start
    (judged,) = result.out_of_fold
    accuracies = [judged_alone(result, seed) for seed in SEEDS]
    columns = ("seconds of training", "accuracy of a seed, mean (lowest–highest)", "out of fold, mean of all seeds")
    table = Table(f"Linear layer on {NETWORK}, {judged.images} photographs", columns)
    spread = f"{100 * np.mean(accuracies):.1f} % ({100 * min(accuracies):.1f}–{100 * max(accuracies):.1f})"
    table.add(
        f"{PROBE_FOLDS} folds × {len(SEEDS)} seeds",
        seconds,
        spread,
        str(judged).split(" on ")[0].rpartition("accuracy ")[2],
    )
    table.notes.append(f"`{options_text(PROBE)}`")
    return table


def judged_alone(result: SweepResult, seed: int) -> float:
    """Return the accuracy of a seed's networks over the images of all folds."""
    own = [i for i, options in enumerate(result.members) if options.seed == seed]
    rights = [(result.rows[i][-1].val_acc or 0.0) * result.validated[i] for i in own]
    return sum(rights) / sum(result.validated[i] for i in own)


def choice(work: Workplace, train_folder: Path, val_folder: Path) -> Table:
    """Choose ModelNet's settings by four folds of `train`, and open `val` for the chosen ones."""
    cache, val = build(train_folder, Path("train.h5")), build(val_folder, Path("val.h5"))
    options = TrainOptions(cache, split=fold_by_content(cache, CHOICE_FOLDS), fold="all", **BEST)
    work.say(f"folds: choice among {np.prod([len(values) for values in SETTINGS.values()])} settings of ModelNet")
    start = time.monotonic()
    result = train_many(options, SEEDS, sweep=SETTINGS)
    seconds = time.monotonic() - start
    assert result.selection is not None
    names = list(result.settings)
    table = Table(f"Choice of ModelNet's settings by {CHOICE_FOLDS} folds × {len(SEEDS)} seeds", ("median accuracy",))
    for name, members in result.settings.items():
        seeds = [i for i in members if result.members[i].fold == 0]
        accuracies = [judged_alone(part(result, members), result.members[i].seed) for i in seeds]
        table.add(name, f"{100 * np.median(accuracies):.1f} %")
    best = result.members[result.settings[names[result.selection.best]][0]]
    final = train_many(TrainOptions(cache, **BEST | {"lr": best.lr, "augment": best.augment}), SEEDS)
    opened = [Trained.load(run).evaluate(val).accuracy for run in final.runs]
    table.add(f"`val`, {names[result.selection.best]}", f"{100 * np.median(opened):.1f} %")
    table.notes.append(f"{names[result.selection.best]}: {result.selection}. {seconds:.0f} s of training.")
    table.notes.append(f"Other settings: `{options_text(BEST)}`.")
    return table


def part(result: SweepResult, members: Sequence[int]) -> SweepResult:
    """Return the networks of a setting alone."""

    def of(values: Sequence[Any]) -> list[Any]:
        return [values[i] for i in members]

    return SweepResult(
        *(of(result.members), of(result.runs), of(result.rows), of(result.states), of(result.limits)),
        trained_accuracy=of(result.trained_accuracy),
        validated=of(result.validated),
    )


def fold_by_content(path: Path, folds: int) -> Path:
    """Write a split without test images: the images of each class in turn, in the order of their contents' digests."""
    cache = TensorCache(path)
    digests = [digest.tobytes() for digest in cache.source_sha256]
    labels, of, seen = cache.labels.tolist(), dict[bytes, int](), Counter[int]()
    for row in sorted(range(cache.num_images), key=digests.__getitem__):
        if digests[row] not in of:  # copies stay together
            of[digests[row]] = seen[labels[row]] % folds
            seen[labels[row]] += 1
    classes = [str(cache.class_ids[label]) for label in labels]
    table = path.with_name(f"{path.stem}-split.csv")
    values = np.array([of[digest] for digest in digests], np.int64)
    write_split(
        SplitTable(table, classes, list(cache.filenames), np.array(cache.source_sha256), [""] * len(values), values)
    )
    return table

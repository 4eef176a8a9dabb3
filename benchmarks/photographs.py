"""Accuracy on PyTorch's hymenoptera photographs: every figure that the tutorial and docs/performance.md quote of them.

SOURCE is the folder that holds their `train/` and `val/`. Takes about half an hour on two cores.
"""

import contextlib
import statistics
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.dataset import Workplace
from benchmarks.tables import Table
from modelnet import Trained, TrainOptions, train, train_many
from pipeline import build_cache

PLACEHOLDER = "imageNotFound.gif"  # of hymenoptera_data/train/ants
SEEDS = range(24)
TUTORIAL_SEEDS = range(8)
TUTORIAL: dict[str, dict[str, Any]] = {
    "folder order, batch 1, lr 0.001": {"batch_size": 1, "lr": 0.001, "shuffle": False},
    "shuffled, batch 1, lr 0.001": {"batch_size": 1, "lr": 0.001},
    "shuffled, batch 8, lr 0.001": {"batch_size": 8, "lr": 0.001},
    "shuffled, batch 8, lr 0.008": {"batch_size": 8, "lr": 0.008},
}
BEST: dict[str, Any] = {
    "epochs": 150,
    "batch_size": 16,
    "opt": "adamw",
    "lr": 0.005,
    "weight_decay": 0.01,
    "sched": "cosine",
    "smoothing": 0.2,
    "augment": "flip,crop,color",
}
RESNET: dict[str, Any] = {
    "model": "resnet18",
    "crop_size": 112,
    "epochs": 60,
    "batch_size": 16,
    "opt": "adamw",
    "lr": 0.001,
    "weight_decay": 0.05,
    "sched": "cosine",
    "warmup_epochs": 3,
    "smoothing": 0.1,
    "augment": "flip,crop,color",
}


Caches = tuple[Path, Path]  # to train and to validate on


def measure(work: Workplace) -> list[Table]:
    """Train everything that is quoted."""
    sources = work.source / "train", work.source / "val"
    if not all(source.is_dir() for source in sources):
        return [Table("Accuracy on photographs", (), notes=["Not measured: SOURCE holds no train/ and val/."])]
    train_folder, val_folder = (link_photographs(source, work.folder / source.name) for source in sources)
    whole = build(train_folder, work.folder / "train.h5"), build(val_folder, work.folder / "val.h5")
    small = build(train_folder, work.folder / "train-128.h5", 128), build(val_folder, work.folder / "val-128.h5", 128)
    with contextlib.chdir(work.folder):  # runs/ is made there
        return [unshuffled(work, *whole), settings(work, whole, small)]


def link_photographs(source: Path, target: Path) -> Path:
    """Link the images of all classes, but for the placeholder among them; return the folder of the links."""
    for image in (image for image in source.glob("*/*") if image.name != PLACEHOLDER):
        link = target / image.parent.name / image.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(image.resolve())
    return target


def build(source: Path, path: Path, size: int = 224) -> Path:
    """Build a uint8 cache and return its path."""
    build_cache(source, path, size=size, dtype="uint8")
    return path


def unshuffled(work: Workplace, cache: Path, val: Path) -> Table:
    """Compare orders, batch sizes and learning rates; the training images are measured once more at the end."""
    table = Table(
        f"Medians (lowest–highest) of {len(TUTORIAL_SEEDS)} ModelNets after 100 epochs",
        ("printed training loss", "accuracy on the training images afterwards", "validation accuracy"),
    )
    for name, options in TUTORIAL.items():
        work.say(f"photographs: {name}")
        result = train_many(TrainOptions(cache, val=val, epochs=100, **options), TUTORIAL_SEEDS)
        afterwards = [Trained.load(run).evaluate(cache).accuracy for run in result.runs]
        last = [rows[-1] for rows in result.rows]
        losses = [row.train_loss for row in last]
        shown = f"{statistics.median(losses):.3f} ({min(losses):.3f}–{max(losses):.3f})"
        table.add(name, shown, spread(afterwards), spread([row.val_acc or 0.0 for row in last]))
    return table


def settings(work: Workplace, whole: Caches, small: Caches) -> Table:
    """Measure validation accuracies after the last epoch of better settings."""
    table = Table("Validation accuracy after the last epoch", ("networks", "median", "quartiles", "lowest–highest"))

    def add(name: str, accuracies: list[float]) -> None:
        lower, upper = np.quantile(accuracies, (0.25, 0.75))
        quartiles, ends = f"{lower:.3f}–{upper:.3f}", f"{min(accuracies):.3f}–{max(accuracies):.3f}"
        table.add(name, str(len(accuracies)), f"{statistics.median(accuracies):.3f}", quartiles, ends)

    work.say("photographs: 24 seeds")
    add("ModelNet, lr 0.02 and nothing else", final(whole, lr=0.02))
    add("ModelNet, best settings", final(whole, **BEST))
    work.say("photographs: resnet18")
    rows = train(TrainOptions(small[0], val=small[1], **RESNET)).rows
    add("resnet18 from scratch, 128 × 128", [rows[-1].val_acc or 0.0])
    table.notes.append(f"Best settings: `{options_text(BEST)}`. resnet18: `{options_text(RESNET)}`.")
    return table


def final(caches: Caches, **options: Any) -> list[float]:
    """Return the validation accuracy of each seed after the last epoch."""
    result = train_many(TrainOptions(caches[0], val=caches[1], **options), SEEDS)
    return [rows[-1].val_acc or 0.0 for rows in result.rows]


def spread(accuracies: list[float]) -> str:
    """Return "59.5 % (54.9–62.7)": median, lowest, highest; "100.0 % (all)" where all are alike."""
    low, middle, high = (100 * f(accuracies) for f in (min, statistics.median, max))
    return f"{middle:.1f} % ({'all' if low == high else f'{low:.1f}–{high:.1f}'})"


def options_text(options: dict[str, Any]) -> str:
    """Return options as they are typed."""
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in options.items())

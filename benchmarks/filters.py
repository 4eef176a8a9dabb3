"""Does the filter of random crops matter? Ours, without antialiasing, against torchvision's antialiased one.

SOURCE is the folder that holds the `train/` and `val/` of PyTorch's hymenoptera photographs. Both have the same boxes
and flips.
"""

import contextlib
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from benchmarks.dataset import Workplace
from benchmarks.photographs import options_text
from benchmarks.preparation import accuracies, add_groups
from benchmarks.tables import Table
from modelnet import TrainOptions, train_many
from pipeline import build_cache
from pipeline.load.augment import Augmentation, crop_boxes
from pipeline.load.normalize import normalize_rows
from pipeline.load.random import uniform
from pipeline.recipe import Recipe

SEEDS = range(8)
SIZES = ((256, 224), (224, 64))  # of the stored images and of the crops
OPTIONS: dict[str, Any] = {
    "epochs": 60,
    "batch_size": 16,
    "opt": "adamw",
    "lr": 0.005,
    "weight_decay": 0.01,
    "sched": "cosine",
    "augment": "flip,crop",
}
OURS, THEIRS = "ours, without antialiasing", "torchvision's, antialiased"


def measure(work: Workplace) -> list[Table]:
    """Train ModelNets on crops of both filters, some of whole photographs and some that are made much smaller."""
    if not all((work.source / part).is_dir() for part in ("train", "val")):
        return [Table("Filters", (), notes=["Not measured: SOURCE holds no train/ and val/."])]
    with contextlib.chdir(work.folder):  # runs/ is made there
        return [_of_size(work, *sizes) for sizes in SIZES]


def _of_size(work: Workplace, size: int, crop_size: int) -> Table:
    caches = [work.folder / f"{part}-{size}.h5" for part in ("train", "val")]
    for path, part in zip(caches, ("train", "val"), strict=True):
        build_cache(work.source / part, path, size=size, dtype="uint8")
    groups: dict[str, list[Path]] = {}
    for name, read in ((THEIRS, _antialiased), (OURS, Augmentation.read)):
        work.say(f"filters: {size} to {crop_size}, {name}")
        run = f"{size}-{name.partition(',')[0].replace(chr(39), '')}"
        options = TrainOptions(caches[0], val=caches[1], name=run, crop_size=crop_size, **OPTIONS)
        with patch.object(Augmentation, "read", read):
            groups[name] = train_many(options, SEEDS).runs
    table = accuracies(
        f"ModelNet, {len(SEEDS)} seeds, images of {size} pixels, crops of {crop_size}: validation accuracy"
    )
    add_groups(table, groups, THEIRS)
    table.notes.append(f"Settings: `{options_text(OPTIONS)}`.")
    return table


def _antialiased(
    self: Augmentation, images_NCHW: Tensor, places_B: Tensor, epoch: int, rows_B: Tensor, out_BCHW: Tensor
) -> None:
    """Do what `Augmentation.read` does, with torchvision's filter; of validation images the center is the same."""
    if self.kinds is None:
        _READ(self, images_NCHW, places_B, epoch, rows_B, out_BCHW)
        return
    random_BK = uniform("augment", self.seed, epoch, rows_B)
    height, width = images_NCHW.shape[2:]
    sides = torch.tensor([width, height, width, height])
    boxes = (torch.from_numpy(crop_boxes(random_BK, self.crop_scale, width / height).T) * sides).round().int().tolist()
    cropped = []
    for place, is_flipped, (left, top, across, down) in zip(
        places_B.tolist(), random_BK[:, 0] < 0.5, boxes, strict=True
    ):
        image_CHW = images_NCHW[place].flip(2) if is_flipped else images_NCHW[place]
        cropped.append(tv.resized_crop(image_CHW, top, left, down, across, list(self.size), antialias=True))
    recipe = Recipe(size=self.size, dtype="uint8", mean=self.recipe.mean, std=self.recipe.std)
    normalize_rows(torch.stack(cropped), torch.arange(len(cropped)), recipe, out_BCHW)


_READ = Augmentation.read

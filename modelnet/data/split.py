"""Which images of a cache are kept for validation: each image's side follows from its content alone."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modelnet.data.caches import near_warnings, present_classes
from pipeline import TensorCache
from pipeline.errors import OptionsError
from pipeline.text import shorten, show_path


class Split(NamedTuple):
    """The rows of a cache in two parts, each in the order of the cache: (M,) int64."""

    train: Tensor
    val: Tensor


def split_by_content(cache: TensorCache, fraction: float) -> Split:
    """Keep a fraction of the images for validation: those whose SHA-256, read as a number in 0..1, is below it.

    So a set that grows moves no old image to the other side, copies of an image are on one side, whatever their names
    and classes, and a larger fraction keeps all that a smaller one did. Every class gives the fraction of its images
    that chance gives: to make it exact, old images would have to move.

    Args:
        cache: of which images are kept.
        fraction: in 0..1.

    Raises:
        OptionsError: nothing is left to validate on, or fewer than two classes to train on.
    """
    heads = np.ascontiguousarray(cache.source_sha256[:, :8]).view(">u8").ravel()
    is_val = torch.from_numpy(heads.astype(np.float64) / 2.0**64 < fraction)
    split = Split(torch.nonzero(~is_val).ravel(), torch.nonzero(is_val).ravel())
    what, advice = f"--val-fraction {fraction:g} divides no set", "Try another fraction, or --val with a second cache"
    if len(split.val) == 0:
        raise OptionsError(what, cache.path, f"none of its {cache.num_images} images is kept for validation", advice)
    if len(present_classes(cache, split.train)) < 2:
        raise OptionsError(what, cache.path, "fewer than 2 classes are left to train on", advice)
    return split


def split_counts(cache: TensorCache, split: Split) -> str:
    """Return how many images of each class are kept for validation: "1: 5 of 25, 2: 7 of 25"."""
    counts, kept = (
        torch.bincount(labels, minlength=len(cache.class_ids)).tolist()
        for labels in (cache.labels, cache.labels[split.val])
    )
    each = zip(cache.class_ids, kept, counts, strict=True)
    return shorten([f"{show_path(str(class_id))}: {val} of {count}" for class_id, val, count in each if count])


def split_warnings(cache: TensorCache, split: Split) -> list[str]:
    """Name the classes that have images and none on one of the sides; count near copies across the sides."""
    warnings = []
    for rows, purpose in ((split.train, "train"), (split.val, "validate")):
        there = set(present_classes(cache, rows))
        missing = [show_path(str(class_id)) for class_id in present_classes(cache) if class_id not in there]
        if missing:
            warnings.append(f"--val-fraction leaves no images of class {', '.join(missing)} to {purpose} on")
    return warnings + near_warnings(cache, cache, split.train.numpy(), split.val.numpy())


def split_rows(cache: TensorCache, split: Split) -> Iterator[list[Any]]:
    """Yield a row of the run's split.csv for each image, in the order of the cache; its fold is "train" or "val"."""
    sides = ["train"] * cache.num_images
    for row in split.val.tolist():
        sides[row] = "val"
    for file, label, sha256, side in zip(
        cache.filenames, cache.labels.tolist(), cache.source_sha256, sides, strict=True
    ):
        yield [cache.class_ids[label], file, sha256.tobytes().hex(), "", side]

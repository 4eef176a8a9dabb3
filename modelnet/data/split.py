"""Which images of a cache are trained on, and which are kept: its content decides, or a table of folds."""

import hashlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from modelnet.data.caches import near_copies_across, present_classes
from modelnet.data.groups import equal_pixels
from modelnet.data.relabel import key_class
from modelnet.data.split_table import TEST, UNLISTED, SplitTable, match_split
from modelnet.options import TrainOptions
from modelnet.options.groups import ALL
from pipeline import TensorCache
from pipeline.errors import OptionsError
from pipeline.text import shorten, show_path


class Split(NamedTuple):
    """The rows of a cache in parts, each in the order of the cache: (M,) int64.

    Attributes:
        train, val: to train and to validate on; `val` is empty where all folds are trained on.
        test: that training never reads.
        warnings: of images that only the cache or only the table of folds has.
    """

    train: Tensor
    val: Tensor
    test: Tensor = torch.empty(0, dtype=torch.int64)
    warnings: tuple[str, ...] = ()


def split_images(cache: TensorCache, options: TrainOptions, table: SplitTable | None) -> Split | None:
    """Return which images of a cache are trained and validated on; None where all are trained on.

    Args:
        cache: of which images are kept.
        options: of the run.
        table: of folds, where the options name one.

    Raises:
        OptionsError: nothing is left to train or to validate on, or there is no such fold.
        TableDamaged: the table is of other images.
    """
    if table is None and options.fold is not None:
        raise OptionsError(f"--fold {options.fold} needs a split", None, "there is none", "Give --split FILE")
    if table is not None:
        return split_by_folds(cache, table, options.fold)
    return None if options.val_fraction is None else split_by_content(cache, options.val_fraction)


def split_by_folds(cache: TensorCache, table: SplitTable, fold: int | str | None) -> Split:
    """Validate on a fold of a table and train on the others; test images are in neither.

    Args:
        cache: of which images are kept.
        table: the fold of each image, by content.
        fold: to validate on; None trains on all folds.

    Raises:
        OptionsError: no such fold, or fewer than two classes to train on.
        TableDamaged: the table is of other images.
    """
    if fold == ALL:
        reason = f"each of the {table.num_folds} folds needs a network of its own"
        raise OptionsError("--fold all is for many networks", table.path, reason, "Give the number of a fold")
    if fold is not None and fold not in range(table.num_folds):
        reason = f"its folds are 0 to {table.num_folds - 1}"
        raise OptionsError(f"no fold {fold}", table.path, reason, "Give one of them, or all")
    matched = match_split(table, cache.reader)
    has_label = cache.labels.numpy() >= 0
    is_val, is_known = matched.folds == (UNLISTED if fold is None else fold), (matched.folds >= 0) & has_label
    is_val &= is_known
    sides = (is_known & ~is_val, is_val, (matched.folds == TEST) & has_label)
    train, val, test = (torch.from_numpy(np.flatnonzero(side)) for side in sides)
    if fold is not None and len(val) == 0:
        raise OptionsError(f"nothing to validate on in fold {fold}", cache.path, "none of its images is in the cache")
    if len(present_classes(cache, train)) < 2:
        what, advice = "the split leaves too little to train on", "Make another split, with more folds"
        raise OptionsError(what, table.path, "fewer than 2 classes are left to train on", advice)
    return Split(train, val, test, tuple(matched.warnings))


def split_by_content(cache: TensorCache, fraction: float) -> Split:
    """Keep a fraction of the images for validation: those whose SHA-256, read as a number in 0..1, is below it.

    Images with the same decoded pixels are on one side. If their files differ, a hash of the smallest number counts:
    that number itself would be below the fraction too often. So copies are on one side, whatever their names and
    classes, a set that grows moves an old image only together with a new copy, and a larger fraction keeps all that a
    smaller one did. Every class gives the fraction of its images that chance gives: to make
    it exact, old images would have to move.

    Args:
        cache: of which images are kept.
        fraction: in 0..1.

    Raises:
        OptionsError: nothing is left to validate on, or fewer than two classes to train on.
    """
    heads = np.ascontiguousarray(cache.source_sha256[:, :8]).view(">u8").ravel().astype(np.uint64)
    copies = equal_pixels(cache.reader)
    least, most = np.full(len(heads), np.iinfo(np.uint64).max, np.uint64), np.zeros(len(heads), np.uint64)
    np.minimum.at(least, copies, heads)
    np.maximum.at(most, copies, heads)
    for number in np.flatnonzero(least < most):
        least[number] = int.from_bytes(hashlib.sha256(least[number].tobytes()).digest()[:8])
    is_val = torch.from_numpy(least[copies].astype(np.float64) / 2.0**64 < fraction)
    has_label = cache.labels >= 0
    split = Split(torch.nonzero(~is_val & has_label).ravel(), torch.nonzero(is_val & has_label).ravel())
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
        for labels in (torch.cat([cache.labels[split.train], cache.labels[split.val]]), cache.labels[split.val])
    )
    each = zip(cache.class_ids, kept, counts, strict=True)
    return shorten([f"{show_path(str(class_id))}: {val} of {count}" for class_id, val, count in each if count])


def split_note(cache: TensorCache, split: Split, options: TrainOptions) -> str:
    """Say how many images are kept, and for what."""
    of_all, fold = f"of {int((cache.labels >= 0).sum()):,} images are kept for validation", options.fold
    if options.split is None:
        return f"{len(split.val):,} {of_all}, by their content"
    used = "all folds are trained on" if fold is None else f"{len(split.val):,} {of_all}: fold {fold}"
    return used + (f"; {len(split.test):,} test images are not used" if len(split.test) else "")


def split_warnings(cache: TensorCache, split: Split, options: TrainOptions) -> list[str]:
    """Name the classes that have images and none on one of the sides; count near copies across the sides."""
    warnings, what = list(split.warnings), "--val-fraction"
    if options.split is not None:
        what = f"--split {show_path(options.split)}" if options.fold is None else f"fold {options.fold}"
    for rows, purpose in ((split.train, "train"), (split.val, "validate")):
        if len(rows) == 0:
            continue
        there = set(present_classes(cache, rows))
        missing = [show_path(str(class_id)) for class_id in present_classes(cache) if class_id not in there]
        if missing:
            warnings.append(f"{what} leaves no images of class {', '.join(missing)} to {purpose} on")
    if len(split.val) == 0:
        return warnings
    return warnings + near_copies_across(cache, cache, split.train.numpy(), split.val.numpy())


def split_rows(cache: TensorCache, split: Split) -> Iterator[list[Any]]:
    """Yield a row of the run's split.csv for each image, in the order of the cache; its fold is "train" or "val"."""
    sides = dict.fromkeys(split.train.tolist(), "train") | dict.fromkeys(split.val.tolist(), "val")
    for row, side in sorted(sides.items()):
        yield [key_class(cache, row), cache.filenames[row], cache.source_sha256[row].tobytes().hex(), "", side]

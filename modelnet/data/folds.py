"""Divide groups of images into folds and a test set; say which classes a fold lacks, and what leaks."""

import hashlib
import warnings
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from modelnet.data.groups import Groups
from modelnet.data.split_table import TEST, image_names, show_fold
from pipeline.errors import OptionsError, SourceError
from pipeline.format.sharded import Reader
from pipeline.text import align, counted, how_to_install, printable, shorten, show_path

_WHAT = "the images cannot be divided"
_MOST_PARTS = 20  # into which images are divided to choose a test set by class
_NAMED = 3


def divide(
    reader: Reader, groups: Groups, folds: int, test: float, seed: int = 0, stratify: bool = False
) -> NDArray[np.int64]:
    """Give each image a fold; the images of a group have the same.

    A hash of the seed and the group's key decides. So no image moves when others come, and a larger test set keeps
    all that a smaller one had. With `stratify`, scikit-learn's `StratifiedGroupKFold` decides: each fold gets its part
    of every class, and images that come may move others.

    Args:
        reader: of the cache, for its labels and messages.
        groups: of its images.
        folds: K, at least 2.
        test: the share of the test set, in [0, 1).
        seed: another one, other folds.
        stratify: whether classes are to be alike in all folds.

    Returns:
        (N,) int64, 0..K-1, or `TEST`.

    Raises:
        SourceError: a group has more than half of the images, there are fewer groups than folds, or a fold has none.
        OptionsError: scikit-learn is needed and not installed.
    """
    count = reader.num_images
    needed = folds + (test > 0)
    largest = int(groups.sizes.argmax()) if count else 0
    if count and groups.sizes[largest] * 2 > count and count > 1:
        first = image_names(reader, np.flatnonzero(groups.of == largest)[:1])[0]
        name = f"group {show_path(groups.names[largest])} (of {first})"
        reason = f"{name} has {groups.sizes[largest]} of {count} images, and one side would have more than half"
        raise SourceError(_WHAT, reader.path, reason, "Divide it: another --group, or without --group-near")
    if len(groups) < needed:
        wanted = f"{folds} folds" + (" and a test set" if test else "")
        reason = f"{counted(len(groups), 'group')} of images cannot fill {wanted}"
        raise SourceError(_WHAT, reader.path, reason, "Give fewer --folds, or smaller groups")
    of_images = _stratified(reader, groups, folds, test, seed) if stratify else _hashed(groups, folds, test, seed)
    sides = [*range(folds), *([TEST] if test else [])]
    if empty := [show_fold(side) for side in sides if not (of_images == side).any()]:
        reason = f"none of {counted(len(groups), 'group')} came into {shorten(empty)}"
        ways = ["fewer --folds", *([] if stratify else ["--stratify"])]
        if empty == [show_fold(TEST)]:
            ways = ["a larger --test", "--test 0"]
        advice = f"Give another --seed, {', '.join(ways[:-1])}{', ' if ways[:-1] else ''}or {ways[-1]}"
        raise SourceError(_WHAT, reader.path, reason, advice)
    return of_images


def _hashed(groups: Groups, folds: int, test: float, seed: int) -> NDArray[np.int64]:
    start = hashlib.sha256(f"{seed}:".encode())
    heads = bytearray()
    for key in groups.keys:
        digest = start.copy()
        digest.update(key.encode("utf-8", "surrogateescape"))
        heads += digest.digest()[:8]
    place = np.frombuffer(bytes(heads), ">u8").astype(np.float64) / 2.0**64
    fold = np.minimum((place - test) / (1 - test) * folds, folds - 1).astype(np.int64)  # rounding may give K
    return np.where(place < test, TEST, fold)[groups.of]


def _stratified(reader: Reader, groups: Groups, folds: int, test: float, seed: int) -> NDArray[np.int64]:
    labels = reader.table("labels")
    most = _refuse_few(reader, labels, groups.of, folds)
    of_images = np.full(len(labels), TEST)
    share = Fraction(test).limit_denominator(min(_MOST_PARTS, most, len(groups)))
    rest = np.arange(len(labels) if share < 1 else 0)
    if 0 < share < 1:
        parts = _parts(labels, groups.of, share.denominator, seed)
        rest = np.flatnonzero(parts >= share.numerator)
    _refuse_few(reader, labels[rest], groups.of[rest], folds, " beside the test set")
    of_images[rest] = _parts(labels[rest], groups.of[rest], folds, seed)
    return of_images


def _refuse_few(
    reader: Reader, labels: NDArray[np.int64], groups: NDArray[np.int64], folds: int, beside: str = ""
) -> int:
    """Return the number of images of the largest class; refuse what scikit-learn cannot divide into folds."""
    most, count = int(np.bincount(labels, minlength=1).max()), len(np.unique(groups))
    if most < folds:
        reason = (
            f"no class has more than {counted(most, 'image')}{beside}, and --stratify divides each into {folds} folds"
        )
    elif count < folds:
        reason = f"there are {counted(count, 'group')} of images{beside}, and {folds} folds"
    else:
        return most
    raise SourceError(_WHAT, reader.path, reason, f"Give fewer --folds{', or a smaller --test' if beside else ''}")


def _parts(labels: NDArray[np.int64], groups: NDArray[np.int64], parts: int, seed: int) -> NDArray[np.int64]:
    """Return (n,) int64, the part of each image: groups are whole, classes alike."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
    except ImportError as error:
        raise OptionsError("scikit-learn is not installed", None, str(error), how_to_install("split")) from error
    alone = len(np.unique(groups)) == len(groups)  # StratifiedGroupKFold tries each group in each part: slow
    kind, given = (StratifiedKFold, None) if alone else (StratifiedGroupKFold, groups)
    divider = kind(parts, shuffle=True, random_state=seed)
    of_images = np.empty(len(labels), np.int64)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # `missing_classes` names it
        for part, (_, rows) in enumerate(divider.split(labels, labels, given)):
            of_images[rows] = part
    return of_images


def fold_counts(reader: Reader, folds: NDArray[np.int64]) -> tuple[list[int], NDArray[np.int64]]:
    """Return the folds that have images, the test set last, and (C, folds) int64, their images of each class."""
    sides = [*range(int(folds.max()) + 1), *([TEST] if (folds == TEST).any() else [])]
    counts = np.zeros((len(reader.class_ids), len(sides)), np.int64)
    np.add.at(counts, (reader.table("labels"), folds), 1)  # TEST is -1, and stands last
    return sides, counts


def fold_table(reader: Reader, folds: NDArray[np.int64], shown: int = 20) -> list[str]:
    """Lay out the number of images of each class in each fold, then of all classes."""
    sides, counts = fold_counts(reader, folds)
    rows = [["class", "name" if any(reader.class_names) else "", *map(show_fold, sides), "images"]]
    classes = zip(reader.class_ids, reader.class_names, counts[:shown].tolist(), strict=False)
    rows += [[show_path(str(i)), printable(name), *map(str, row), str(sum(row))] for i, name, row in classes]
    rows.append(["all", "", *map(str, counts.sum(0).tolist()), str(len(folds))])
    lines = align(rows, left=(0, 1))
    if len(counts) > shown:
        lines.insert(-1, f"and {len(counts) - shown} more classes")
    return lines


def class_warnings(reader: Reader, groups: Groups, folds: NDArray[np.int64]) -> list[str]:
    """Name the classes that a fold or the test set lacks, and those that are in one group alone."""
    sides, counts = fold_counts(reader, folds)
    pairs = np.unique(np.stack([reader.table("labels"), groups.of]), axis=1)  # (2, P) of a class and its groups
    spread = np.bincount(pairs[0], minlength=len(counts))
    texts, lacking = [], []
    for label, row in enumerate(counts.tolist()):
        name = show_path(str(reader.class_ids[label]))
        there = [show_fold(side) for side, images in zip(sides, row, strict=True) if images]
        if spread[label] == 1:
            group = groups.names[pairs[1][pairs[0] == label][0]]
            what = f"group {show_path(group)}" if group else "image"
            texts.append(
                f"class {name} is in one {what} only, in {there[0]}: nothing trained without it knows the class"
            )
        elif 0 < len(there) < len(sides):
            absent = [show_fold(side) for side, images in zip(sides, row, strict=True) if not images]
            lacking.append(f"{name} (in {shorten(absent, _NAMED)})")
    if lacking:
        texts.append(f"classes without images in a fold: {shorten(lacking)}")
    return texts


def near_copies_torn(reader: Reader, near: NDArray[np.int64], folds: NDArray[np.int64]) -> list[str]:
    """Count and name the near copies that are in different folds.

    Args:
        reader: of the cache.
        near: (N,) int64, from `near_copies`.
        folds: (N,) int64.
    """
    order = np.argsort(near, kind="stable")
    starts = np.flatnonzero(np.diff(near[order], prepend=-1))
    ordered = folds[order]
    torn = np.minimum.reduceat(ordered, starts) != np.maximum.reduceat(ordered, starts)
    if not torn.any():
        return []
    sizes = np.diff(starts, append=len(order))
    named = []
    for start in starts[torn][:_NAMED].tolist():
        other = start + int(np.argmax(ordered[start:] != ordered[start]))  # of the same set, as it is torn
        rows = order[[start, other]]
        shown = zip(image_names(reader, rows), folds[rows].tolist(), strict=True)
        named.append(" and ".join(f"{name} ({show_fold(fold)})" for name, fold in shown))
    counts = f"{int(sizes[torn].sum())} images in {counted(int(torn.sum()), 'set')} of near copies"
    return [
        f"{counts} are in different folds: {shorten(named, _NAMED, int(torn.sum()))}. --group-near keeps them together"
    ]


def size_notes(folds: NDArray[np.int64]) -> list[str]:
    """Note folds of which one is more than twice as large as another."""
    sizes = np.bincount(folds[folds != TEST])
    if sizes.max() <= 2 * sizes.min():
        return []
    return [f"the folds have {sizes.min()} to {sizes.max()} images; --stratify makes them more alike"]


def group_lines(groups: Groups) -> list[str]:
    """Say how many groups there are, and which is the largest."""
    several = groups.sizes > 1
    if not several.any():
        return ["groups: none; each image stands alone"]
    largest = int(groups.sizes.argmax())
    name = f"{show_path(groups.names[largest])} with {groups.sizes[largest]}"
    alone = counted(int((~several).sum()), "image")
    return [f"groups of several images: {several.sum()}, the largest {name}; {alone} alone"]

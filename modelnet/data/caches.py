"""Find the cache to train on, and check that the validation cache matches it."""

import os
import shlex
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelnet.data.relabel import LabelTable, relabel
from modelnet.options.folders import CACHES
from modelnet.runtime.ranks import Ranks
from pipeline import TensorCache
from pipeline.errors import CacheError, CacheMissing, CacheStale, OptionsError, SourceError
from pipeline.format.classes import ClassId
from pipeline.format.duplicates import digest_items, near_rows_across
from pipeline.format.features import Features
from pipeline.format.header import describe_shard
from pipeline.format.paths import base_path, cache_exists
from pipeline.format.sharded import ShardedReader
from pipeline.format.tables import blank_images
from pipeline.recipe import Recipe
from pipeline.text import command_line, shorten, show_path

NAMES_SHOWN = 4


def find_cache(folder: Path) -> Path:
    """Return the one cache, or set of shards, in `folder` that is not named for validation or test (`-val`, `-test`).

    Raises:
        CacheMissing: there is none; says what to type.
        OptionsError: there are several; says which.
    """
    caches = {base_path(path) for path in folder.glob("*.h5")}
    found = sorted(path for path in caches if not path.stem.endswith(("-val", "-test")))
    if not found:
        advice = f"Type: {command_line()} build-cache SOURCE"
        raise CacheMissing("no cache to train on", folder, "no .h5 file in it", advice)
    if len(found) > 1:
        names = ", ".join(show_path(path.name) for path in found)
        advice = f"Type: {command_line()} train --cache {shlex.quote(show_path(found[0]))}"
        raise OptionsError("more than one cache to train on", folder, names, advice)
    return found[0]


def open_to_train(path: Path, labels: LabelTable | None = None) -> TensorCache:
    """Open a cache that has images of two or more classes, with the labels of a table if there is one.

    Raises:
        SourceError: images of fewer than two classes, or of none of the table.
        TableDamaged: a row of the table cannot be used.
        CacheError: the cache cannot be used.
        AccessDenied, StorageError, WorkerDied: as `TensorCache`.
    """
    cache = relabel(TensorCache(path), labels)
    present = present_classes(cache)
    if len(present) < 2:
        reason = f"training needs at least 2 classes, and all images are of class {_shown(present)}"
        raise SourceError("nothing to tell apart", path, reason, "Give a folder with a folder for each class")
    return cache


def present_classes(cache: TensorCache, rows: Tensor | None = None) -> list[ClassId]:
    """Return the ids of the classes that have images, among `rows` or all."""
    counts = class_counts(cache, rows).tolist()
    return [class_id for class_id, count in zip(cache.class_ids, counts, strict=True) if count]


def class_counts(cache: TensorCache, rows: Tensor | None = None) -> Tensor:
    """Return (C,) int64, the number of images of each class, of all or of those in `rows`."""
    labels = cache.labels if rows is None else cache.labels[rows]
    labels = labels[labels >= 0]  # -1 is an image in no row of --labels
    return labels.bincount(minlength=len(cache.class_ids))


def match_labels(
    class_ids: list[ClassId],
    recipe: Recipe,
    other: TensorCache,
    features: Features | None = None,
    what: str = "the training set",
) -> Tensor:
    """Match the labels of two sets by class id.

    Args:
        class_ids: of the first set, by label.
        recipe, features: of the first set.
        other: the second cache.
        what: the first set, for messages.

    Returns:
        (C of `other`,) int64, label of the first set by label of the second.

    Raises:
        CacheStale: a class that the first set does not have, or images prepared otherwise.
    """
    if different := different_features(features, other):
        raise CacheStale("the caches do not match", other.path, f"{what} has {different}")
    differences = same_images(recipe).differences(same_images(other.recipe))
    if differences:
        reason = f"its images are prepared differently from those of {what}: {', '.join(differences)}"
        raise CacheStale("the caches do not match", other.path, reason, "Build both with the same options")
    # as text: folder 1 is the class 1, whether or not another folder beside it makes all of them strings
    known = list(map(str, class_ids))
    unknown = [class_id for class_id in other.class_ids if str(class_id) not in known]
    if unknown:
        reason = f"class {_shown(unknown)} is unknown to {what}, which has {_shown(class_ids)}"
        raise CacheStale("the caches do not match", other.path, reason)
    return torch.tensor([known.index(str(class_id)) for class_id in other.class_ids])


def different_features(features: Features | None, other: TensorCache) -> str:
    """Describe how the rows of two sets differ in kind: "images, and it holds features"; "" if they do not."""
    mine, theirs = (None if values is None else values.network for values in (features, other.features))
    if mine == theirs:
        return ""
    return f"{features or 'images'}, and it holds {other.features or 'images'}"


def same_images(recipe: Recipe) -> Recipe:
    """Return a recipe without the keys that do not change tensors: how they are stored, which images are refused."""
    return replace(recipe, dtype="float32", max_megapixels=64)


def has_rows_of(cache: TensorCache, fingerprint: str) -> bool:
    """Tell whether a fingerprint is that of a cache, or the one that an earlier version gave to the same rows."""
    return cache.fingerprint == fingerprint or cache.reader.earlier_fingerprint == fingerprint


def shard_warnings(cache: TensorCache) -> list[str]:
    """Warn of a cache that is one shard of several; name the path of all of them."""
    shard = None if isinstance(cache.reader, ShardedReader) else cache.reader.header.shard
    if shard is None or shard.count == 1:
        return []
    return [
        f"{show_path(cache.path)} is only {describe_shard(shard)}; all of them are {show_path(base_path(cache.path))}"
    ]


def pair_warnings(train: TensorCache, val: TensorCache) -> list[str]:
    """Warn of a training and a validation cache that go together badly."""
    warnings = []
    present = list(map(str, present_classes(val)))
    missing = [class_id for class_id in present_classes(train) if str(class_id) not in present]
    if missing:
        warnings.append(f"the validation set has no images of class {_shown(missing)}")
    if other := _named_otherwise(train, val):
        warnings.append(f"classes are matched by their ids, and some have other names in the validation set: {other}")
    sides = np.flatnonzero(train.labels.numpy() >= 0), np.flatnonzero(val.labels.numpy() >= 0)
    if shared := int(_shared(train, val, *sides).sum()):
        warnings.append(
            f"{shared} of {len(sides[1])} validation images are in the training set too (the same content): "
            "validation will look better than it is"
        )
    return warnings + near_copies_across(train, val, *sides)


def near_copies_across(
    train: TensorCache, val: TensorCache, trained: NDArray[np.int64], kept: NDArray[np.int64]
) -> list[str]:
    """Count the validation images that are near copies of a training image.

    Args:
        train, val: the caches, perhaps the same.
        trained, kept: rows of theirs that are trained and validated on.
    """
    rest = kept[~_shared(train, val, trained, kept) & ~_blank(val)[kept]]
    others = trained[~_blank(train)[trained]]
    near = near_rows_across(val.reader.table("image_hash")[rest], train.reader.table("image_hash")[others]).sum()
    if not near:
        return []
    return [
        f"{near} of {len(kept)} validation images are near copies of training images (scaled or "
        "compressed again): validation will look better than it is"
    ]


def _shared(
    train: TensorCache, val: TensorCache, trained: NDArray[np.int64], kept: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which validation images have the file content of a training image: (len(kept),) bool."""
    ours, theirs = digest_items(train.source_sha256[trained]), digest_items(val.source_sha256[kept])
    return np.isin(theirs, ours)


def _blank(cache: TensorCache) -> NDArray[np.bool_]:
    return blank_images(cache.reader.notes, cache.num_images)


def _named_otherwise(train: TensorCache, val: TensorCache) -> str:
    """Name the classes that have the same id but different names in both sets; "" if there are none."""
    ours = {str(class_id): name for class_id, name in zip(train.class_ids, train.class_names, strict=True)}
    found = [
        f"{show_path(str(class_id))} is {show_path(ours[str(class_id)])} and {show_path(name)}"
        for class_id, name in zip(val.class_ids, val.class_names, strict=True)
        if name and ours.get(str(class_id)) and ours[str(class_id)] != name
    ]
    return shorten(found, NAMES_SHOWN)


def _shown(class_ids: list[ClassId]) -> str:
    return ", ".join(show_path(str(class_id)) for class_id in class_ids)


def home_of(run: Path) -> Path:
    """Return the folder that holds runs/, where the paths that a run has were typed, most often."""
    home = Path(os.path.abspath(run)).parent.parent  # noqa: PTH100 -- takes ".." away, and follows no link
    return Path() if home == Path.cwd() else home


def from_home(path: Path, run: Path) -> Path:
    """Return where a path of a run is: as it was typed, or below the home of the run if something is only there."""
    there = home_of(run) / path
    return there if there.exists() and not path.exists() else path


def find(cache: Path, run: Path | None, fingerprint: str | None = None) -> Path:
    """Return where a cache is: paths are stored as they were typed, most often below the folder that `runs` is in.

    A cache that was moved or renamed is found by its fingerprint in data/cache/.

    Args:
        cache: its path when the run began.
        run: the folder of the run; None for a cache that is named now.
        fingerprint: of the cache when the run began.

    Raises:
        CacheMissing: a run's cache is nowhere; other caches are opened where they are said to be.
    """
    if run is None or cache_exists(cache) or cache.with_name(cache.name + ".building").exists():
        return cache
    home = home_of(run)
    if cache_exists(home / cache):
        return home / cache
    for folder in dict.fromkeys((CACHES, home / CACHES)):
        for path in sorted({base_path(file) for file in folder.glob("*.h5")}):
            with suppress(CacheError):
                if fingerprint and has_rows_of(TensorCache(path), fingerprint):
                    return path
    reason = "no such file, neither from here nor from the folder that holds runs/"
    advice = "Move it back, leave a link to it there, or train --resume RUN --cache FILE (--val FILE)"
    raise CacheMissing("the run's cache is gone", cache, reason, advice)


def same_caches(ranks: Ranks, cache: TensorCache) -> None:
    """Refuse ranks that read different caches, as those of two machines may be.

    Raises:
        CacheStale: a rank has another cache than rank 0; raised on all ranks.
    """
    found = ranks.gather_objects(cache.fingerprint)
    others = [rank for rank, fingerprint in enumerate(found) if fingerprint != found[0]]
    if others:
        reason = f"rank {others[0]} reads another cache there than rank 0"
        raise CacheStale("the ranks read different caches", cache.path, reason, "Give all the same file")

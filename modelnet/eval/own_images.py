"""The images of a run: those that it was validated on, and the test images of its split."""

from pathlib import Path

from torch import Tensor

from modelnet.data.caches import has_rows_of
from modelnet.data.relabel import labelled_rows, relabel
from modelnet.data.split import split_images
from modelnet.data.split_table import TEST
from modelnet.options import TrainOptions
from modelnet.runs.labels import kept_labels
from modelnet.runs.reader import RunReader, folds_of
from pipeline import TensorCache
from pipeline.errors import CacheStale, OptionsError

Images = tuple[TensorCache, Tensor | None]  # a cache and the rows that are meant; None for all


def validation_images(run: Path, options: TrainOptions) -> Images:
    """Open the cache that the run was validated on; the rows are the part of it that was.

    Raises:
        OptionsError: the run had none.
    """
    if not options.validates:
        reason = "the run had no validation images"
        advice = "Give a --cache" if options.split is None else "Give a --cache, or --on test"
        raise OptionsError("nothing to evaluate on", run, reason, advice)
    return seen_images(run, options)


def seen_images(run: Path, options: TrainOptions) -> Images:
    """Open what the run was validated on; of a run without validation, what it was trained on. Never test images."""
    cache = _own_cache(run, options, "val" if options.validates else "cache")
    split = split_images(cache, options, folds_of(options, run))
    if split is None:
        return cache, labelled_rows(cache)
    return cache, split.val if options.validates else split.train


def other_images(run: Path, options: TrainOptions, path: Path) -> Images:
    """Open another cache. The run's table of labels holds for it too, if one of its images is in it."""
    cache = relabel(TensorCache(path), kept_labels(RunReader(run), options), needed=False)
    return cache, labelled_rows(cache)


def test_images(run: Path, options: TrainOptions) -> tuple[TensorCache, Tensor]:
    """Open the cache of the run; the rows are the test images of its split.

    Raises:
        OptionsError: the run has none.
        RunError: the split is gone, beside which looks at them are noted.
    """
    RunReader(run).split_path()
    cache = _own_cache(run, options, "cache")
    split = split_images(cache, options, folds_of(options, run))
    if split is None or len(split.test) == 0:
        advice = "Train with the split of: split CACHE --test 0.15"
        raise OptionsError("no test images", run, "its split keeps none", advice)
    return cache, split.test


def count_tested(run: Path, options: TrainOptions, cache: TensorCache) -> int:
    """Count the images of a cache that are test images of the run's split, by their content."""
    table = folds_of(options, run)
    if table is None:
        return 0
    digests = {digest.tobytes() for digest in table.sha256[table.folds == TEST]}
    return sum(digest.tobytes() in digests for digest in cache.source_sha256)


def _own_cache(run: Path, options: TrainOptions, side: str) -> TensorCache:
    """Open a cache of the run, "cache" or "val", as it was then, with the labels that it had.

    Raises:
        CacheMissing: it is gone. CacheStale: it has changed since.
    """
    cache = TensorCache(RunReader(run).cache_path(side))
    if not has_rows_of(cache, RunReader(run).read_config()[side]["fingerprint"]):
        reason = f"it is not the one that run {run.name} was {'validated' if side == 'val' else 'trained'} on"
        raise CacheStale("the cache has changed", cache.path, reason, "Build it as it was")
    return relabel(cache, kept_labels(RunReader(run), options), needed=False)

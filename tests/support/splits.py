"""Splits of small caches, written without the command."""

from pathlib import Path

import numpy as np

from modelnet.data.split_table import TEST, SplitTable, write_split
from pipeline import TensorCache


def write_folds(cache: TensorCache, path: Path, folds: int = 3, tested: int = 0) -> Path:
    """Write a split: the first `tested` images of each class are the test, the others go to the folds in turn."""
    of = np.empty(cache.num_images, np.int64)
    for label in range(len(cache.class_ids)):
        rows = np.flatnonzero(cache.labels.numpy() == label)
        of[rows] = np.arange(len(rows)) % folds
        of[rows[:tested]] = TEST
    classes = [str(cache.class_ids[label]) for label in cache.labels.tolist()]
    digests = np.array(cache.source_sha256)
    write_split(SplitTable(path, classes, list(cache.filenames), digests, [""] * len(of), of))
    return path

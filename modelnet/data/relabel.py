"""Give the images of a cache other labels, from a table: rows and bytes stay, and nothing is decoded."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from modelnet.options import TrainOptions
from pipeline import TensorCache
from pipeline.errors import RunError, source_errors
from pipeline.format.classes import ClassId, class_ids_of, class_order
from pipeline.source.tables.labels import Labels
from pipeline.source.tables.match import Matched, labels_of_cache
from pipeline.text import counted


@dataclass(frozen=True)
class LabelTable:
    """A table of labels, and its bytes when the run began.

    Attributes:
        labels: path and columns.
        content: of the file.
    """

    labels: Labels
    content: bytes

    @classmethod
    def of(cls, options: TrainOptions, kept: Path | None = None) -> "LabelTable | None":
        """Read the table that options name, or the copy that a run has kept; None where they name none.

        Raises:
            RunError: it is not there.
            AccessDenied, WorkerDied, StorageError: as `source_errors`.
        """
        if options.labels is None:
            return None
        path = kept or options.labels
        with source_errors("the labels cannot be read", path, RunError):
            content = path.read_bytes()
        return cls(Labels(path, options.file_column, options.label_column), content)

    @property
    def path(self) -> Path:
        """Of the file."""
        assert self.labels.table is not None
        return self.labels.table

    @property
    def sha256(self) -> str:
        """The digest of the file, 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()


class RelabelledCache(TensorCache):
    """A cache whose images have the labels of a table. An image in no row of it has the label -1.

    `filenames` and the reader's tables stay the cache's own: they are the keys of its images.

    Args:
        cache: the cache.
        labels_N: (N,) int64, the label of each image by its position in `class_ids`, or -1.
        class_ids, class_names: (C,) of the table's classes.
        matched: images and rows of the table; None where the labels are those of another cache.
    """

    def __init__(
        self,
        cache: TensorCache,
        labels_N: NDArray[np.int64],
        class_ids: list[ClassId],
        class_names: list[str],
        matched: Matched | None = None,
    ) -> None:
        self.verify = cache.verify
        self._open(cache.reader)
        self._relabel(labels_N, class_ids, class_names)
        self.matched = matched

    @property
    def summary(self) -> str:
        """How many images have a label, and of how many classes."""
        return f"labels of {counted(int((self._labels >= 0).sum()), 'image')}, {len(self._class_ids)} classes"

    def _relabel(self, labels_N: NDArray[np.int64], class_ids: list[ClassId], class_names: list[str]) -> None:
        self._labels = labels_N
        self._class_ids = class_ids
        self._class_names = class_names

    @property
    def class_ids(self) -> list[ClassId]:
        """(C,) class ids by label, in the order that folders of these names have."""
        return list(self._class_ids)

    @property
    def class_names(self) -> list[str]:
        """(C,) readable names of those classes that the cache has too; else empty."""
        return list(self._class_names)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"relabelled": (self._labels, self._class_ids, self._class_names)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._relabel(*state["relabelled"])


def relabel(cache: TensorCache, table: LabelTable | None, *, needed: bool = True) -> TensorCache:
    """Return a cache with the labels of a table.

    A row labels each image with the content of the image that it names.

    Args:
        cache: with its own labels.
        table: None leaves them.
        needed: refuse a table that names no image of the cache; else such a cache keeps its labels.

    Raises:
        SourceError: the table names no image, or has no such column.
        TableDamaged: a row cannot be used, or two say different things of an image.
        WorkerDied: the memory is too small for the table.
    """
    if table is None:
        return cache
    matched = labels_of_cache(cache.reader, table.labels, table.content, needed)
    codes_N = matched.codes
    if not (codes_N >= 0).any():
        return cache
    texts = [os.fsencode(text) for text in matched.column.texts]
    folders = class_order([texts[code] for code in np.unique(codes_N[codes_N >= 0]).tolist()])
    label_of = np.array([folders.index(text) if text in folders else -1 for text in [*texts, b""]], np.int64)
    names = dict(zip(cache.reader.class_folders, cache.reader.class_names, strict=True))
    named = [names.get(folder, "") for folder in folders]
    return RelabelledCache(cache, label_of[codes_N], class_ids_of(folders), named, matched)


def label_notes(*caches: TensorCache | None) -> list[str]:
    """Say in lines what does not fit between a table and the caches that it labels: images in no row, unused rows."""
    found = [cache.matched for cache in caches if isinstance(cache, RelabelledCache) and cache.matched]
    notes = [note for matched in found for note in matched.image_notes()]
    if found:
        unused = set.intersection(*(set(matched.without_image.tolist()) for matched in found))
        notes += found[0].row_notes(np.array(sorted(unused), np.int64))
    return notes


def with_labels_of(cache: TensorCache, other: TensorCache) -> TensorCache:
    """Return a cache of the same images, in the same order, with the labels of another."""
    if not isinstance(other, RelabelledCache):
        return cache
    return RelabelledCache(cache, other.labels.numpy(), other.class_ids, other.class_names)


def labelled_rows(cache: TensorCache) -> Tensor | None:
    """Return (M,) int64, the rows that have a label; None where all have one."""
    rows = torch.nonzero(cache.labels >= 0).ravel()
    return None if len(rows) == cache.num_images else rows


def key_class(cache: TensorCache, row: int) -> ClassId:
    """Return the class id that the cache itself has for an image: with the file name, it is the image's key."""
    return cache.reader.class_ids[int(cache.reader.table("labels")[row])]

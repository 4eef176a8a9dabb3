"""Write a cache of features: the tables of an image cache, and rows that a function computes from its rows.

The caller, who knows networks, gives the function.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.build.lock import build_lock
from pipeline.build.output import (
    made_folder,
    open_old_cache,
    refuse_other_content,
    refuse_other_photographs,
    refuse_place,
    storage_errors,
)
from pipeline.build.space import refusing_full_disk
from pipeline.build.staleness import count_shared, damaged_rows
from pipeline.errors import CacheError, OutputError
from pipeline.format import hdf5
from pipeline.format.features import Features
from pipeline.format.fingerprint import features_fingerprint
from pipeline.format.header import IMAGES_OFFSET, TABLE_NAMES, Extent, Header
from pipeline.format.reader import CacheReader, outside_digest, row_hash
from pipeline.format.sharded import Reader
from pipeline.format.tables import failed_table
from pipeline.system import files
from pipeline.system.signals import held_signals
from pipeline.text import counted, show_bytes, show_path, show_rate

ROWS_AT_ONCE = 32

RowsOf = Callable[[int, int], NDArray[np.float32]]


@dataclass(frozen=True)
class FeaturesReport:
    """The result of writing a cache of features.

    Attributes:
        path: the cache.
        features: network, layer and weights that its rows come from.
        cached: number of images.
        why: the reason why an old cache was out of date; empty without one.
        up_to_date: nothing had to be done.
        file_bytes: size of the cache.
        seconds: the time that it took.
    """

    path: Path
    features: Features
    cached: int
    why: str
    up_to_date: bool
    file_bytes: int
    seconds: float

    def __str__(self) -> str:
        """Return two lines, three where a cache was out of date."""
        where = f"{show_path(self.path)}: {counted(self.cached, 'image')}, {show_bytes(self.file_bytes)}"
        lines = [f"was out of date: {self.why}"] if self.why else []
        lines.append(str(self.features))
        if self.up_to_date:
            return "\n".join([*lines, f"{where}, is up to date; nothing was computed ({self.seconds:.2f} s)"])
        rate = show_rate(self.cached, self.seconds)
        return "\n".join([*lines, f"{where}: computed in {self.seconds:.1f} s{rate}"])


def write_features(
    images: Reader,
    path: Path,
    features: Features,
    rows_of: RowsOf,
    *,
    rebuild: bool = False,
    wait: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FeaturesReport:
    """Write a cache of features beside a cache of images, unless it is there and up to date.

    All rows are computed anew where anything has changed. A build that was stopped begins anew.

    Args:
        images: the cache whose tables are copied.
        path: the cache of features, created or replaced by one rename.
        features: describes what the function computes from these images.
        rows_of: (first row, end) -> (end - first, D) float32; at most `ROWS_AT_ONCE` rows at a time.
        rebuild: compute them in any case, and replace any cache that is there.
        wait: wait for another build of this cache.
        progress: called with (images done, images in all).

    Raises:
        OutputError: the cache cannot be created there, or would replace another.
        CacheBusy: another process builds it.
        StorageError, AccessDenied, WorkerDied: the system failed.
    """
    start = time.monotonic()
    refuse_place(path)
    with made_folder(path.parent), storage_errors(path, "features"), build_lock(path, wait):
        old, why = open_old_cache(path, rebuild)
        if old is not None:
            why = _why_stale(old, images, features, rebuild)
        up_to_date = old is not None and not why
        header = old.header if old and up_to_date else _write(images, path, features, rows_of, progress)
    seconds = time.monotonic() - start
    return FeaturesReport(path, features, header.num_images, why, up_to_date, header.file_size, seconds)


def holds_others(path: Path, images: Reader) -> bool:
    """Say whether a cache is there that `write_features` does not replace by features of these images."""
    try:
        _refuse_others(CacheReader(path), images)
    except OutputError:
        return True
    except CacheError:  # none is there, or a damaged one
        return False
    return False


def _refuse_others(old: CacheReader, images: Reader) -> None:
    refuse_other_content(old, "features")
    shared = count_shared(old.table("source_sha256"), images.table("source_sha256"))
    refuse_other_photographs(old.path, shared, old.num_images, "features of ")


def _why_stale(old: CacheReader, images: Reader, features: Features, rebuild: bool) -> str:
    """Return why a cache of features is out of date; empty where it is up to date.

    Raises:
        OutputError: it holds other photographs, or images.
    """
    if rebuild:
        return "a rebuild was asked for"
    _refuse_others(old, images)
    assert old.header.features is not None
    differences = old.header.features.differences(features)
    if old.earlier:
        differences.append("made by an earlier version")
    if damaged := len(damaged_rows(old)):
        differences.append(f"{damaged} damaged")
    return "; ".join(differences)


def _write(
    images: Reader, path: Path, features: Features, rows_of: RowsOf, progress: Callable[[int, int], None] | None
) -> Header:
    building, journal = (path.with_name(path.name + suffix) for suffix in (".building", ".journal"))
    for left in (building, journal):  # of a build that was killed
        files.remove(left)
    extent = Extent("images", "<f4", (features.length,), images.num_images, IMAGES_OFFSET)
    if extent.end - extent.offset < hdf5.SMALLEST_IMAGES:
        why = f"{extent.count} rows of {features.length} numbers are too little for an HDF5 file"
        raise OutputError("the cache cannot be created", path, why, "Cache more images")
    fd = files.create(building)
    try:
        with refusing_full_disk(path, extent.end):
            files.reserve(fd, extent.end)
        tables = {name: np.ascontiguousarray(images.table(name)) for name in TABLE_NAMES}
        tables["failed"] = failed_table(images.failed)  # also of images that an earlier version cached
        tables["row_hash"] = _write_rows(fd, extent, rows_of, progress)
        header = _finish(fd, images, features, extent, tables)
        files.rename(building, path)
        files.sync_folder(path.parent)
        return header
    finally:
        os.close(fd)
        files.remove(building)


def _write_rows(
    fd: int, extent: Extent, rows_of: RowsOf, progress: Callable[[int, int], None] | None
) -> NDArray[np.uint64]:
    hashes = np.empty(extent.count, "<u8")
    for first in range(0, extent.count, ROWS_AT_ONCE):
        end = min(first + ROWS_AT_ONCE, extent.count)
        rows = np.ascontiguousarray(rows_of(first, end), "<f4")
        if rows.shape != (end - first, *extent.row_shape):
            raise ValueError(f"{end - first} rows of {extent.row_shape} were needed, not {rows.shape}")
        files.write_all(fd, rows.view(np.uint8).reshape(-1).data, extent.offset + first * extent.row_bytes)
        hashes[first:end] = [row_hash(row) for row in rows]
        if progress:
            progress(end, extent.count)
    return hashes


def _finish(fd: int, of_images: Reader, features: Features, extent: Extent, tables: dict[str, NDArray[Any]]) -> Header:
    """Write the tables and objects around the rows, and the header last."""
    with held_signals():  # an exception must not pass through the HDF5 library
        extents, size = hdf5.write_objects(fd, extent, tables, hdf5.attributes_of(of_images.recipe, "features"))
    header = Header(
        recipe=of_images.recipe,
        decoder=of_images.decoder,
        fingerprint=features_fingerprint(features),
        content="features",
        shard=None,
        extents=extents,
        file_size=size,
        digest="0" * 32,
        features=features,
    )
    header = replace(header, digest=outside_digest(fd, header))
    files.write_all(fd, header.encode(), 0)
    files.sync(fd)
    return header

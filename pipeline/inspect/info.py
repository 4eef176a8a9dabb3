"""Describe a cache by its header and tables, and tell whether a source still matches it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.build.assess import assess
from pipeline.build.report import failed_lines
from pipeline.build.staleness import sum_up
from pipeline.build.task import Task
from pipeline.format.classes import ClassId, class_table
from pipeline.format.features import Features
from pipeline.format.inspection import Inspection, inspect_images
from pipeline.format.paths import shards_pattern
from pipeline.format.sharded import Paths, ShardedReader, open_reader
from pipeline.format.tables import Failed
from pipeline.inspect.statistics import Sources, describe_sources, pixel_statistics
from pipeline.recipe import RGB, Recipe
from pipeline.source.partition import divide
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.text import counted, show_bytes, show_path

READ_BYTES = 2**28  # rows that `info` reads without being asked: a fraction of a second


def describe_cache(path: Paths, *, mean_std: bool | None = None) -> "CacheInfo":
    """Read header and tables of a cache, or of all its shards.

    Args:
        path: the cache, as `open_reader` takes it.
        mean_std: read all rows too, for mean and standard deviation of their pixels; None: if they have at most
            `READ_BYTES`.

    Returns:
        Its `str` is what `info` prints, its `to_dict()` what `info --json` does. Its fields: `path`, `images`,
        `class_ids`, `class_names` and `counts` (by label), `recipe`, `features`, `decoder` (identity by format),
        `fingerprint`, `file_bytes`, `shards`, `shard`, `failed`, `inspection`; `sources` with the `formats` of the
        image files and their counts, the (height, width) of the `smallest`, `median` and `largest` by pixels, and the
        `narrowest`, `median_ratio` and `widest` of width / height; and `mean_std`, two tuples (R, G, B) on the scale
        0 to 1. `sources` is None for a cache of an earlier version, `mean_std` if the rows were not read, or one of
        them is damaged.

    Raises:
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError, WorkerDied: it cannot be
            opened.
    """
    reader = open_reader(path)
    whole = isinstance(reader, ShardedReader)
    part = reader.shards[0].header.shard if isinstance(reader, ShardedReader) else reader.header.shard
    if mean_std is None:
        mean_std = reader.num_images * reader.recipe.row_bytes <= READ_BYTES
    has_pixels = reader.features is None and reader.num_images > 0
    return CacheInfo(
        path=shards_pattern(reader.path, part.count) if whole and part else reader.path,
        shards=part.count if part else None,
        shard=None if whole or part is None else part.index,
        class_ids=reader.class_ids,
        class_names=reader.class_names,
        counts=np.diff(reader.class_starts).tolist(),
        images=reader.num_images,
        recipe=reader.recipe,
        features=reader.features,
        decoder=reader.decoder,
        fingerprint=reader.fingerprint,
        file_bytes=reader.file_bytes,
        failed=reader.failed,
        inspection=inspect_images(reader),
        sources=describe_sources(reader),
        mean_std=pixel_statistics(reader) if mean_std and has_pixels else None,
    )


def check_source(path: Paths, source: Path, choice: Choice | None = None) -> str:
    """Say why a build of a source would replace a cache, in one line; empty where it would not. Decodes nothing.

    Raises:
        SourceError, AccessDenied, and what `describe_cache` raises.
    """
    reader = open_reader(path)
    manifest = scan_source(source, reader.path, choice)
    caches = reader.shards if isinstance(reader, ShardedReader) else [reader]
    parts = divide(manifest, [cache.header.shard for cache in caches])
    return str(
        sum_up(
            assess(Task(source, choice, part, cache.path, cache.recipe, None, cache.header.shard)).staleness
            for cache, part in zip(caches, parts, strict=True)
        )
    )


@dataclass
class CacheInfo:
    """The description of a cache; see `describe_cache` and `ShardsReport` for the fields.

    `shards` is None for a whole cache. `shard` is the number of a single shard. `mean_std` is of the stored pixels,
    pads included.
    """

    path: Path
    class_ids: list[ClassId]
    class_names: list[str]
    counts: list[int]
    images: int
    recipe: Recipe
    decoder: dict[str, str]
    fingerprint: str
    file_bytes: int
    failed: list[Failed]
    inspection: Inspection
    features: Features | None = None
    shards: int | None = None
    shard: int | None = None
    sources: Sources | None = None
    mean_std: tuple[RGB, RGB] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        names = zip(self.class_ids, self.class_names, self.counts, strict=True)
        return {
            "path": str(self.path),
            "images": self.images,
            "classes": [{"id": class_id, "name": name, "images": count} for class_id, name, count in names],
            "recipe": self.recipe.to_dict(),
            "features": None if self.features is None else self.features.to_dict(),
            "decoder": self.decoder,
            "fingerprint": self.fingerprint,
            "file_bytes": self.file_bytes,
            "shards": self.shards,
            "shard": self.shard,
            "failed": [failed._asdict() for failed in self.failed],
            "inspection": self.inspection.to_dict(),
            "sources": None if self.sources is None else self.sources.to_dict(),
            "pixels": None if self.mean_std is None else dict(zip(("mean", "std"), self.mean_std, strict=True)),
        }

    def __str__(self) -> str:
        recipe = self.recipe
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (recipe.mean, recipe.std))
        files = f" in {self.shards} shards" if self.shards else ""
        if self.shard is not None:
            files = f", shard {self.shard} of {self.shards}"
        lines = [
            f"{show_path(self.path)}: {counted(self.images, 'image')}{files}, {show_bytes(self.file_bytes)}",
            f"recipe: {recipe.size[0]} × {recipe.size[1]} RGB{_preparation(recipe)}, mean {mean}, std {std}, "
            f"stored as {recipe.dtype}",
            *([] if self.sources is None else [f"sources: {self.sources}"]),
            *([] if self.mean_std is None else ["pixels: mean {}, std {}".format(*map(_shown, self.mean_std))]),
            *([] if self.features is None else [f"features: {self.features}", f"of images: {self.features.images}"]),
            f"fingerprint: {self.fingerprint}",
            *class_table(self.class_ids, self.class_names, self.counts),
            *failed_lines(self.failed),
            *self.inspection.lines(),
        ]
        return "\n".join(lines)


def _shown(values: RGB) -> str:
    return " ".join(f"{value:.4f}" for value in values)


def _preparation(recipe: Recipe) -> str:
    """Say how images get their shape, where that is not the default way."""
    color = "the edge" if recipe.pad_color == "edge" else " ".join(map(str, recipe.pad_color or ()))
    parts = [
        f"shorter side to {recipe.resize_to}, center kept" if recipe.fit == "crop" else "",
        f"padded with {color}" if recipe.fit == "pad" else "",
        f"{recipe.interpolation} filter" if recipe.interpolation != "bilinear" else "",
        f"over {' '.join(map(str, recipe.background))}" if recipe.background else "",
        "turned as EXIF says" if recipe.exif_rotate else "",
        "large JPEGs decoded at a part of their size" if recipe.scaled_decode else "",
    ]
    return "".join(f", {part}" for part in parts if part)

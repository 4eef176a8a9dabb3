"""What a finished cache says of itself, from its header and tables alone, and whether a source still matches it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.build import freshness, stat_cache
from pipeline.build.image_table import Ledger
from pipeline.build.report import failed_lines
from pipeline.decode.decode import decoder_identity
from pipeline.format.classes import ClassId, class_table
from pipeline.format.features import Features
from pipeline.format.paths import shown_set
from pipeline.format.sharded import Paths, StoredSet, open_stored
from pipeline.format.suspects import Look, look_at
from pipeline.format.tables import Failed
from pipeline.recipe import Recipe
from pipeline.source.partition import divide
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.text import show_bytes, show_path


def describe_cache(path: Paths) -> "CacheInfo":
    """Read header and tables of a cache, or of all shards of a set.

    Raises:
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError: it cannot be opened.
    """
    stored = open_stored(path)
    whole = isinstance(stored, StoredSet)
    part = stored.shards[0].header.shard if isinstance(stored, StoredSet) else stored.header.shard
    return CacheInfo(
        path=shown_set(stored.path, part.count) if whole and part else stored.path,
        shards=part.count if part else None,
        shard=None if whole or part is None else part.index,
        class_ids=stored.class_ids,
        class_names=stored.class_names,
        counts=np.diff(stored.class_starts).tolist(),
        images=stored.num_images,
        recipe=stored.recipe,
        features=stored.features,
        decoder=stored.decoder,
        fingerprint=stored.fingerprint,
        file_bytes=stored.file_bytes,
        failed=stored.failed,
        look=look_at(stored),
    )


def check_source(path: Paths, source: Path, choice: Choice | None = None) -> str:
    """Say how a source differs from a cache or set, in one line; empty where it matches. Decodes nothing.

    Raises:
        SourceError, AccessDenied, and what `describe_cache` raises.
    """
    stored = open_stored(path)
    manifest = scan_source(source, stored.path, choice)
    caches = stored.shards if isinstance(stored, StoredSet) else [stored]
    verdicts = [
        freshness.compare(
            Ledger(part),
            cache,
            cache.recipe,
            decoder_identity(),
            stat_cache.read_stats(cache),
        )
        for cache, part in zip(caches, divide(manifest, [cache.header.shard for cache in caches]), strict=True)
    ]
    return str(freshness.sum_up(verdicts))


@dataclass
class CacheInfo:
    """What a cache says of itself; see `SetReport` for the fields.

    `shards` is None of a cache that is whole; `shard` is the number of a shard that is looked at alone.
    """

    path: Path
    class_ids: list[ClassId]
    class_names: list[str]
    counts: list[int]
    images: int
    recipe: Recipe
    decoder: str
    fingerprint: str
    file_bytes: int
    failed: list[Failed]
    look: Look
    features: Features | None = None
    shards: int | None = None
    shard: int | None = None

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
            "look": asdict(self.look),
        }

    def __str__(self) -> str:
        recipe = self.recipe
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (recipe.mean, recipe.std))
        files = f" in {self.shards} shards" if self.shards else ""
        if self.shard is not None:
            files = f", shard {self.shard} of {self.shards}"
        lines = [
            f"{show_path(self.path)}: {self.images} images{files}, {show_bytes(self.file_bytes)}",
            f"recipe: {recipe.size} × {recipe.size} RGB, mean {mean}, std {std}, stored as {recipe.dtype}"
            + (", turned as EXIF says" if recipe.exif_rotate else "")
            + (", large JPEGs decoded at a part of their size" if recipe.scaled_decode else ""),
            *([] if self.features is None else [f"features: {self.features}", f"of images: {self.features.images}"]),
            f"fingerprint: {self.fingerprint}",
            *class_table(self.class_ids, self.class_names, self.counts),
            *failed_lines(self.failed),
            *self.look.lines(),
        ]
        return "\n".join(lines)

"""What a finished cache says of itself, from its header and tables alone, and whether a source still matches it."""

from pathlib import Path

import numpy as np

from pipeline import freshness, stat_file
from pipeline.classes import Choice
from pipeline.decode import decoder_identity
from pipeline.ledger import Ledger
from pipeline.report import CacheInfo, Look, image_name
from pipeline.scan import scan_source
from pipeline.shard_names import shown_set
from pipeline.shards import divide
from pipeline.similar import exact_groups
from pipeline.stored_set import Paths, Stored, StoredSet, open_stored


def describe_cache(path: Paths) -> CacheInfo:
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


def look_at(stored: Stored) -> Look:
    """Find what is worth a look: the same content twice, near duplicates, tiny and blank images."""

    def name(row: int) -> str:
        return image_name(stored.class_folders[int(stored.table("labels")[row])], stored.table("filenames")[row])

    return Look(
        same_content=[[name(row) for row in group] for group in exact_groups(stored.table("source_sha256"))],
        nearly_alike=[(name(a), name(b)) for a, b in stored.table("alike").tolist()],
        remarks=[(name(row), remark) for row, remark in stored.remarks],
    )


def check_source(path: Paths, source: Path, choice: Choice | None = None) -> str:
    """Say how a source differs from a cache or set, in one line; empty where it matches. Decodes nothing.

    Raises:
        SourceError, AccessDenied, and what `describe_cache` raises.
    """
    stored = open_stored(path)
    scan = scan_source(source, stored.path, choice)
    caches = stored.shards if isinstance(stored, StoredSet) else [stored]
    verdicts = [
        freshness.compare(
            Ledger(part),
            cache,
            cache.recipe,
            decoder_identity(),
            stat_file.read_stats(cache),
        )
        for cache, part in zip(caches, divide(scan, [cache.header.shard for cache in caches]), strict=True)
    ]
    return str(freshness.sum_up(verdicts))

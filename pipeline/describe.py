"""What a finished cache says of itself, from its header and tables alone, and whether a source still matches it."""

from pathlib import Path

import numpy as np

from pipeline import freshness
from pipeline.classes import Choice
from pipeline.decode import decoder_identity
from pipeline.ledger import Ledger
from pipeline.report import CacheInfo, Look, image_name
from pipeline.scan import scan_source
from pipeline.similar import exact_groups
from pipeline.stored import StoredCache


def describe_cache(path: Path) -> CacheInfo:
    """Read header and tables of a cache.

    Raises:
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError: it cannot be opened.
    """
    stored = StoredCache(path)
    return CacheInfo(
        path=path,
        class_ids=stored.class_ids,
        class_names=stored.class_names,
        counts=np.diff(stored.class_starts).tolist(),
        images=stored.num_images,
        recipe=stored.header.recipe,
        features=stored.header.features,
        decoder=stored.header.decoder,
        fingerprint=stored.header.fingerprint,
        file_bytes=stored.header.file_size,
        failed=stored.failed,
        look=look_at(stored),
    )


def look_at(stored: StoredCache) -> Look:
    """Find what is worth a look: the same content twice, near duplicates, tiny and blank images."""

    def name(row: int) -> str:
        return image_name(stored.class_folders[int(stored.table("labels")[row])], stored.table("filenames")[row])

    return Look(
        same_content=[[name(row) for row in group] for group in exact_groups(stored.table("source_sha256"))],
        nearly_alike=[(name(a), name(b)) for a, b in stored.table("alike").tolist()],
        remarks=[(name(row), remark) for row, remark in stored.remarks],
    )


def check_source(path: Path, source: Path, choice: Choice | None = None) -> str:
    """Say how a source differs from a cache, in one line; empty where it matches. Decodes nothing.

    Raises:
        SourceError, AccessDenied, and what `describe_cache` raises.
    """
    stored = StoredCache(path)
    ledger = Ledger(scan_source(source, path, choice))
    stats = freshness.read_stats(stored)
    return str(freshness.compare(ledger, stored, stored.header.recipe, decoder_identity(), stats))

"""Divide the images of a source among the shards of a cache.

The shard of an image follows from its class and name alone. So a source that grows moves no image to another shard.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import xxhash

from pipeline.format.header import MOST_SHARDS, Shard
from pipeline.source.manifest import Manifest


def shard_of(folder: bytes, name: bytes, count: int) -> int:
    """Return the shard of an image: xxh3-64 of "class/name", modulo the number of shards."""
    return xxhash.xxh3_64_intdigest(b"%b/%b" % (folder, name)) % count


class Partition:
    """A manifest divided among the shards of a set.

    Args:
        manifest: of the whole source.
        count: of shards.
    """

    def __init__(self, manifest: Manifest, count: int) -> None:
        self.manifest = manifest
        self.count = count
        folders = [manifest.class_folders[label] for label in manifest.labels.tolist()]
        self._shards = np.fromiter(
            (shard_of(folder, name, count) for folder, name in zip(folders, manifest.names, strict=True)),
            np.int32,
            len(folders),
        )
        self._shards_of_failed = [
            shard_of(os.fsencode(str(f.class_id)), os.fsencode(f.name), count) for f in manifest.failed
        ]

    def sizes(self) -> list[int]:
        """Count the images of each shard."""
        return list(map(int, np.bincount(self._shards, minlength=self.count)))

    def shard(self, index: int) -> Manifest:
        """Return the manifest of the images of one shard, in order, with all classes.

        Files left out and warnings stay with the manifest of the whole source.
        """
        manifest = self.manifest
        rows = np.flatnonzero(self._shards == index)
        return replace(
            manifest,
            labels=manifest.labels[rows],
            names=manifest.names.take(rows),
            paths=manifest.paths.take(rows) if manifest.paths else manifest.paths,
            stats=manifest.stats[rows],
            members=manifest.members[rows] if len(manifest.members) else manifest.members,
            failed=[f for f, shard in zip(manifest.failed, self._shards_of_failed, strict=True) if shard == index],
            left_out=Counter(),
            left_out_named=[],
            warnings=[],
        )


def divide(manifest: Manifest, shards: Sequence[Shard | None]) -> Iterator[Manifest]:
    """Yield the manifest of each shard's images; the whole manifest for None, a whole cache."""
    partition = None
    for shard in shards:
        if shard is None:
            yield manifest
        else:
            partition = partition or Partition(manifest, shard.count)
            yield partition.shard(shard.index)


def shards_for(images: int, rows_per_shard: int) -> int:
    """Return the number of shards that gives about this many images to each."""
    return min(MOST_SHARDS, max(1, -(-images // rows_per_shard)))

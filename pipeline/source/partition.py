"""A cache in several files: which image belongs to which, and what makes them one set.

An image's shard follows from its class and name alone, so a set that grows moves no image from one file to another.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import xxhash

from pipeline.format.header import MOST_SHARDS, Shard
from pipeline.source.manifest import Scan


def place_of(folder: bytes, name: bytes, count: int) -> int:
    """Return the shard that an image belongs to: xxh3-64 of "class/name", modulo the number of shards."""
    return xxhash.xxh3_64_intdigest(b"%b/%b" % (folder, name)) % count


class Parts:
    """A scan divided among the shards of a set.

    Args:
        scan: of the whole source.
        count: of shards.
    """

    def __init__(self, scan: Scan, count: int) -> None:
        self.scan = scan
        self.count = count
        folders = [scan.class_folders[label] for label in scan.labels.tolist()]
        self._places = np.fromiter(
            (place_of(folder, name, count) for folder, name in zip(folders, scan.names, strict=True)),
            np.int32,
            len(folders),
        )
        self._failed = [place_of(os.fsencode(str(f.class_id)), os.fsencode(f.name), count) for f in scan.failed]

    def sizes(self) -> list[int]:
        """Count the candidates of each shard."""
        return list(map(int, np.bincount(self._places, minlength=self.count)))

    def part(self, index: int) -> Scan:
        """Return a scan of the candidates of one shard, in order, with all classes.

        What was left out of the source, and what a person should know of it, stays with the whole.
        """
        scan = self.scan
        rows = np.flatnonzero(self._places == index)
        return replace(
            scan,
            labels=scan.labels[rows],
            names=scan.names.take(rows),
            stats=scan.stats[rows],
            members=scan.members[rows] if len(scan.members) else scan.members,
            failed=[f for f, place in zip(scan.failed, self._failed, strict=True) if place == index],
            left_out=Counter(),
            left_out_named=[],
            warnings=[],
        )


def divide(scan: Scan, shards: Sequence[Shard | None]) -> Iterator[Scan]:
    """Yield what of a source belongs into each of some files of one set; all of it into a whole cache."""
    parts = None
    for shard in shards:
        if shard is None:
            yield scan
        else:
            parts = parts or Parts(scan, shard.count)
            yield parts.part(shard.index)


def shards_for(images: int, rows_per_shard: int) -> int:
    """Return how many shards give about so many images each."""
    return min(MOST_SHARDS, max(1, -(-images // rows_per_shard)))

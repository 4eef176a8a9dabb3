"""Compute the digests that identify a cache and its shards."""

import hashlib
import json
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.format.header import VERSION
from pipeline.format.tables import byte_table
from pipeline.recipe import Recipe


def fingerprint(recipe: Recipe, decoder: str, tables: dict[str, NDArray[Any]]) -> str:
    """Digest all that decides the bytes of a cache: names, contents, classes, failures, recipe, decoder, version.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([VERSION, decoder, recipe.to_dict()], sort_keys=True).encode())
    for name in ("classes", "class_names", "filenames", "labels", "source_sha256", "failed"):
        table = np.ascontiguousarray(tables[name])
        digest.update(struct.pack("<QQ", len(table), table.itemsize))
        digest.update(table.view(np.uint8).data)
    return digest.hexdigest()


def shards_id(recipe: Recipe, decoder: str, folders: Sequence[bytes], names: Sequence[str], count: int) -> str:
    """Digest what all shards of a cache share: recipe, decoder, classes, number of shards; not their images.

    So images can be added shard by shard, and shards from many machines belong together.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([VERSION, decoder, recipe.to_dict(), count], sort_keys=True).encode())
    for table in (byte_table(folders), byte_table([name.encode() for name in names])):
        digest.update(struct.pack("<QQ", len(table), table.itemsize))
        digest.update(table.tobytes())
    return digest.hexdigest()[:32]

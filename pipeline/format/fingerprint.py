"""Compute the digests that identify a cache and its shards."""

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.format.features import Features
from pipeline.format.header import VERSION
from pipeline.format.tables import Failed, byte_table, earlier_failed_table
from pipeline.recipe import Recipe

COVERED_TABLES = ("classes", "class_names", "filenames", "labels", "source_sha256", "failed")  # by the fingerprint


def fingerprint(recipe: Recipe, decoder: dict[str, str], tables: Mapping[str, NDArray[Any]]) -> str:
    """Digest all that decides the bytes of a cache: names, contents, classes, failures, recipe, decoders, version.

    Returns:
        64 hexadecimal digits.
    """
    return _digest([VERSION, decoder, recipe.to_dict()], tables)


def features_fingerprint(features: Features) -> str:
    """Digest all that decides features: network, weights, and the fingerprint of the images."""
    values = ["features", VERSION, features.to_dict()]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def earlier_fingerprint(
    recipe: Recipe,
    decoder: dict[str, str],
    tables: Mapping[str, NDArray[Any]],
    failed: Sequence[Failed],
    features: Features | None = None,
) -> str:
    """Return the fingerprint that the state of format 1 before this one gave to the same rows.

    Runs of that state name their caches by it.

    Returns:
        64 hexadecimal digits; empty where this installation decodes to other pixels than the cache's.
    """
    earlier_decoder = decoder.get("") or _earlier_decoder(decoder)
    if not earlier_decoder:
        return ""
    tables = {name: tables[name] for name in COVERED_TABLES[:-1]} | {"failed": earlier_failed_table(failed)}
    images = _digest([VERSION, earlier_decoder, recipe.to_earlier_dict()], tables)
    return images if features is None else features_fingerprint(replace(features, images=images))


def _earlier_decoder(decoder: dict[str, str]) -> str:
    """Return the identity that an earlier version gave to the decoders of a cache, if they are those that are here."""
    from pipeline.decode.decode import decoder_identity, earlier_decoder_identity  # needs Pillow, as readers do not

    same = all(decoder_identity(name) == decoder[name] for name in ("JPEG", "PNG") if name in decoder)
    return earlier_decoder_identity() if same else ""


def _digest(values: list[Any], tables: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in COVERED_TABLES:
        table = np.ascontiguousarray(tables[name])
        digest.update(struct.pack("<QQ", len(table), table.itemsize))
        digest.update(table.view(np.uint8).data)
    return digest.hexdigest()


def shards_id(recipe: Recipe, folders: Sequence[bytes], names: Sequence[str], count: int) -> str:
    """Digest what all shards of a cache share: recipe, classes, number of shards; not their images, nor their formats.

    So images can be added shard by shard, and shards from many machines belong together.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps([VERSION, recipe.to_dict(), count], sort_keys=True).encode())
    for table in (byte_table(folders), byte_table([name.encode() for name in names])):
        digest.update(struct.pack("<QQ", len(table), table.itemsize))
        digest.update(table.tobytes())
    return digest.hexdigest()[:32]

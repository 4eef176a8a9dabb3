"""Rewrite caches and unfinished builds as the state of format 1 before formats had their own decoders left them."""

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from pipeline.decode.decode import earlier_decoder_identity
from pipeline.format import hdf5
from pipeline.format.header import IMAGES_OFFSET, LATER_TABLES, TABLE_NAMES
from pipeline.format.reader import CacheReader
from pipeline.format.tables import byte_table, earlier_failed_table
from pipeline.recipe import Recipe


def make_earlier(path: Path, passing: bool = False) -> None:
    """Rewrite a cache of JPEGs and PNGs; its rows stay as they are.

    Args:
        path: the cache.
        passing: as an even earlier version did, which called `transient` failures so.
    """
    reader = CacheReader(path)
    tables = {name: np.array(reader.table(name)) for name in TABLE_NAMES if name not in LATER_TABLES}
    failed = earlier_failed_table(reader.failed)
    if passing:
        failed = byte_table([entry.replace(b'"transient":', b'"passing":') for entry in failed.tolist()])
    tables["failed"] = failed
    recipe, decoder = reader.recipe.to_earlier_dict(), earlier_decoder_identity()
    images, old = reader.header.extents["images"], path.with_name(path.name + ".earlier")
    fd = os.open(old, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    os.pwrite(fd, path.read_bytes()[IMAGES_OFFSET : images.end], IMAGES_OFFSET)
    extents, size = hdf5.write_objects(fd, images, tables, {})
    shard = reader.header.shard
    header = {
        "content": "images",
        "datasets": [extent.to_dict() for extent in extents.values()],
        "decoder": decoder,
        "digest": "0" * 32,
        "file_size": size,
        "fingerprint": reader.earlier_fingerprint,
        "recipe": recipe,
        "shard": None if shard is None else shard.to_dict(),
    }
    data = old.read_bytes()
    outside = data[len(_encoded(header)) : IMAGES_OFFSET] + data[images.end :]
    os.pwrite(fd, _encoded(header | {"digest": xxhash.xxh3_128_hexdigest(outside)}), 0)
    os.close(fd)
    old.rename(path)


LATER_KEYS = ("format", "source_size", "decoder", "box")


def make_earlier_build(path: Path) -> None:
    """Rewrite the journal of an unfinished build of a cache."""
    journal = path.with_name(path.name + ".journal")
    begun, *entries = (json.loads(line.partition(b" ")[2]) for line in journal.read_bytes().splitlines() if line)
    recipe = Recipe.from_dict(begun["recipe"]).to_earlier_dict()
    lines = [begun | {"recipe": recipe, "decoder": earlier_decoder_identity()}]
    lines += [{k: v for k, v in entry.items() if k not in LATER_KEYS} for entry in entries]
    texts = [json.dumps(line, separators=(",", ":")).encode() for line in lines]
    journal.write_bytes(b"".join(xxhash.xxh3_64_hexdigest(text).encode() + b" " + text + b"\n" for text in texts))


def _encoded(header: dict[str, Any]) -> bytes:
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    start = struct.pack("<8sII", b"\x93MNCACHE", 1, len(text)) + text
    return start + xxhash.xxh3_128_digest(start)

"""Write a header into a cache as somebody would who means harm."""

import json
import struct
from typing import Any

import numpy as np
import xxhash

from pipeline.format import header as layout


def seal(data: bytearray, values: Any) -> None:
    """Write a header, and make digest and checksum fit as far as it lets us."""
    for _ in range(2):
        text = json.dumps(values, sort_keys=True, separators=(",", ":")).encode()[:4000]
        start = layout.MAGIC + struct.pack("<II", layout.VERSION, len(text)) + text
        start += xxhash.xxh3_128_digest(start)
        data[:4096] = start.ljust(4096, b"\0")[:4096]
        try:
            images = values["datasets"][0]
            end = images["offset"] + int(np.prod(images["shape"])) * np.dtype(images["dtype"]).itemsize
            rest = bytes(data[len(start) : images["offset"]]) + bytes(data[end:])
            values["digest"] = xxhash.xxh3_128_hexdigest(rest)
        except Exception:  # what is no header has no digest
            return

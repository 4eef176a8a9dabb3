"""Write TIFFs by hand, for what Pillow does not write."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEFLATE = 8
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES, _ROWS = 256, 257, 258, 259, 262, 277, 278
_STRIPS, _STRIP_BYTES, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_BYTES = 273, 279, 322, 323, 324, 325


def tiff(
    pixels_HWC: NDArray[Any], tile: int = 0, deflate: bool = False, big: bool = False, **tags: int | list[int]
) -> bytes:
    """Write one page, in strips of 8 rows or in square tiles.

    Args:
        pixels_HWC: (H, W, channels), any numbers; one or three channels are grey or RGB.
        tile: the side of a tile, a multiple of 16; 0 for strips.
        deflate: pack strips or tiles with zlib.
        big: a BigTIFF, with places of 8 bytes.
        tags: other values, as `t262=5` or `t338=[0, 0]`.
    """
    height, width, channels = pixels_HWC.shape
    side = (tile, tile) if tile else (8, width)
    padded = np.zeros((-(-height // side[0]) * side[0], -(-width // side[1]) * side[1], channels), pixels_HWC.dtype)
    padded[:height, :width] = pixels_HWC
    if not tile:
        padded = padded[:height]
    parts = [
        padded[y : y + side[0], x : x + side[1]].tobytes()
        for y in range(0, height, side[0])
        for x in range(0, width, side[1])
    ]
    parts = [zlib.compress(part) for part in parts] if deflate else parts
    start = 16 if big else 8
    places = [start + sum(map(len, parts[:i])) for i in range(len(parts))]
    values: dict[int, list[int]] = {
        _WIDTH: [width],
        _HEIGHT: [height],
        _BITS: [pixels_HWC.itemsize * 8] * channels,
        _COMPRESSION: [DEFLATE if deflate else 1],
        _PHOTOMETRIC: [2 if channels >= 3 else 1],
        _SAMPLES: [channels],
        (_TILES if tile else _STRIPS): places,
        (_TILE_BYTES if tile else _STRIP_BYTES): [len(part) for part in parts],
        **({_TILE_WIDTH: [tile], _TILE_HEIGHT: [tile]} if tile else {_ROWS: [8]}),
        **{int(name[1:]): [value] if isinstance(value, int) else value for name, value in tags.items()},
    }
    return _joined(values, b"".join(parts), big)


def _joined(values: dict[int, list[int]], pixels: bytes, big: bool) -> bytes:
    number, place_bytes, start = ("Q", 8, 16) if big else ("I", 4, 8)
    directory = start + len(pixels)
    beyond = directory + (8 if big else 2) + len(values) * (20 if big else 12) + place_bytes
    entries, arrays = b"", b""
    for tag, numbers in sorted(values.items()):
        kind, letter = (3, "H") if max(numbers) < 65536 else (4, "I")
        packed = struct.pack(f"<{len(numbers)}{letter}", *numbers)
        if len(packed) > place_bytes:
            place = struct.pack(f"<{number}", beyond + len(arrays))
            arrays += packed
        else:
            place = packed.ljust(place_bytes, b"\0")
        entries += struct.pack(f"<HH{number}", tag, kind, len(numbers)) + place
    head = b"II+\0\x08\0\0\0" + struct.pack("<Q", directory) if big else b"II*\0" + struct.pack("<I", directory)
    count = struct.pack("<Q" if big else "<H", len(values))
    return head + pixels + count + entries + bytes(place_bytes) + arrays

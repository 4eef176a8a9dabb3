"""Keep `<cache>.stat`: stat data of the sources and of the cache, so that the next build need not read them.

It counts only while the cache is the same file, by inode, size and times. If it is lost, damaged or belongs to another
cache, nothing is wrong: every file and every row is read.
"""

import os
import struct
import time
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.format.header import Header
from pipeline.format.reader import CacheReader
from pipeline.source.reader import Stat, stat_of
from pipeline.system import files

_MAGIC = b"MNSTAT2\n"
_TICK_NS = 10**7  # Linux stamps files in steps of up to 10 ms


def write_stats(path: Path, header: Header, *stats: NDArray[np.int64]) -> None:
    """Write the stat data of the sources and of the cache itself.

    Args:
        path: the cache.
        header: of the cache.
        stats: (N, 4) size, mtime, ctime and inode (`Stat`) of each row's file, and (F, 4) of each failed one.
    """
    _let_the_clock_tick(path)
    parts: list[bytes | memoryview] = [
        _start(path, header),
        *(np.ascontiguousarray(part, "<i8").data for part in stats),
    ]
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part)
    parts.append(digest.digest())
    digest.update(parts[-1])
    place = _place(path)
    if xxhash.xxh3_128_digest(_read(path) or b"") != digest.digest():
        files.publish(b"".join(parts), place)
    else:
        files.remove(place.with_name(place.name + ".new"))


def read_stats(cache: CacheReader) -> NDArray[np.int64] | None:
    """Return the values that `write_stats` wrote for this file; None if the file has changed since."""
    data = _read(cache.path)
    if data is None:
        return None
    body, checksum = memoryview(data)[:-16], data[-16:]
    start = _start(cache.path, cache.header)
    count, width = cache.num_images + cache.header.extents["failed"].count, len(Stat._fields)
    if (
        xxhash.xxh3_128_digest(body) != checksum
        or body[: len(start)] != start
        or len(body) != len(start) + 8 * width * count
    ):
        return None
    return np.frombuffer(body, "<i8", offset=len(start)).reshape(count, width)


def distrust(path: Path) -> None:
    """Make the next build of a cache check every row and read every file."""
    files.remove(_place(path))


def _read(path: Path) -> bytes | None:
    try:
        with os.fdopen(files.open_for_reading(_place(path)), "rb") as file:
            return file.read()
    except OSError:
        return None


def _place(path: Path) -> Path:
    return path.with_name(path.name + ".stat")


def _start(path: Path, header: Header) -> bytes:
    now = stat_of(path.stat())
    return _MAGIC + bytes.fromhex(header.fingerprint) + struct.pack("<4q", now.inode, *now[:3])


def _let_the_clock_tick(path: Path) -> None:
    """Wait, 10 ms at most, until a change of the file would show in its time stamps."""
    age = time.time_ns() - path.stat().st_ctime_ns
    if 0 <= age < _TICK_NS:
        time.sleep((_TICK_NS - age) / 1e9)

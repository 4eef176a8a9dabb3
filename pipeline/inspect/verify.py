"""Verify a finished cache: its rows, its tables, and the view of the HDF5 library."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from pipeline.build import stat_cache
from pipeline.errors import WorkerDied
from pipeline.format import hdf5
from pipeline.format.checks import reading_errors
from pipeline.format.header import advice_for_rows
from pipeline.format.reader import CacheReader
from pipeline.format.sharded import Paths, open_reader
from pipeline.system import files
from pipeline.text import show_path

_CPU_SECONDS, _BYTES = 60, 4 * 10**9  # a library that needs more runs wild in a damaged file
_WALL_SECONDS = 600  # and one that waits longer has a slow disk
_START = """
import json, resource, sys
sys.path.insert(0, sys.argv[2])
import h5py
from pipeline.format.hdf5 import describe
for kind, most in ((resource.RLIMIT_CPU, int(sys.argv[3])), (resource.RLIMIT_DATA, int(sys.argv[4]))):
    hard = resource.getrlimit(kind)[1]  # nobody but root may raise it
    resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
print("started", flush=True)
"""
_ASK = "print(json.dumps(describe(sys.argv[1])))"


class Damage(NamedTuple):
    """A fault of a cache: `row` is a row of its file, or -1; `advice` is what to do."""

    row: int
    what: str
    advice: str

    def __str__(self) -> str:
        return self.what


def verify_cache(path: Paths, progress: Callable[[int, int], None] | None = None) -> Iterator[Damage]:
    """Read a whole cache, or all its shards, and yield its faults, row by row.

    Rows are read with `pread`, so a failing disk is an ordinary error here. After a fault, the next `build_cache`
    checks every row and rebuilds the damaged ones; `build-features` computes all rows anew.

    Args:
        path: the cache, as `open_reader` takes it.
        progress: called with (rows checked, rows in all).

    Raises:
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError: header or tables cannot be believed.
        AccessDenied: it may not be read.
        StorageError: the disk failed.
        WorkerDied: the system refused a resource, or the HDF5 library could not be asked for its view of the file.
    """
    reader = open_reader(path)
    if isinstance(reader, CacheReader):
        yield from _verify_file(reader, progress, 0, reader.num_images)
        return
    before = 0
    for shard in reader.shards:
        for damage in _verify_file(shard, progress, before, reader.num_images):
            yield damage._replace(what=f"{show_path(shard.path)}: {damage.what}")
        before += shard.num_images


def _verify_file(
    reader: CacheReader, progress: Callable[[int, int], None] | None, before: int, total: int
) -> Iterator[Damage]:
    images, hashes = reader.header.extents["images"], reader.table("row_hash")
    damaged = False
    try:
        for row in range(images.count):
            with reading_errors(reader.path):
                data = files.read_at(reader.fd, images.row_bytes, images.offset + row * images.row_bytes)
            if xxhash.xxh3_64_intdigest(data) != hashes[row]:
                damaged = True
                what = f"{reader.describe(row)} is not as it was written"
                yield Damage(row, what, advice_for_rows(reader.header.content))
            if progress:
                progress(before + row + 1, total)
        for difference in _hdf5_view_differs(reader):
            damaged = True
            yield Damage(-1, difference, f"Run {reader.header.command} --rebuild")
    finally:  # also if the caller stops early
        if damaged:
            with suppress(OSError):  # a read-only disk cannot be rebuilt either
                stat_cache.distrust(reader.path)


def _hdf5_view_differs(reader: CacheReader) -> list[str]:
    """Compare the HDF5 library's view of the file with the header.

    Raises:
        WorkerDied: the library could not be asked.
    """
    asked = _ask_hdf5(reader)
    if asked.returncode:
        return [f"the HDF5 library cannot read it: {_last_words(asked)}"]
    view, header = json.loads(asked.stdout), reader.header
    expected: dict[str, dict[str, Any]] = {
        name: {"dtype": extent.dtype, "shape": list(extent.stored_shape), "offset": extent.offset, "attributes": {}}
        for name, extent in header.extents.items()
    }
    if header.earlier is None:
        attributes = hdf5.attributes_of(header.recipe, header.content).items()
        expected["images"]["attributes"] = {name: hdf5.plain_attribute(value) for name, value in attributes}
    return [
        f"the HDF5 library sees {name} as {view.get(name)}, the header as {expected.get(name)}"
        for name in sorted(view.keys() | expected.keys())
        if view.get(name) != expected.get(name)
    ]


def _ask_hdf5(reader: CacheReader) -> "subprocess.CompletedProcess[str]":
    """Ask the HDF5 library for its view of the file, in a process that may hang or crash.

    Returns:
        The process that has ended; with 0, its output is the view in JSON.

    Raises:
        WorkerDied: it could not be started, did not get as far as asking, or has waited too long for the disk.
    """
    what, root = "the cache cannot be checked by the HDF5 library", str(Path(__file__).parents[2])
    arguments = [f"/dev/fd/{reader.fd}", root, str(_CPU_SECONDS), str(_BYTES)]
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _START + _ASK, *arguments],
            pass_fds=[reader.fd],
            cwd=root,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_WALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise WorkerDied(what, reader.path, f"it has not answered within {_WALL_SECONDS} s") from error
    except OSError as error:
        raise WorkerDied(what, reader.path, error.strerror or str(error)) from error
    started, _, asked.stdout = asked.stdout.partition("\n")
    if started != "started":
        raise WorkerDied(what, reader.path, _last_words(asked))
    return asked


def _last_words(ended: "subprocess.CompletedProcess[str]") -> str:
    """Return why a process failed: the last line that it wrote, or the signal that ended it."""
    if ended.returncode < 0:
        return f"it was ended by {signal.Signals(-ended.returncode).name}"
    return (ended.stderr.strip().splitlines() or [f"it ended with {ended.returncode}"])[-1]

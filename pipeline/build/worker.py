"""Fill rows: read, decode and write single images, or copy their rows from an old cache.

Any `concurrent.futures.Executor` can run `fill_rows`; all that it needs is in its arguments.
"""

import errno
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.decode.decode import decode, read_kind
from pipeline.decode.faults import Undecodable
from pipeline.format.header import IMAGES_OFFSET
from pipeline.format.reader import CacheReader, row_hash
from pipeline.recipe import Recipe, pixels_to_row, row_to_pixels
from pipeline.source.reader import Damaged, Location, Stat, read_image
from pipeline.system import files
from pipeline.system.processes import BYTES_AN_IMAGE, SECONDS_AN_IMAGE, signal_limit


class Item(NamedTuple):
    """An image to be cached: its location and its row.

    `source_sha256` is empty if the content is not known. If it is known, a row can be copied without reading the file.
    """

    row: int
    location: Location
    source_sha256: bytes = b""


class Result(NamedTuple):
    """The result of one image; `how` is "decoded", "copied", "failed" (for good) or "transient" (a failure)."""

    row: int
    how: str
    source_sha256: bytes = b""
    stat: Stat | None = None
    row_hash: int = 0
    image_hash: int = 0
    notes: tuple[str, ...] = ()
    reason: str = ""
    format: str = ""
    source_size: tuple[int, int] = (0, 0)
    box: tuple[int, ...] = ()


class DonorCache(NamedTuple):
    """An old cache whose rows can be copied or derived, but for those of formats that are decoded otherwise now."""

    path: Path
    fingerprint: str
    other_formats: frozenset[str] = frozenset()


class Kept(NamedTuple):
    """A row of an old cache, as the new one stores it. Earlier versions did not store format and size of the file."""

    row: NDArray[Any]
    notes: tuple[str, ...]
    image_hash: int
    format: str
    source_size: tuple[int, int]
    box: tuple[int, ...] = ()


@dataclass(frozen=True)
class Job:
    """The options that all images of one build share.

    Attributes:
        output: the file that rows are written into.
        recipe: how an image becomes a row.
        donor: the old cache whose rows are copied; or None.
    """

    output: Path
    recipe: Recipe
    donor: DonorCache | None = None


def fill_rows(job: Job, items: Sequence[Item]) -> list[Result]:
    """Read, decode and write the rows of `items`.

    Raises:
        OSError: the rows could not be written, or the system is out of file handles; a file that cannot be *read* is
            a failure of that image.
    """
    donor = None if job.donor is None else _donor(job.donor)
    fd = files.open_for_writing(job.output)
    try:
        results = []
        for item in items:
            signal_limit(SECONDS_AN_IMAGE)
            results.append(_fill_row(job, fd, donor, item))
        return results
    finally:
        signal_limit(0)
        os.close(fd)


def _fill_row(job: Job, fd: int, donor: "Donor | None", item: Item) -> Result:
    sha256, found, how = item.source_sha256, None, "copied"
    known = donor.find(sha256, job.recipe) if donor and sha256 else None
    if known is None or not known.format:
        try:
            data, found = read_image(item.location)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
                raise
            return Result(item.row, "transient", reason=_why(error))
        except MemoryError:
            return Result(item.row, "transient", reason="no memory to read it")
        except Damaged as damaged:
            sha256 = hashlib.sha256(damaged.stored).digest()
            return Result(item.row, "failed", sha256, damaged.found, reason=damaged.reason)
        sha256 = hashlib.sha256(data).digest()
        if donor and sha256 != item.source_sha256:
            known = donor.find(sha256, job.recipe)
        if known and not known.format:
            known = _with_source(known, data, job.recipe)
    if known is None:
        how = "decoded"
        try:
            decoded = decode(data, job.recipe)
        except Undecodable as error:
            return Result(item.row, "failed", sha256, found, reason=str(error), format=error.format)
        except MemoryError:
            reason = f"needs more than {BYTES_AN_IMAGE / 1e9:g} GB of memory"
            return Result(item.row, "transient", sha256, found, reason=reason)
        known = Kept(pixels_to_row(decoded.pixels_HWC, job.recipe), *decoded[1:])
        if job.recipe.fit != "pad":
            known = known._replace(box=())
    place = IMAGES_OFFSET + item.row * job.recipe.row_bytes
    files.write_all(fd, known.row.reshape(-1).view(np.uint8).data, place)
    files.begin_writing(fd, job.recipe.row_bytes, place)
    row, notes, looks, form, size, box = known
    return Result(item.row, how, sha256, found, row_hash(row), looks, notes, "", form, size, box)


def _with_source(known: Kept, data: bytes, recipe: Recipe) -> Kept | None:
    """Add format and size of the image file; None where its header cannot be read any more."""
    try:
        form, size = read_kind(data, recipe)
    except Undecodable:
        return None
    return known._replace(format=form, source_size=size)


def _why(error: OSError) -> str:
    known = {errno.ENOENT: "vanished", errno.ELOOP: "a link that leads nowhere", errno.EACCES: "permission denied"}
    return known.get(error.errno or 0) or error.strerror or str(error)


class Donor:
    """An old cache whose rows are copied; they are found by the content of the image file."""

    def __init__(self, cache: DonorCache) -> None:
        self.cache = CacheReader(cache.path)
        self.recipe = self.cache.header.recipe
        self.other_formats = cache.other_formats
        keys = np.ascontiguousarray(self.cache.table("source_sha256")[:, :8]).view(np.uint64).reshape(-1)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]  # eight bytes of each digest search, all 32 decide
        self.notes: dict[int, tuple[str, ...]] = {}
        for row, note in self.cache.notes:
            self.notes[row] = (*self.notes.get(row, ()), note)

    def find(self, sha256: bytes, recipe: Recipe) -> Kept | None:
        """Return the row of a file as `recipe` stores it; None if there is none, or it is damaged."""
        key = np.frombuffer(sha256, np.uint64)[0]
        first, end = (int(np.searchsorted(self.keys, key, side)) for side in ("left", "right"))
        for row in self.order[first:end].tolist():
            form = self.cache.table("source_format")[row].decode()
            if self.cache.table("source_sha256")[row].tobytes() != sha256 or form in self.other_formats:
                continue
            stored = self._derive(row, recipe) if self.cache.row_is_good(row) else None
            if stored is not None:
                height, width = self.cache.table("source_size")[row].tolist()
                looks = int(self.cache.table("image_hash")[row])
                return Kept(stored, self.notes.get(row, ()), looks, form, (height, width))
        return None

    def _derive(self, row: int, recipe: Recipe) -> NDArray[Any] | None:
        stored: NDArray[Any] = self.cache.images[row]
        if recipe == self.recipe:
            return stored
        pixels_HWC = row_to_pixels(stored, self.recipe)
        return None if pixels_HWC is None else pixels_to_row(pixels_HWC, recipe)


@lru_cache(maxsize=1)
def _donor(cache: DonorCache) -> Donor:
    """Open a donor once a process. The fingerprint tells it from a later cache at the same path."""
    return Donor(cache)

"""Open the shards of a cache, check that they belong together, and read them as one cache.

Rows have the order of a single cache of the same images (class, then name). So labels, fingerprint and row numbers are
the same, however the images are divided among files.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import CacheMissing, CacheStale
from pipeline.format.checks import reading_errors
from pipeline.format.fingerprint import COVERED_TABLES, earlier_fingerprint, fingerprint
from pipeline.format.header import Shard
from pipeline.format.mapping import map_together
from pipeline.format.paths import base_path, cache_files, shard_path, shards_pattern
from pipeline.format.reader import CacheReader, read_no_more_than_asked, row_hash
from pipeline.format.tables import Failed, blank_images, failed_table, near_rows, note_table, sort_failures
from pipeline.text import shorten, show_path

_BUILD = "Run the build again; it builds the missing shards"

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


class ShardedReader:
    """Shards read as one cache: the attributes of `CacheReader`, with tables in the order of the rows.

    Attributes:
        path: the name without numbers: `name.h5`.
        shards: by index.
        places: (N,) int64, the position of each row in `images`.

    Raises:
        CacheStale: shards of different caches, a shard twice, or the same image in two.
        StorageError, WorkerDied: the system refuses so many maps.
    """

    def __init__(self, shards: Sequence[CacheReader]) -> None:
        self.path = base_path(shards[0].path)
        self.shards = sorted(shards, key=lambda shard: _shard(shard).index)
        first = self.shards[0]
        self.recipe = first.recipe
        self.decoder = {name: digits for shard in self.shards for name, digits in shard.decoder.items()}
        self.features, self.row_shape = first.features, first.row_shape
        self.class_folders, self.class_ids = first.class_folders, first.class_ids
        self.class_names = first.class_names
        with reading_errors(self.path):
            self.images, starts, self.map = map_together([(shard.fd, shard.header) for shard in self.shards])
        counts = [shard.num_images for shard in self.shards]
        self._ends = np.cumsum(counts)
        self._labels = np.concatenate([shard.table("labels") for shard in self.shards])
        self._order = self._sorted_rows()
        self.num_images = len(self._order)
        self.file_bytes = sum(shard.file_bytes for shard in self.shards)
        self.places = np.concatenate(
            [np.arange(start, start + count, dtype=np.int64) for start, count in zip(starts, counts, strict=True)]
        )[self._order]
        self._tables: dict[str, NDArray[Any]] = {}

    def was_written_to(self) -> bool:
        """Tell whether any of the files was written to; see `CacheReader.was_written_to`."""
        return any([shard.was_written_to() for shard in self.shards])  # a list: each of them is asked

    def close(self) -> None:
        """Close the files. Views of the maps stay valid."""
        for shard in self.shards:
            shard.close()

    def _sorted_rows(self) -> NDArray[np.int64]:
        """Order the rows of all shards by class and name. Within a shard they are in order already."""
        names = self._joined("filenames")
        order = np.argsort(self._labels, kind="stable")
        names = names[order]
        starts = np.searchsorted(self._labels[order], np.arange(len(self.class_folders) + 1))
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            within = np.argsort(names[start:end], kind="stable")  # merges runs that are sorted
            order[start:end] = order[start:end][within]
            names[start:end] = names[start:end][within]
        labels = self._labels[order]
        twice = np.flatnonzero((names[1:] == names[:-1]) & (labels[1:] == labels[:-1]))
        if len(twice):
            self._refuse_twice(order[twice[0] : twice[0] + 2].tolist())
        return order

    def _refuse_twice(self, rows: list[int]) -> None:
        (one, row), (other, _) = map(self._find, rows)
        why = f"{one.describe(row).split(' ', 2)[2]} is in {show_path(other.path)} too"
        raise CacheStale("the shards do not go together", one.path, why, _OTHER_SET)

    def _find(self, joined: int) -> tuple[CacheReader, int]:
        """Return the shard of a row in the joined tables, and the row's number there."""
        index = int(np.searchsorted(self._ends, joined, "right"))
        return self.shards[index], joined - (int(self._ends[index - 1]) if index else 0)

    def home(self, row: int) -> tuple[CacheReader, int]:
        """Return the shard that holds a row, and the row's number there."""
        return self._find(int(self._order[row]))

    def _joined(self, name: str) -> NDArray[Any]:
        return np.concatenate([shard.table(name) for shard in self.shards])

    def table(self, name: str) -> NDArray[Any]:
        """Return a table as a single cache of all images has it; gathered on the first call."""
        if name not in self._tables:
            self._tables[name] = self._make_table(name)
        return self._tables[name]

    def _make_table(self, name: str) -> NDArray[Any]:
        if name in ("classes", "class_names"):
            return self.shards[0].table(name)
        if name == "failed":
            return failed_table(self.failed)
        if name == "remarks":
            return note_table(self.notes)
        if name == "alike":
            blank = blank_images(self.notes, self.num_images)
            return near_rows(self.table("image_hash"), self.table("source_sha256"), blank)
        return self._joined(name)[self._order]

    @cached_property
    def fingerprint(self) -> str:
        """Return the fingerprint of a single cache of the same images."""
        if self.earlier:
            return self.earlier_fingerprint
        return fingerprint(self.recipe, self.decoder, {name: self.table(name) for name in COVERED_TABLES})

    @property
    def earlier(self) -> bool:
        """True where an earlier version made the files."""
        return self.shards[0].earlier  # one mark: all of them

    @cached_property
    def earlier_fingerprint(self) -> str:
        """The fingerprint that an earlier version gave to the same rows; see `CacheReader`."""
        tables = {name: self.table(name) for name in COVERED_TABLES}
        return earlier_fingerprint(self.recipe, self.decoder, tables, self.failed, self.features)

    @cached_property
    def class_starts(self) -> NDArray[np.int64]:
        """(C + 1,) the rows of class c are class_starts[c] up to class_starts[c + 1]."""
        return np.searchsorted(self.table("labels"), np.arange(len(self.class_folders) + 1)).astype(np.int64)

    @cached_property
    def failed(self) -> list[Failed]:
        """The files of all shards that gave no image."""
        return sort_failures((failed for shard in self.shards for failed in shard.failed), self.class_ids)

    @cached_property
    def notes(self) -> list[tuple[int, str]]:
        """(row, note) of images that are tiny, blank or of several frames."""
        rows = np.empty(len(self._order), np.int64)
        rows[self._order] = np.arange(len(self._order))
        starts = [0, *self._ends.tolist()]
        return sorted(
            (int(rows[start + row]), note)
            for start, shard in zip(starts, self.shards, strict=False)
            for row, note in shard.notes
        )

    def row_is_good(self, row: int) -> bool:
        """Check a row against its hash."""
        shard, there = self.home(row)
        return bool(row_hash(self.images[self.places[row]]) == shard.table("row_hash")[there])

    def in_memory(self, rows: NDArray[np.int64]) -> bool:
        """Tell whether the first page of each row is in the page cache; True where the system does not tell."""
        return all(shard.in_memory(there) for shard, there in self._homes(rows))

    def will_need(self, rows: NDArray[np.int64]) -> None:
        """Ask the system to read rows from the disk; do not wait for them."""
        read_no_more_than_asked(self.map)
        for shard, there in self._homes(rows):
            shard.will_need(there)

    def _homes(self, rows: NDArray[np.int64]) -> Iterator[tuple[CacheReader, NDArray[np.int64]]]:
        """Yield each shard that holds any of the rows, and their numbers there."""
        joined = np.sort(self._order[rows])
        bounds = np.searchsorted(joined, [0, *self._ends.tolist()])
        for index in np.flatnonzero(np.diff(bounds)).tolist():
            first = int(self._ends[index - 1]) if index else 0
            yield self.shards[index], joined[bounds[index] : bounds[index + 1]] - first

    def describe(self, row: int) -> str:
        """Name a row as its own shard does."""
        shard, there = self.home(row)
        return shard.describe(there)

    def path_of(self, row: int) -> Path:
        """Return the file that holds a row."""
        return self.home(row)[0].path


Reader = CacheReader | ShardedReader


def open_reader(path: Paths, writable: bool = False) -> Reader:
    """Open a cache, or all shards of one.

    Args:
        path: the file of a cache (a single shard is a cache, too), the name of a sharded one (`name.h5`), a pattern
            (`name-*.h5`), or the files of all shards.
        writable: views of the rows can be written to, as `CacheReader` has it; those of shards always can.

    Raises:
        CacheMissing: there is no file, or a shard is missing.
        CacheStale: the files are not the shards of one cache, or one is named twice.
        CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError, WorkerDied: a file cannot be opened.
    """
    if isinstance(path, str | os.PathLike):
        named, files = [Path(path)], cache_files(path)
    else:
        named, files = [], [Path(file) for file in path]
    if not files:
        raise ValueError("no cache is named")
    opened = [CacheReader(file, writable) for file in files]
    if len(opened) == 1 and (opened[0].header.shard is None or files == named):
        return opened[0]
    check_shards(opened)
    return ShardedReader(opened)


_OTHER_SET = "Give the files of one set"


def check_shards(shards: Sequence[CacheReader]) -> None:
    """Refuse files that are not exactly the shards of one cache.

    Raises:
        CacheStale: a file is a whole cache, a shard of another one, or there twice.
        CacheMissing: a shard is missing.
    """
    what = "the shards do not go together"
    for shard in shards:
        if shard.header.shard is None:
            raise CacheStale(what, shard.path, "it is a whole cache, and no shard", _OTHER_SET)
    (most, _), *_ = Counter(_shard(shard).set for shard in shards).most_common(1)
    model = next(shard for shard in shards if _shard(shard).set == most)
    by_index: dict[int, CacheReader] = {}
    for shard in shards:
        differences = _differences(model, shard)  # a mark detects accidents, not deliberate changes
        if _shard(shard).set != most or differences:
            found = ", ".join(differences) or "its mark differs"
            why = f"it is of another set than {show_path(model.path.name)}: {found}"
            raise CacheStale(what, shard.path, why, _OTHER_SET)
        twin = by_index.setdefault(_shard(shard).index, shard)
        if twin is not shard:
            also = "named twice" if twin.path == shard.path else f"and so is {show_path(twin.path)}"
            why = f"it is shard {_shard(shard).index} of {_shard(shard).count}, {also}"
            raise CacheStale(what, shard.path, why, _OTHER_SET)
    names = {base_path(shard.path).name for shard in shards}
    if len(names) > 1:
        raise CacheStale(what, shards[0].path, f"the files are of sets called {', '.join(sorted(names))}", _OTHER_SET)
    _refuse_missing(model, by_index)


def _refuse_missing(model: CacheReader, by_index: dict[int, CacheReader]) -> None:
    count = _shard(model).count
    missing = [index for index in range(count) if index not in by_index]
    if missing:
        name = base_path(model.path)
        shown = shorten([shard_path(name, index, count).name for index in missing], 4)
        why = f"{len(missing)} of {count} shards missing: {shown}"
        raise CacheMissing("the cache is not complete", shards_pattern(name, count), why, _BUILD)


def _shard(reader: CacheReader) -> Shard:
    assert reader.header.shard is not None
    return reader.header.shard


def _differences(model: CacheReader, other: CacheReader) -> list[str]:
    one, two = model.header, other.header
    found = one.recipe.differences(two.recipe)
    if _shard(model).count != _shard(other).count:
        found.append(f"{_shard(model).count} → {_shard(other).count} shards")
    if any(one.decoder[name] != two.decoder[name] for name in one.decoder.keys() & two.decoder.keys()):
        found.append("decoded to other pixels")
    if model.class_folders != other.class_folders:
        found.append("other classes")
    elif model.class_names != other.class_names:
        found.append("other names of classes")
    if model.features != other.features or model.row_shape != other.row_shape:
        found.append("rows of another kind")
    return found

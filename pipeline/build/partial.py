"""Hold a build that is not published yet: its file of rows and its journal; resume it, and publish it."""

import bisect
import errno
import mmap
import os
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.build.image_table import DONE, FAILED, TODO, ImageTable
from pipeline.build.journal import Entry, Journal, begun_build, is_of_this_decoder, read_journal
from pipeline.build.space import bytes_needed, refusing_full_disk, room_at, room_needed
from pipeline.decode.decode import earlier_decoder_identity
from pipeline.errors import OutputError, SourceError
from pipeline.format import hdf5
from pipeline.format.fingerprint import fingerprint
from pipeline.format.header import IMAGES_OFFSET, USER_BLOCK, VERSION, Extent, Header, Shard
from pipeline.format.pixel_sums import PixelSums
from pipeline.format.reader import outside_digest
from pipeline.recipe import Recipe
from pipeline.source.reader import Stat, hash_image
from pipeline.system import files
from pipeline.system.signals import held_signals


class PartialBuild:
    """`<cache>.building` and `<cache>.journal`, under the build's lock.

    Row r of the file belongs to the r-th image that is not known to have failed.

    Args:
        cache: path of the cache that is built.
        recipe: of the build.
        anew: the rows are decoded anew; keep only those of an earlier build with this flag.
        own_mean_std: when it is published, the recipe gets the mean and std of the pixels; rows are uint8.
        shard: number of the shard; None for a whole cache.
    """

    def __init__(
        self, cache: Path, recipe: Recipe, anew: bool = False, shard: Shard | None = None, own_mean_std: bool = False
    ) -> None:
        self.cache = cache
        self.recipe = recipe
        self.shard = shard
        self.building = cache.with_name(cache.name + ".building")
        self._aside = cache.with_name(cache.name + ".building.new")
        self.journal_path = cache.with_name(cache.name + ".journal")
        self.own_mean_std = own_mean_std
        self.build = {"format": VERSION, "recipe": recipe.to_dict(), "anew": anew}
        self.build |= {"mean_std": "auto"} if own_mean_std else {}
        self.rows: NDArray[np.int64] = np.empty(0, np.int64)
        self.fd = -1
        self.journal: Journal | None = None
        self.discarded = False  # a partial build with another recipe: no row could be kept

    def open(self, images: ImageTable) -> int:
        """Resume the earlier build and keep the rows that still fit, or begin a new one.

        Kept rows are marked in `images`. Then `rows` holds the row of every image, -1 for those known to fail.

        Args:
            images: of the source.

        Returns:
            The number of rows that were kept.

        Raises:
            OutputError: the disk is too small, or the files cannot be created.
        """
        resumed = self._resume(images)
        kept = int((images.state == DONE).sum())
        if not resumed:
            self.discarded = self.building.exists()
            self.discard()
        self.rows = np.where(images.state == FAILED, -1, np.cumsum(images.state != FAILED) - 1)
        count = int((images.state != FAILED).sum())
        size = bytes_needed(images, self.recipe, count)
        try:
            with refusing_full_disk(self.cache, size):
                room_at(room_needed(images, self.recipe, count), [self.cache]).refuse_less(self.cache)
                if not resumed:
                    self._begin()
                files.reserve(self.fd, size)
                self._check_map()
                if not resumed:
                    files.rename(self._aside, self.building)
        except BaseException:
            if not resumed:
                self.discard()
            raise
        if resumed:
            done = images.state == DONE
            self._move(self.places[done], self.rows[done])
        self.journal = Journal(self.journal_path)
        return kept

    def record(self, entries: list[Entry]) -> None:
        """Note finished images in the journal."""
        if self.journal is None:
            raise ValueError("the build is not open")
        self.journal.add(entries)

    def close(self) -> None:
        """Close both files. They stay for the next build unless they were published."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def discard(self) -> None:
        """Delete the files of an unfinished build."""
        self.close()
        aside = self.journal_path.with_name(self.journal_path.name + ".new")
        for path in (self.building, self._aside, self.journal_path, aside):
            files.remove(path)

    def publish(self, images: ImageTable) -> Header:
        """Close the gaps of failed images, write tables and header, and rename the file into place."""
        done = np.flatnonzero(images.state == DONE)
        self._move(self.rows[done], np.arange(len(done)))
        rows = Extent(
            "images", np.dtype(self.recipe.dtype).newbyteorder("<").str, self.recipe.row_shape, len(done), IMAGES_OFFSET
        )
        if rows.end - rows.offset < hdf5.SMALLEST_IMAGES:
            self.discard()
            why = f"{len(done)} images of {self.recipe.size[0]} × {self.recipe.size[1]} are too little for an HDF5 file"
            raise OutputError("the cache cannot be created", self.cache, why, "Give a larger --size")
        files.resize(self.fd, rows.end)
        files.write_all(self.fd, bytes(IMAGES_OFFSET), 0)
        if not rows.count:
            files.write_all(self.fd, bytes(rows.row_bytes), rows.offset)
        recipe = self._with_mean_std(images, done) if self.own_mean_std else self.recipe
        tables, decoder = images.tables(), images.decoder()
        with held_signals():  # an exception must not pass through the HDF5 library
            extents, size = hdf5.write_objects(self.fd, rows, tables, hdf5.attributes_of(recipe, "images"))
        header = Header(
            recipe=recipe,
            decoder=decoder,
            fingerprint=fingerprint(recipe, decoder, tables),
            content="images",
            shard=self.shard,
            extents=extents,
            file_size=size,
            digest="0" * 32,
        )
        header = replace(header, digest=outside_digest(self.fd, header))
        files.write_all(self.fd, header.encode(), 0)
        files.sync(self.fd)
        files.rename(self.building, self.cache)
        files.sync_folder(self.cache.parent)
        self.discard()
        return header

    def _with_mean_std(self, images: ImageTable, done: NDArray[np.int64]) -> Recipe:
        """Return the recipe with mean and std of all pixels of the rows but pads."""
        sums = PixelSums()
        for row, image in enumerate(done.tolist()):
            pixels_CHW = np.frombuffer(self._read_row(row), np.uint8).reshape(self.recipe.row_shape)
            sums.add(pixels_CHW, images.boxes.get(image, (0, 0, *self.recipe.size)))
        mean, std = sums.mean_std(255)
        if not all(std):
            why = "in a channel all pixels have the same value"
            raise SourceError("no std of the pixels", images.manifest.root, why, "Give --mean and --std")
        return replace(self.recipe, mean=mean, std=std)

    def _row_end(self, count: int) -> int:
        return IMAGES_OFFSET + count * self.recipe.row_bytes

    def _begin(self) -> None:
        """Create both files. That of the rows gets its name only at its full size."""
        Journal.start(self.journal_path, self.build)
        self.fd = files.create(self._aside)

    def _check_map(self) -> None:
        """Refuse a file system whose files cannot be mapped: no reader could open the cache."""
        try:
            mmap.mmap(self.fd, mmap.PAGESIZE, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE).close()
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            why, advice = "its file system cannot map files into memory", "Give --out on another file system"
            raise OutputError("the cache cannot be created", self.cache, why, advice) from error

    def _resume(self, images: ImageTable) -> bool:
        """Find the rows that the journal names; mark their images DONE, and known failures FAILED."""
        begun = begun_build(self.journal_path)
        if begun != self.build and not ("decoder" in begun and begun == self._earlier_build()):
            return False
        try:
            self.fd = files.open_for_writing(self.building)
        except FileNotFoundError:
            return False
        if os.fstat(self.fd).st_nlink > 1:  # an interrupted rename: the published cache is the same file
            return False
        files.write_all(self.fd, bytes(USER_BLOCK), 0)  # the header is written last
        moved: dict[bytes, Entry] = {}
        places = _places(images)
        for entry in read_journal(self.journal_path):
            if not is_of_this_decoder(entry, begun):
                continue
            image = _find(images, places, entry)
            if image is not None and _same_content(images, image, entry):
                images.restore(image, entry)
                images.state[image] = FAILED if entry.reason else DONE
            elif not entry.reason:
                moved[entry.source_sha256] = entry
        found = _Rows(self._row_hashes())
        self.places = np.full(len(images.state), -1, np.int64)
        for image in np.flatnonzero(images.state == DONE).tolist():
            self._take_place(images, image, found)
        sizes = [entry.stat.size for entry in moved.values()]
        may_be_moved = images.state == TODO
        if -1 not in sizes:  # otherwise a file was too new for its size to be known
            may_be_moved &= np.isin(images.stats[:, 0], [*sizes, -1])
        for image in np.flatnonzero(may_be_moved).tolist() if moved else ():
            self._take_moved(images, image, moved, found)
        for image in np.flatnonzero((images.state == DONE) & (images.source_format == b"")).tolist():
            images.read_source(image, self.recipe)
        return True

    def _earlier_build(self) -> dict[str, Any]:
        """Return the description of this build by an earlier version, which had one decoder of all formats."""
        earlier = {"recipe": self.recipe.to_earlier_dict(), "decoder": earlier_decoder_identity()}
        return self.build | earlier

    def _take_place(self, images: ImageTable, image: int, found: "_Rows") -> None:
        place = found.take(images.row_hash[image])
        if place is not None:
            self.places[image] = place
            images.state[image] = DONE
        else:  # the journal reached the disk and the row did not
            images.state[image] = TODO

    def _take_moved(self, images: ImageTable, image: int, moved: dict[bytes, Entry], found: "_Rows") -> None:
        """Keep the row of a file that was renamed, or moved to another class, since it was decoded."""
        content = hash_image(images.manifest.location(image))
        entry = moved.get(content[0]) if content else None
        if content and entry:
            images.restore(image, entry)
            images.know(image, *content)
            self._take_place(images, image, found)

    def _row_hashes(self) -> NDArray[np.uint64]:
        """Hash every row in the file, wherever a killed build left it."""
        count = (os.fstat(self.fd).st_size - IMAGES_OFFSET) // self.recipe.row_bytes
        return np.fromiter((xxhash.xxh3_64_intdigest(self._read_row(row)) for row in range(count)), np.uint64, count)

    def _read_row(self, row: int) -> bytes:
        return files.read_at(self.fd, self.recipe.row_bytes, self._row_end(row))

    def _move(self, sources: NDArray[np.int64], targets: NDArray[np.int64]) -> None:
        """Move rows within the file, so that each is whole somewhere at any moment.

        Args:
            sources: (n,) old row numbers.
            targets: (n,) new row numbers, none twice.
        """
        scratch = max(int(rows.max(initial=0)) for rows in (sources, targets, self.rows)) + 1
        moving = sources != targets
        sources, targets = sources[moving], targets[moving]
        source_of = np.full(scratch, -1, np.int64)
        source_of[targets] = sources
        for start in map(int, np.setdiff1d(targets, sources)):
            self._fill_up(start, source_of)
        for start in map(int, targets):
            if source_of[start] >= 0:  # the remaining moves form cycles: break one
                self._copy_row(start, scratch)
                self._fill_up(start, source_of, scratch)

    def _fill_up(self, start: int, source_of: NDArray[np.int64], saved: int = -1) -> None:
        """Fill row `start`, then the row that it was filled from, and so on. The old `start` is at row `saved`."""
        target = start
        while (source := int(source_of[target])) >= 0:
            source_of[target] = -1
            self._copy_row(saved if source == start else source, target)
            target = source

    def _copy_row(self, source: int, target: int) -> None:
        files.write_all(self.fd, self._read_row(source), self._row_end(target))


class _Rows:
    """Rows of a file by their hash. Each is returned once.

    Args:
        hashes: (R,) uint64, of each row.
    """

    def __init__(self, hashes: NDArray[np.uint64]) -> None:
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]
        self._taken = np.zeros(len(hashes) + 1, np.int64)  # the first position of each group of equal hashes

    def take(self, row_hash: np.uint64) -> int | None:
        """Return a row with this hash that was not returned before; None where there is none."""
        first = int(np.searchsorted(self._hashes, row_hash))
        place = first + int(self._taken[first])
        if place >= len(self._hashes) or self._hashes[place] != row_hash:
            return None
        self._taken[first] += 1
        return int(self._order[place])


def _places(images: ImageTable) -> dict[bytes, tuple[int, int]]:
    """Return the range of each class folder's images: the first, and the end."""
    manifest = images.manifest
    ends = np.searchsorted(manifest.labels, np.arange(len(manifest.class_folders) + 1)).tolist()
    return dict(zip(manifest.class_folders, pairwise(ends), strict=True))


def _find(images: ImageTable, places: dict[bytes, tuple[int, int]], entry: Entry) -> int | None:
    """Return the image of an entry's class and name."""
    names = images.manifest.names
    first, end = places.get(entry.folder, (0, 0))
    place = bisect.bisect_left(names, entry.name, first, end)
    return place if place < end and names[place] == entry.name else None


def _same_content(images: ImageTable, image: int, entry: Entry) -> bool:
    known = images.known_sha256(image)
    if not known:
        if entry.stat == Stat(*images.manifest.stats[image].tolist()):
            return True
        found = hash_image(images.manifest.location(image))
        if found is None:
            return False
        images.know(image, *found)
        known = found[0]
    return known == entry.source_sha256

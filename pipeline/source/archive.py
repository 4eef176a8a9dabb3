"""Images in archives, found without unpacking: a tar of class tars, folders of them, zips, WebDataset shards.

An archive stands for the folder that it would be unpacked into. Names are only names: nothing is ever written.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import NamedTuple

from pipeline.errors import AccessDenied, SourceError, StorageError
from pipeline.source.archive_index import LABEL_SUFFIXES, Entry, Listing, list_archive
from pipeline.source.collected import Files, Found
from pipeline.source.label_table import is_validation
from pipeline.source.layouts import class_folders_below, label_of, plain_name, sample_key
from pipeline.source.reader import STORED, TAR, Damaged, Member, Stat, read_image, stat_of, zip_data_start
from pipeline.source.splits import refuse_splits
from pipeline.system import files
from pipeline.text import show_path

_DEEPEST = 2  # archives in an archive
_LONGEST_LABEL = 1 << 16  # bytes


def find_in_archives(
    paths: Sequence[bytes], inside: bytes = b"", wanted: Collection[bytes] | None = None, part: bool = False
) -> Found:
    """List the images in archives, a class a folder or a class an archive, opening none of them.

    Args:
        paths: the archives.
        inside: a folder within the archive that is the source, empty for all of it.
        wanted: the classes to look for; None for all.
        part: each archive is a part of the source and not all of it: a class, if images lie directly in it.

    Raises:
        SourceError: not an archive that can be read in place.
        ArchiveDamaged: an archive that ends early: whatever is whole of it is not taken for all.
        StorageError, AccessDenied: the system failed.
    """
    search = _Search(wanted)
    refuse_splits(paths, os.fsdecode(os.path.dirname(paths[0])))
    stems = {path: _stem(path) for path in paths}
    skipped = _skipped(stems.values(), wanted)
    for path, stem in stems.items():
        if stem in skipped:
            search.found.unwanted.add(stem)
        else:
            search.open(path, stem, inside, part)
    search.found.left_out_named.sort()
    return search.found


class _Range(NamedTuple):
    """An archive: some bytes of an open file."""

    fd: int
    start: int
    end: int
    where: str
    stem: bytes
    inside: bytes
    part: bool  # of a source: a class, most likely, or a shard
    depth: int


class _Search:
    """What was found so far."""

    def __init__(self, wanted: Collection[bytes] | None) -> None:
        self.wanted = wanted
        self.found = Found()

    def open(self, path: bytes, stem: bytes, inside: bytes, part: bool) -> None:
        """Look into an archive that is a file."""
        where = os.fsdecode(path)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                before = os.fstat(fd)
                if not stat.S_ISREG(before.st_mode):
                    raise SourceError("no images to read", where, "not a regular file", "Give a folder or an archive")
                self.found.archives.append((path, stat_of(before)))
                self._look_into(_Range(fd, 0, before.st_size, where, stem, inside, part, 0))
                changed = stat_of(os.fstat(fd)) != stat_of(before)
            finally:
                os.close(fd)
        except PermissionError as error:
            raise AccessDenied("the archive cannot be read", where, "permission denied") from error
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            raise StorageError("the archive cannot be read", where, error.strerror or str(error)) from error
        if changed:
            raise StorageError("the archive cannot be read", where, "it was changed meanwhile", "Run it again")

    def _look_into(self, archive: _Range) -> None:
        listing = list_archive(archive.fd, archive.start, archive.end, archive.where)
        self.found.left_out += listing.left_out
        for name, reason in listing.left_out_named:
            self.found.leave_out(reason, name)
        self.found.warnings += listing.warnings
        if listing.images and (labels := self._labels(listing, archive)):
            self._take_samples(listing, labels, archive)
        elif listing.images:
            self._take_folders(listing, archive)
        elif listing.archives:
            self._take_tables(listing, archive, os.path.dirname(listing.archives[0].name) + b"/")
            self._look_into_inner(listing.archives, archive)
            return
        else:
            self._take_folders(listing, archive)
        for entry in listing.archives:
            self.found.leave_out("an archive beside images", entry.name)

    def _look_into_inner(self, archives: list[Entry], outer: _Range) -> None:
        """Take each archive in an archive for the class, or the part of the source, that it is."""
        below = outer.inside + b"/" if outer.inside else b""
        archives = [entry for entry in archives if entry.name.startswith(below)]
        folders = sorted({os.path.dirname(entry.name) for entry in archives})
        if len(folders) > 1:
            raise SourceError(
                "no classes to read",
                outer.where,
                f"it holds archives in several folders: {', '.join(show_path(f) or '.' for f in folders[:3])}",
                f"Build each: build-cache {show_path(os.path.join(os.fsencode(outer.where), folders[-1]))}",
            )
        refuse_splits([entry.name for entry in archives], outer.where)
        stems = [_stem(entry.name) for entry in archives]
        skipped = _skipped(stems, self.wanted)
        for entry, stem in zip(archives, stems, strict=True):
            where = f"{outer.where}/{os.fsdecode(entry.name)}"
            if stem in skipped:
                self.found.unwanted.add(stem)
                continue
            if outer.depth == _DEEPEST:
                raise SourceError(
                    "no images to read", where, "an archive too deep within others", "Unpack the outermost"
                )
            start = entry.offset if entry.method == TAR else zip_data_start(outer.fd, entry.offset)
            if entry.method not in (TAR, STORED) or start is None:
                raise SourceError(
                    "no images to read", where, "it is compressed within the archive", "Unpack the outer one first"
                )
            self._look_into(
                outer._replace(
                    start=start,
                    end=start + entry.packed,
                    where=where,
                    stem=stem,
                    inside=b"",
                    part=True,
                    depth=outer.depth + 1,
                )
            )

    def _take_folders(self, listing: Listing, archive: _Range) -> None:
        """Sort images into classes by their folders; where they lie in none, the archive is the class.

        So it is of a part if any lie in none: it is what would have been unpacked into a folder of its name.
        """
        if archive.inside and not any((f + b"/").startswith(archive.inside + b"/") for f in listing.folders):
            where = f"{archive.where}/{os.fsdecode(archive.inside)}"
            raise SourceError("no images to read", where, "there is no such folder in the archive")
        prefix, folders = class_folders_below(listing, archive.inside)
        self._take_tables(listing, archive, prefix)
        if archive.part and not all(b"/" in image for image in listing.images):
            for number, image in enumerate(listing.images):
                if is_validation(image):
                    self._add(self.found.flat, image, listing, number)
                else:
                    self._take(archive.stem, image, listing, number)
            return
        directly = 0
        for number, image in enumerate(listing.images):
            if not image.startswith(prefix):
                if not archive.inside:
                    self.found.left_out[f"outside {show_path(prefix)}"] += 1
                continue
            folder, slash, name = image[len(prefix) :].partition(b"/")
            if slash:
                self._take(folder, name, listing, number)
            else:
                directly += 1
                self._add(self.found.flat, folder, listing, number)
        if directly == len(listing.images) and not archive.inside:
            if directly:
                self.found.flat_class = archive.stem
            folders = set() if directly else folders or {archive.stem}
        for folder in folders:
            self._class(folder)

    def _take_samples(self, listing: Listing, labels: dict[bytes, bytes], archive: _Range) -> None:
        """Sort the images of a WebDataset shard into classes by what stands beside them."""
        self._take_tables(listing, archive, b"")
        self.found.labelled = True
        below = archive.stem + b"/" if archive.part else b""  # every shard may count from 0
        plain = {sample_key(image) for image in listing.images if image == plain_name(image)}
        for number, image in enumerate(listing.images):
            label = labels.get(sample_key(image), b"")
            if image != plain_name(image) and sample_key(image) in plain:
                self.found.leave_out("of a sample that has another image", below + image)  # 7.mask.png beside 7.jpg
            elif label:
                self._take(label, below + image, listing, number)
            else:
                self.found.leave_out("no class beside it (.cls)", below + image)

    def _take(self, folder: bytes, name: bytes, listing: Listing, number: int) -> None:
        files = self._class(folder)
        if files is not None:
            self._add(files, name, listing, number)

    def _add(self, files: Files, name: bytes, listing: Listing, number: int) -> None:
        member = listing.member(number)
        number_of_archive = len(self.found.archives) - 1
        size = member[2]
        files.add(name, self.found.archives[-1][1]._replace(size=size), (number_of_archive, *member))

    def _class(self, folder: bytes) -> Files | None:
        if self.wanted is not None and folder not in self.wanted:
            self.found.unwanted.add(folder)
            return None
        return self.found.files.setdefault(folder, Files())

    def _take_tables(self, listing: Listing, archive: _Range, prefix: bytes) -> None:
        """Note tables of names in the folder of the classes or above it; the nearest counts, of an outer archive."""
        path, found = self.found.archives[-1]
        for entry in sorted(listing.tables, key=lambda entry: -entry.name.count(b"/")):
            folder, _, name = entry.name.rpartition(b"/")
            if not folder or prefix.startswith(folder + b"/"):
                self.found.tables.setdefault(name, _member(path, found, entry))
            else:
                self.found.left_out[f"suffix {show_path(os.path.splitext(name)[1])}"] += 1

    def _labels(self, listing: Listing, archive: _Range) -> dict[bytes, bytes]:
        """Return the class of each sample by its key; empty where the archive is no WebDataset shard."""
        path, found = self.found.archives[-1]
        kind = next((suffix for suffix in LABEL_SUFFIXES if listing.labels[suffix]), b"")
        if kind == b".json" and any(b"/" in image for image in listing.images):
            kind = b""  # their folders are their classes
        labels: dict[bytes, bytes] = {}
        for entry in listing.labels.get(kind, ()):
            data = b""
            if entry.method == TAR:
                data = files.read_at(archive.fd, min(entry.size, _LONGEST_LABEL), entry.offset)
            else:
                with suppress(Damaged):
                    data, _ = read_image(_member(path, found, entry))
            label = label_of(data, kind)
            if kind == b".json" and not label and not labels:
                break  # annotations of another kind
            if label:
                labels[sample_key(entry.name)] = label
        keys = set(map(sample_key, listing.images))
        labels = {key: label for key, label in labels.items() if key in keys}
        for suffix, entries in listing.labels.items():
            if entries and not (labels and suffix == kind):
                self.found.left_out[f"suffix {suffix.decode()}"] += len(entries)
        return labels


def _member(path: bytes, found: Stat, entry: Entry) -> Member:
    return Member(path, found, *entry[1:6])


def _stem(path: bytes) -> bytes:
    return os.path.splitext(os.path.basename(path))[0]


def _skipped(stems: Iterable[bytes], wanted: Collection[bytes] | None) -> set[bytes]:
    """Return the archives that need not be opened: where every class asked for has one of its name, the others."""
    stems = set(stems)
    return stems - set(wanted) if wanted is not None and stems >= set(wanted) else set()

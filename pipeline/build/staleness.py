"""Compare a cache with its source and recipe. Changes nothing."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.build.image_table import ImageTable
from pipeline.decode.decode import decoder_identity
from pipeline.format.duplicates import digest_items
from pipeline.format.reader import CacheReader
from pipeline.format.tables import Failed
from pipeline.recipe import Recipe
from pipeline.source.manifest import Manifest
from pipeline.source.reader import Damaged, Location, hash_images, read_image
from pipeline.text import shorten, show_path

_CLASSES_SHOWN = 5


@dataclass
class Staleness:
    """How a cache and a source differ.

    Attributes:
        changes: (kind, class) -> how many; kinds are "changed", "added", "removed", "renamed", "moved here", "damaged",
            "to be tried again".
        other: differences that concern no single file, as phrases: "size 224 → 256".
        shared: images of the source whose content is in the cache, under whatever class and name.
        held: images of the cache whose content is in the source.
        same_pixels: rows of the cache can be copied, or derived without decoding, but for those of `other_formats`.
        other_formats: the formats of the cache that this installation decodes otherwise.
        other_rows: images of the source with a row of such a format.
        rows: (M,) the row of each image, by class and name; -1 where there is none.
        failures: by image, the stored failures that a build would meet again.
    """

    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    other: list[str] = field(default_factory=list)
    shared: int = 0
    held: int = 0
    same_pixels: bool = False
    other_formats: frozenset[str] = frozenset()
    other_rows: int = 0
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    failures: dict[int, Failed] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return one line, empty where nothing differs: "class 2: 3 changed, 1 added; size 224 → 256"."""
        by_class: dict[str, list[str]] = defaultdict(list)
        for (kind, class_id), count in self.changes.items():
            by_class[class_id].append(f"{count} {kind}")
        phrases = [
            f"class {class_id}: {', '.join(counts)}" for class_id, counts in sorted(by_class.items(), key=_natural)
        ]
        return "; ".join(phrases + self.other)


def sum_up(several: Iterable[Staleness]) -> Staleness:
    """Add up the changes of all shards of a cache."""
    whole = Staleness()
    for staleness in several:
        whole.changes += staleness.changes
        whole.other += [phrase for phrase in staleness.other if phrase not in whole.other]
    return whole


def _natural(item: tuple[str, Any]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdecimal() else 0, item[0])


def compare(
    images: ImageTable,
    cache: CacheReader,
    recipe: Recipe,
    stats: NDArray[np.int64] | None,
    damaged: Iterable[int] = (),
) -> Staleness:
    """Compare a source with a cache, reading no image that stat data show to be unchanged.

    The contents of the files that are read are noted in `images`.

    Args:
        images: of the source as it is now.
        cache: the cache.
        recipe: of the build.
        stats: from `stat_cache.read_stats`; None to read every file.
        damaged: rows that do not match their hash.
    """
    manifest, staleness = images.manifest, Staleness()
    others = {name for name, digits in cache.decoder.items() if decoder_identity(name) != digits}
    staleness.other_formats = frozenset(others)
    staleness.other = _other_differences(manifest, cache, recipe, others)
    staleness.same_pixels = cache.header.recipe.pixels == recipe.pixels
    old_rows, old_failed = _match(manifest, cache)
    staleness.rows = old_rows
    _know_contents(images, cache, old_rows, old_failed, stats)
    matched = np.flatnonzero(old_rows >= 0)
    same = _same(_numbers(images.source_sha256), matched, _numbers(cache.table("source_sha256")), old_rows[matched])
    names = [show_path(folder) for folder in manifest.class_folders]
    for image in matched[~same].tolist():
        staleness.changes["changed", names[manifest.labels[image]]] += 1
    _compare_failed(staleness, images, cache, old_failed, names)
    _compare_sets(staleness, images, cache, old_rows, old_failed, names)
    _count_common(staleness, images, cache, matched[same])
    if 2 * staleness.held < cache.num_images:  # perhaps all files were renamed: compare contents
        _hash_files(images, np.flatnonzero(~images.source_sha256.any(axis=1)))
        _count_common(staleness, images, cache, matched[same])
    for row in damaged:
        staleness.changes["damaged", show_path(cache.class_folders[int(cache.table("labels")[row])])] += 1
    return staleness


def _other_differences(manifest: Manifest, cache: CacheReader, recipe: Recipe, other_formats: set[str]) -> list[str]:
    differences = cache.header.recipe.differences(recipe)
    if other_formats:
        names = ", ".join(sorted(other_formats)) or "images"  # an earlier version's cache does not know its formats
        differences.append(f"this installation decodes {names} to other pixels")
    if cache.earlier:
        differences.append("made by an earlier version")
    old, new = set(cache.class_folders), set(manifest.class_folders)
    for kind, folders in (("new", new - old), ("gone", old - new)):
        if folders:
            word = "class" if len(folders) == 1 else "classes"
            shown = shorten([show_path(folder) for folder in sorted(folders)], _CLASSES_SHOWN)
            differences.append(f"{word} {shown} {kind}")
    if old == new and cache.class_names != manifest.class_names:
        differences.append("class names changed")
    return differences


def _numbers(source_sha256: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """View digests, (N, 32), as (N, 4) numbers."""
    return source_sha256.view(np.uint64)


def _same(
    table: NDArray[Any], rows: NDArray[np.int64], other: NDArray[Any], other_rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell which rows of one table equal those of another; a column at a time, since tables are large."""
    equal = np.ones(len(rows), bool)
    for column in range(table.shape[1]):
        equal &= table[rows, column] == other[other_rows, column]
    return equal


def _match(manifest: Manifest, cache: CacheReader) -> tuple[NDArray[np.int64], dict[int, int]]:
    """Find each image in the cache by class and name: its row or -1, and its position among the failures."""
    rows = np.full(len(manifest.names), -1, np.int64)
    labels = {folder: label for label, folder in enumerate(cache.class_folders)}
    ends = np.searchsorted(manifest.labels, np.arange(len(manifest.class_folders) + 1))
    failures = {(str(f.class_id), f.name): place for place, f in enumerate(cache.failed)}
    failed: dict[int, int] = {}
    for label, folder in enumerate(manifest.class_folders):
        first, end = int(ends[label]), int(ends[label + 1])
        if folder in labels:
            start, stop = cache.class_starts[labels[folder] : labels[folder] + 2].tolist()
            rows[first:end] = _find(cache.table("filenames")[start:stop], manifest.names.table(first, end), start)
        if failures:
            text = os.fsdecode(folder)
            for image in range(first, end):
                place = failures.get((text, os.fsdecode(manifest.names[image])))
                if place is not None:
                    failed[image] = place
    return rows, failed


def _find(stored: NDArray[np.bytes_], names: NDArray[np.bytes_], start: int) -> NDArray[np.int64] | int:
    """Return the row of each name, or -1. The stored names are sorted; the first belongs to row `start`."""
    if not len(stored):
        return -1
    places = np.minimum(np.searchsorted(stored, names), len(stored) - 1)
    return np.where(stored[places] == names, start + places, -1)


def _know_contents(
    images: ImageTable,
    cache: CacheReader,
    rows: NDArray[np.int64],
    failed: dict[int, int],
    stats: NDArray[np.int64] | None,
) -> None:
    """Note the SHA-256 of every image in the cache: from its table where stat data agree, else by reading the file."""
    places = rows.copy()
    for image, place in failed.items():
        places[image] = cache.num_images + place
    known = np.flatnonzero(places >= 0)
    trusted = np.zeros(len(rows), bool)
    if stats is not None:
        trusted[known] = _same(stats, places[known], images.stats, known)
    unchanged = np.flatnonzero(trusted & (rows >= 0))
    ours, stored = _numbers(images.source_sha256), _numbers(cache.table("source_sha256"))
    for column in range(ours.shape[1]):
        ours[unchanged, column] = stored[rows[unchanged], column]
    for image, place in failed.items():
        if trusted[image] and (digest := cache.failed[place].source_sha256):
            images.source_sha256[image] = np.frombuffer(bytes.fromhex(digest), np.uint8)
    _hash_files(images, known[~trusted[known]])


def _hash_files(images: ImageTable, chosen: NDArray[np.int64]) -> None:
    chosen = images.manifest.in_reading_order(chosen)
    hashed = hash_images(map(images.manifest.location, chosen.tolist()))
    for image, found in zip(chosen.tolist(), hashed, strict=True):
        if found:
            images.know(image, *found)


def _compare_failed(
    staleness: Staleness, images: ImageTable, cache: CacheReader, failed: dict[int, int], names: list[str]
) -> None:
    """Keep a failure while its bytes are unchanged; try a transient one again."""
    old = cache.failed
    for image, place in failed.items():
        name = names[images.manifest.labels[image]]
        if cache.earlier:  # it read fewer formats: any file may give an image now
            continue
        if not old[place].transient:
            if old[place].format in staleness.other_formats:
                staleness.changes["to be tried again", name] += 1
                continue
            if images.known_sha256(image).hex() != old[place].source_sha256:
                staleness.changes["changed", name] += 1
                continue
        elif old[place].source_sha256 or _can_be_read(images.manifest.location(image)):
            staleness.changes["to be tried again", name] += 1
            continue
        staleness.failures[image] = old[place]


def _can_be_read(place: Location) -> bool:
    try:
        read_image(place)
    except (OSError, MemoryError):
        return False
    except Damaged:  # which is another failure than before
        return True
    return True


def _compare_sets(
    staleness: Staleness,
    images: ImageTable,
    cache: CacheReader,
    rows: NDArray[np.int64],
    failed: dict[int, int],
    names: list[str],
) -> None:
    """Count the images that were added, removed, or moved (removed here, and added there with the same content)."""
    manifest = images.manifest
    added = [image for image in np.flatnonzero(rows < 0).tolist() if image not in failed]
    gone = np.ones(cache.num_images, bool)
    gone[rows[rows >= 0]] = False
    removed = np.flatnonzero(gone).tolist()
    if removed:
        _hash_files(images, np.array(added, np.int64))
    by_content: dict[bytes, list[int]] = defaultdict(list)
    for row in removed:
        by_content[cache.table("source_sha256")[row].tobytes()].append(row)
    for image in added:
        old = by_content.get(images.known_sha256(image))
        if not old:
            staleness.changes["added", names[manifest.labels[image]]] += 1
            continue
        folder = cache.class_folders[int(cache.table("labels")[old.pop()])]
        renamed = folder == manifest.class_folders[manifest.labels[image]]
        staleness.changes["renamed" if renamed else "moved here", names[manifest.labels[image]]] += 1
    for rest in by_content.values():
        for row in rest:
            staleness.changes["removed", show_path(cache.class_folders[int(cache.table("labels")[row])])] += 1
    _compare_failed_sets(staleness, cache.failed, manifest, failed)


def _compare_failed_sets(staleness: Staleness, old: list[Failed], manifest: Manifest, failed: dict[int, int]) -> None:
    matched = set(failed.values())
    before = {(str(f.class_id), f.name, f.reason) for place, f in enumerate(old) if place not in matched}
    now = {(str(f.class_id), f.name, f.reason) for f in manifest.failed}
    for class_id, _, _ in before - now:
        staleness.changes["removed", show_path(class_id)] += 1
    for class_id, _, _ in now - before:
        staleness.changes["added", show_path(class_id)] += 1


def _count_common(staleness: Staleness, images: ImageTable, cache: CacheReader, unchanged: NDArray[np.int64]) -> None:
    """Count the images that source and cache share, as far as contents are known.

    Args:
        unchanged: images whose row, of the same class and name, has their content.
    """
    stored = cache.table("source_sha256")
    others = np.delete(np.arange(len(images.state)), unchanged)
    rows = np.delete(np.arange(len(stored)), staleness.rows[unchanged])
    staleness.shared = len(unchanged) + count_shared(images.source_sha256[others], stored)
    staleness.held = len(unchanged) + (count_shared(stored[rows], images.source_sha256) if len(rows) else 0)
    formats = [name.encode() for name in staleness.other_formats]
    staleness.other_rows = count_shared(images.source_sha256, stored[np.isin(cache.table("source_format"), formats)])


def count_shared(digests: NDArray[np.uint8], others: NDArray[np.uint8]) -> int:
    """Count the digests, (n, 32), that are among others, (m, 32)."""
    if not len(digests):
        return 0
    return int(np.isin(digest_items(digests), digest_items(others)).sum())


def damaged_rows(cache: CacheReader) -> list[int]:
    """Return the rows of a cache that do not match their hash."""
    return [row for row in range(cache.num_images) if not cache.row_is_good(row)]

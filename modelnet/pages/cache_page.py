"""Show the contents of a cache as a page: classes with samples, sizes, copies, notes, mean images, failures."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

from modelnet.data.split_table import TEST, match_split, read_split, split_path
from modelnet.pages.document import Curve, Fact, Picture, data_url, jpeg_of, render_page
from modelnet.pages.tables import Bar, Table
from modelnet.plots.svg import histogram_svg
from pipeline import TensorCache
from pipeline.errors import CacheDamaged, OptionsError, PipelineError
from pipeline.format.duplicates import exact_groups
from pipeline.format.sharded import Paths
from pipeline.inspect.info import CacheInfo, describe_cache
from pipeline.load.normalize import pixels_of
from pipeline.text import counted, shorten, show_bytes, show_path

SIDE = 160  # pixels of a sample
SAMPLES, SAMPLES_OF_A_CLASS = 320, 8  # pictures in all, at most, and of a class
CLASSES_PICTURED = 100
COPIES, PAIRS, NOTES = 12, 24, 24  # shown with pictures
FAILED = 200  # named
MEAN_BYTES = 2**28  # of rows that are read for the mean images
MEANS_UP_TO = 24  # classes


class ClassShown(NamedTuple):
    """A class with its samples."""

    name: str
    images: str
    samples: list[Picture]


class Copies(NamedTuple):
    """Images that are alike, and what they have in common."""

    title: str
    about: str
    groups: list[list[Picture]]


class Rows:
    """Pictures of the rows of a cache. A damaged row has none, and is counted.

    Attributes:
        damaged: a message by the number of each row that is not as it was written.
    """

    def __init__(self, cache: TensorCache) -> None:
        self.cache = cache
        self.damaged: dict[int, str] = {}

    def pixels(self, rows: Sequence[int]) -> tuple[NDArray[np.uint8], list[int]]:
        """Return (B, 3, H, W) uint8, and the rows that they are of: those that are not damaged."""
        try:
            stored = self.cache.read_stored(torch.tensor(rows, dtype=torch.int64))
        except CacheDamaged as error:
            if len(rows) == 1:
                self.damaged[rows[0]] = str(error)
                return np.empty((0, *self.cache.row_shape), np.uint8), []
            parts = [self.pixels([row]) for row in rows]
            return np.concatenate([pixels for pixels, _ in parts]), [row for _, good in parts for row in good]
        pixels = stored if stored.dtype == torch.uint8 else pixels_of(stored, self.cache.recipe)
        return pixels.numpy(), list(rows)

    def picture(self, row: int, detail: str = "", with_class: bool = True) -> Picture:
        """Return a row as a page shows it."""
        pixels_NCHW, _ = self.pixels([row])
        jpeg = jpeg_of(pixels_NCHW[0], SIDE, 80) if len(pixels_NCHW) else None
        true = self.class_name(int(self.cache.labels[row])) if with_class else ""
        return Picture(data_url(jpeg), show_path(self.cache.filenames[row]), true, "", detail)

    def class_name(self, label: int) -> str:
        """Return the name of a class, or its id."""
        return show_path(self.cache.class_names[label] or str(self.cache.class_ids[label]))


def show_cache(path: Paths) -> bytes:
    """Render a cache as one self-contained HTML page, and return it in UTF-8.

    Of a large cache a sample is shown, evenly spread over the names of each class; the page says how large. Damaged
    rows are left out, and said to be.

    Args:
        path: the cache, or all shards of one, as `TensorCache` takes it.

    Raises:
        OptionsError: it holds features, of which there are no pictures.
        CacheMissing, CacheUnsafe, CacheDamaged, CacheError, AccessDenied, StorageError, WorkerDied: it cannot be
            opened.
    """
    cache = TensorCache(path)
    if cache.features is not None:
        reason, advice = f"it holds {cache.features}", "Give the cache of images; info describes this one"
        raise OptionsError("no pictures to show", cache.path, reason, advice)
    info, rows = describe_cache(path), Rows(cache)
    chosen = _classes_pictured(info.counts)
    classes = list(_classes(rows, info, chosen))
    pictured = {"extremes": _extremes(rows), "copies": _copies(rows), "remarks": _notes(rows), "means": _means(rows)}
    return render_page(
        "cache.html.jinja",
        title=show_path(info.path.name),
        about=_about(info),
        notes=_warnings(cache, info, rows),
        facts=_facts(info),
        classes=classes,
        class_table=_class_table(rows, info),
        sampled=_sampled(info, chosen, classes),
        sizes=_size_figures(cache),
        sources="" if info.sources is None else f"{info.sources}.",
        failed=_failed(info),
        **pictured,
    )


def _about(info: CacheInfo) -> str:
    lines = str(replace(info, path=Path(info.path.name))).split("\n", 2)
    return f"{lines[0]}; {lines[1]}. Fingerprint {info.fingerprint[:16]}."


def _facts(info: CacheInfo) -> list[Fact]:
    present = [count for count in info.counts if count]
    facts = [Fact("Images", f"{info.images:,}", show_bytes(info.file_bytes))]
    balance = f"{min(present):,} to {max(present):,} images each" if present else "all are empty"
    if present and min(present) == max(present):
        balance = f"{counted(present[0], 'image')}{' each' if len(present) > 1 else ''}"
    facts.append(Fact("Classes", f"{len(info.counts):,}", balance))
    facts.append(Fact("Size", "{} × {}".format(*info.recipe.size), f"{info.recipe.fit}, {info.recipe.dtype}"))
    facts.append(Fact("Failed files", f"{len(info.failed):,}"))
    copies, pairs = len(info.inspection.same_content), len(info.inspection.nearly_alike)
    facts.append(Fact("Copies", f"{copies:,}", f"groups with the same content; {counted(pairs, 'pair')} nearly alike"))
    if info.mean_std is not None:
        mean, std = (" ".join(f"{value:.3f}" for value in values) for values in info.mean_std)
        facts.append(Fact("Mean of the pixels", mean, f"std {std}, on the scale 0 to 1"))
    return facts


def _warnings(cache: TensorCache, info: CacheInfo, rows: Rows) -> list[str]:
    """Say what should be looked into before training."""
    warnings = []
    empty = [rows.class_name(label) for label, count in enumerate(info.counts) if not count]
    if empty:
        warnings.append(
            f"{len(empty)} of {counted(len(info.counts), 'class', 'classes')} without images: {shorten(empty)}."
        )
    labels = cache.labels.numpy()
    across = sum(len(set(labels[group])) > 1 for group in exact_groups(cache.source_sha256))
    if across:
        found = counted(across, "image is", "images are")
        warnings.append(f"{found} in more than one class, with the same content: one of the labels is wrong.")
    if info.failed:
        warnings.append(f"{counted(len(info.failed), 'file')} gave no image; see the list below.")
    sizes = cache.reader.table("source_size").astype(np.int64)
    enlarged = int(((sizes > 0) & (sizes < info.recipe.size)).all(1).sum())
    if enlarged > info.images // 10:
        share = enlarged / info.images
        warnings.append(
            f"{share:.0%} of the images are smaller than the cache's size on both sides: they are enlarged."
        )
    if rows.damaged:
        found = f"{counted(len(rows.damaged), 'damaged row is', 'damaged rows are')} left out; verify lists all"
        warnings.append(f"{found}. The first: {rows.damaged[min(rows.damaged)]}.")
    return warnings + _tested(cache)


def _tested(cache: TensorCache) -> list[str]:
    """Say that the page shows test images, where a split beside the cache keeps some."""
    beside = split_path(cache.path)
    if not beside.exists():
        return []
    try:
        tested = int((match_split(read_split(beside), cache.reader).folds == TEST).sum())
    except PipelineError as error:
        return [f"A split of this cache lies beside it, and cannot be read: {error}."]
    kept = f"{show_path(beside.name)} keeps {counted(tested, 'image')} for the test"
    why = "this page shows them with all others. A choice made by looking at them makes the test less honest."
    return [f"{kept}; {why}"] if tested else []


def _classes_pictured(counts: Sequence[int]) -> list[int]:
    """Return the labels whose samples are shown: all, or the largest and the smallest of many."""
    present = [label for label, count in enumerate(counts) if count]
    if len(present) <= CLASSES_PICTURED:
        return present
    ordered = sorted(present, key=lambda label: counts[label])
    half = CLASSES_PICTURED // 2
    return sorted(ordered[:half] + ordered[len(ordered) - half :])


def _classes(rows: Rows, info: CacheInfo, chosen: Sequence[int]) -> Iterator[ClassShown]:
    each = max(1, min(SAMPLES_OF_A_CLASS, SAMPLES // max(len(chosen), 1)))
    starts = rows.cache.reader.class_starts.tolist()
    for label in chosen:
        samples = spread(starts[label], starts[label + 1], each)
        pictures = [rows.picture(row, with_class=False) for row in samples]
        yield ClassShown(rows.class_name(label), counted(info.counts[label], "image"), pictures)


def spread(start: int, end: int, count: int) -> list[int]:
    """Return `count` rows, or all, evenly spread over start..end-1."""
    count = min(count, end - start)
    return [start + (2 * i + 1) * (end - start) // (2 * count) for i in range(count)]


def _sampled(info: CacheInfo, chosen: Sequence[int], classes: Sequence[ClassShown]) -> str:
    shown = sum(len(one.samples) for one in classes)
    if shown == info.images:
        return "All images."
    which = "" if len(chosen) == len(info.counts) else f" of the {len(chosen)} largest and smallest classes"
    if len(chosen) < len(info.counts) <= CLASSES_PICTURED:
        which = " of the classes that have any"
    return f"{shown:,} of {info.images:,} images{which}, evenly spread over the file names of each class."


def _class_table(rows: Rows, info: CacheInfo) -> Table:
    most = max(info.counts, default=0)
    cells: list[list[str | Bar]] = [
        [rows.class_name(k), Bar(f"{count:,}", count / max(most, 1))] for k, count in enumerate(info.counts)
    ]
    return Table("Images of each class", ["class", "images"], cells)


def _size_figures(cache: TensorCache) -> list[Curve]:
    """Draw the sizes and aspect ratios of the image files; nothing for a cache of an earlier version."""
    sizes = cache.reader.table("source_size").astype(np.float64)
    if not len(sizes) or not sizes.all():
        return []
    height, width = cache.recipe.size
    shorter, ratios = sizes.min(1), sizes[:, 1] / sizes[:, 0]
    figures = (
        ("Shorter side of the image files, in pixels", shorter, min(height, width), f"cache: {min(height, width)}"),
        ("Width / height of the image files", ratios, width / height, f"cache: {width / height:.3g}"),
    )
    curves = []
    for title, values, line, label in figures:
        svg = histogram_svg(values.tolist(), title.partition(" of the")[0].lower(), line, label)
        alt = f"{title}: {values.min():.4g} to {values.max():.4g}, median {np.median(values):.4g}"
        curves.append(Curve(title, Markup(svg), alt))
    return curves


def _extremes(rows: Rows) -> list[Picture]:
    """Show the smallest, largest, narrowest and widest image files."""
    sizes = rows.cache.reader.table("source_size").astype(np.int64)
    if not len(sizes) or not sizes.all():
        return []
    areas, ratios = sizes.prod(1), sizes[:, 1] / sizes[:, 0]
    extremes = {"smallest": areas.argmin(), "largest": areas.argmax()}
    extremes |= {"narrowest": ratios.argmin(), "widest": ratios.argmax()}
    return [
        rows.picture(int(row), f"{name}: {sizes[row][1]:,} × {sizes[row][0]:,} pixels")
        for name, row in extremes.items()
    ]


def _copies(rows: Rows) -> list[Copies]:
    """Show images with the same content, and pairs that are nearly alike; those of different classes first."""
    cache, labels = rows.cache, rows.cache.labels.numpy()
    same = [group.tolist() for group in exact_groups(cache.source_sha256)]
    alike = [list(pair) for pair in cache.reader.table("alike").tolist()]
    found = []
    for title, what, groups, most in (("Same content", "group", same, COPIES), ("Nearly alike", "pair", alike, PAIRS)):
        across = [len({*labels[group].tolist()}) > 1 for group in groups]
        order = sorted(range(len(groups)), key=lambda number: not across[number])[:most]
        about = f"{counted(len(groups), what)}; {counted(sum(across), 'lies', 'lie')} across classes, shown first."
        about += f" The first {most} are shown." if len(groups) > most else ""
        if groups:
            found.append(Copies(title, about, [[rows.picture(row) for row in groups[number][:4]] for number in order]))
    return found


def _notes(rows: Rows) -> tuple[str, list[Picture]]:
    """Show images that are tiny, blank or of several frames."""
    notes = rows.cache.reader.notes
    about = f"{len(notes):,} images; the first {NOTES} are shown." if len(notes) > NOTES else ""
    return about, [rows.picture(row, note) for row, note in notes[:NOTES]]


def _means(rows: Rows) -> tuple[str, list[Picture]]:
    """Average the images of all, and of each class where there are few; say of how many."""
    cache = rows.cache
    most = max(1, MEAN_BYTES // cache.recipe.row_bytes)
    chosen, labels = spread(0, cache.num_images, most), cache.labels.numpy()
    if len(cache.class_ids) > MEANS_UP_TO:  # one sum for all: those of a thousand classes need a gigabyte
        labels = np.zeros_like(labels)
    sums: dict[int, NDArray[np.float64]] = {}
    counts: dict[int, int] = {}
    for start in range(0, len(chosen), 64):
        pixels, good = rows.pixels(chosen[start : start + 64])
        for label in sorted(set(labels[good].tolist())):
            of_class = pixels[labels[good] == label]
            sums[label] = sums.get(label, 0.0) + of_class.sum(0, dtype=np.float64)
            counts[label] = counts.get(label, 0) + len(of_class)
    if not counts:
        return "", []
    total = sum(counts.values())
    means = [("all classes", sum(sums.values()) / total, total)]
    if len(sums) > 1:
        means += [(rows.class_name(label), sums[label] / counts[label], counts[label]) for label in sums]
    of = "all images" if total == cache.num_images else f"{total:,} of {cache.num_images:,} images, evenly spread"
    pictures = [
        Picture(data_url(jpeg_of(np.asarray(mean).round().astype(np.uint8), SIDE)), counted(count, "image"), name)
        for name, mean, count in means
    ]
    return f"The average of {of}, pixel by pixel. It shows what a class has at the same place.", pictures


def _failed(info: CacheInfo) -> Table | None:
    if not info.failed:
        return None
    cells = [
        [show_path(failed.name), show_path(str(failed.class_id)), show_path(failed.reason)]
        for failed in info.failed[:FAILED]
    ]
    rest = f"; the first {FAILED}" if len(info.failed) > FAILED else ""
    return Table(
        f"{counted(len(info.failed), 'file')} without an image{rest}", ["file", "class", "reason"], cells, False
    )

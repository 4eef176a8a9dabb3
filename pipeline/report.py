"""What a person reads of a build and of a cache: plain text, one fact a line."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import show_bytes, show_path
from pipeline.features import Features
from pipeline.recipe import Recipe
from pipeline.sources import ClassId, Failed

SHOWN = 10  # names a list shows before it only counts


@dataclass
class Look:
    """Images worth a look before training on them; names are "class/name".

    Attributes:
        same_content: groups of images whose files are the same bytes.
        nearly_alike: pairs that look alike (a copy that was scaled or compressed again), the first 10,000.
        remarks: (image, remark): tiny, blank, animated.
    """

    same_content: list[list[str]] = field(default_factory=list)
    nearly_alike: list[tuple[str, str]] = field(default_factory=list)
    remarks: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> str:
        """One line, empty where there is nothing."""
        parts = [
            (len(self.same_content), "group", "groups", " with the same content"),
            (len(self.nearly_alike), "pair", "pairs", " nearly alike"),
            (len(self.remarks), "tiny, blank or animated", "tiny, blank or animated", ""),
        ]
        return ", ".join(f"{n} {one if n == 1 else many}{rest}" for n, one, many, rest in parts if n)

    def lines(self) -> Iterator[str]:
        """Everything, a line each."""
        yield from _listed("same content", [" = ".join(map(show_path, group)) for group in self.same_content])
        yield from _listed("nearly alike", [" ~ ".join(map(show_path, pair)) for pair in self.nearly_alike])
        yield from _listed("remarkable", [f"{show_path(name)}: {remark}" for name, remark in self.remarks])


@dataclass
class BuildReport:
    """What became of every file, and of the cache.

    Attributes:
        path: the cache.
        class_ids, class_names, counts: (C,) by label; `counts` are cached images.
        cached: images in the cache; of these were `decoded` now, `copied` from the cache before or `kept` from an
            unfinished build.
        left_out: files that were never meant as images, by reason.
        left_out_named: those that may have been: (path below the source, reason).
        failed: files that should have given an image.
        why: what was out of date, in one line; empty where there was no cache before.
        up_to_date: nothing had to be done, or could be done for files that could not be read before either.
        warnings: what a person should know.
        look: images worth a look.
        file_bytes: size of the cache.
        seconds: how long it all took.
    """

    path: Path
    class_ids: list[ClassId]
    class_names: list[str]
    counts: list[int]
    cached: int
    decoded: int = 0
    copied: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_named: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)
    why: str = ""
    up_to_date: bool = False
    warnings: list[str] = field(default_factory=list)
    look: Look = field(default_factory=Look)
    file_bytes: int = 0
    seconds: float = 0.0

    @property
    def seen(self) -> int:
        """Files looked at; cached + left out + failed."""
        return self.cached + self.left_out.total() + len(self.failed)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _why_lines(self) -> Iterator[str]:
        if self.why:
            yield f"was out of date: {self.why}"

    def _where(self) -> str:
        return f"{show_path(self.path)}: {self.cached} images, {show_bytes(self.file_bytes)}"

    def _lines(self) -> Iterator[str]:
        yield from self._why_lines()
        yield from class_table(self.class_ids, self.class_names, self.counts)
        yield from left_out_lines(self.left_out, self.left_out_named)
        yield from failed_lines(self.failed)
        yield from (f"warning: {warning}" for warning in self.warnings)
        if summary := self.look.summary():
            yield f"worth a look: {summary}; info lists them"
        where = self._where()
        again = sum(failed.passing for failed in self.failed)
        if self.up_to_date and again:
            files = "1 file still fails" if again == 1 else f"{again} files still fail"
            yield f"{where}, is as it was; {files} and will be tried again ({self.seconds:.2f} s)"
        elif self.up_to_date:
            yield f"{where}, is up to date; nothing was decoded ({self.seconds:.2f} s)"
        else:
            parts = (
                (self.decoded, "decoded"),
                (self.copied, "copied"),
                (self.kept, "kept from the unfinished build"),
            )
            done = ", ".join(f"{count} {what}" for count, what in parts if count)
            rate = _rate(self.decoded, self.seconds)
            yield f"{where}: {done or 'tables alone rewritten'} in {self.seconds:.1f} s{rate}"


class WorkerRate(NamedTuple):
    """What one worker of an executor did: shards, images decoded, seconds that it was busy."""

    name: str
    shards: int
    decoded: int
    seconds: float

    def __str__(self) -> str:
        rate = _rate(self.decoded, self.seconds)
        shards = "1 shard" if self.shards == 1 else f"{self.shards} shards"
        return f"worker {_printable(self.name)}: {shards}, {self.decoded} decoded in {self.seconds:.1f} s{rate}"


@dataclass
class SetReport(BuildReport):
    """What became of a set of shards, or of one shard built alone; `path` is the set's name.

    Attributes:
        shards: in the set.
        built: those that this build touched.
        whys: what was out of date, and in how many shards.
        shard: the number of the one that was built alone; None for all.
        missing: shards that are not there yet, where one was built alone.
        workers: what each worker of an executor did.
    """

    shards: int = 1
    built: int = 0
    whys: Counter[str] = field(default_factory=Counter)
    shard: int | None = None
    missing: int = 0
    workers: list[WorkerRate] = field(default_factory=list)

    def _why_lines(self) -> Iterator[str]:
        for why, count in self.whys.most_common(SHOWN):
            shards = "1 shard was" if count == 1 else f"{count} shards were"
            yield f"{shards} out of date: {why}"
        if len(self.whys) > SHOWN:
            yield f"and {self.whys.total() - sum(n for _, n in self.whys.most_common(SHOWN))} shards more"

    def _where(self) -> str:
        files = f" in {self.shards} shards" if self.shard is None else f", shard {self.shard} of {self.shards}"
        return f"{show_path(self.path)}: {self.cached} images{files}, {show_bytes(self.file_bytes)}"

    def _lines(self) -> Iterator[str]:
        yield from super()._lines()
        yield from map(str, self.workers)
        if self.missing:
            yield f"{self.shards - self.missing} of {self.shards} shards are there"


@dataclass
class CacheInfo:
    """What a cache says of itself; see `SetReport` for the fields.

    `shards` is None of a cache that is whole; `shard` is the number of a shard that is looked at alone.
    """

    path: Path
    class_ids: list[ClassId]
    class_names: list[str]
    counts: list[int]
    images: int
    recipe: Recipe
    decoder: str
    fingerprint: str
    file_bytes: int
    failed: list[Failed]
    look: Look
    features: Features | None = None
    shards: int | None = None
    shard: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        names = zip(self.class_ids, self.class_names, self.counts, strict=True)
        return {
            "path": str(self.path),
            "images": self.images,
            "classes": [{"id": class_id, "name": name, "images": count} for class_id, name, count in names],
            "recipe": self.recipe.to_dict(),
            "features": None if self.features is None else self.features.to_dict(),
            "decoder": self.decoder,
            "fingerprint": self.fingerprint,
            "file_bytes": self.file_bytes,
            "shards": self.shards,
            "shard": self.shard,
            "failed": [failed._asdict() for failed in self.failed],
            "look": asdict(self.look),
        }

    def __str__(self) -> str:
        recipe = self.recipe
        mean, std = (" ".join(f"{value:g}" for value in values) for values in (recipe.mean, recipe.std))
        files = f" in {self.shards} shards" if self.shards else ""
        if self.shard is not None:
            files = f", shard {self.shard} of {self.shards}"
        lines = [
            f"{show_path(self.path)}: {self.images} images{files}, {show_bytes(self.file_bytes)}",
            f"recipe: {recipe.size} × {recipe.size} RGB, mean {mean}, std {std}, stored as {recipe.dtype}"
            + (", turned as EXIF says" if recipe.exif_rotate else "")
            + (", large JPEGs decoded at a part of their size" if recipe.scaled_decode else ""),
            *([] if self.features is None else [f"features: {self.features}", f"of images: {self.features.images}"]),
            f"fingerprint: {self.fingerprint}",
            *class_table(self.class_ids, self.class_names, self.counts),
            *failed_lines(self.failed),
            *self.look.lines(),
        ]
        return "\n".join(lines)


def class_table(ids: Sequence[ClassId], names: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Lay out classes with label, id, name and number of images."""
    rows = [("label", "class", "name" if any(names) else "", "images")]
    columns = zip(ids, names, counts, strict=True)
    rows += [(str(label), show_path(str(i)), _printable(n), str(count)) for label, (i, n, count) in enumerate(columns)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{label:>{widths[0]}}  {class_id:<{widths[1]}}  "
        + (f"{name:<{widths[2]}}  " if widths[2] else "")
        + f"{count:>{widths[3]}}"
        for label, class_id, name, count in rows
    ]


def left_out_lines(left_out: Counter[str], named: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Count what was left out by reason, and name what may have been meant as an image."""
    if left_out:
        counts = ", ".join(f"{count} × {reason}" for reason, count in sorted(left_out.items()))
        yield f"left out: {counts}"
    for name, reason in named[:SHOWN]:
        yield f"  {show_path(name)}: {reason}"
    if len(named) > SHOWN:
        yield f"  and {len(named) - SHOWN} more"


def failed_lines(failed: Sequence[Failed]) -> Iterator[str]:
    """Name what failed, with class and reason."""
    yield from _listed("failed", [f"class {show_path(str(f.class_id))}, {_failed(f)}" for f in failed], SHOWN * 2)


def _failed(failed: Failed) -> str:
    again = " (the next build tries again)" if failed.passing else ""
    return f"{show_path(failed.name)}: {_printable(failed.reason)}{again}"


def _listed(what: str, entries: Sequence[str], shown: int = SHOWN) -> Iterator[str]:
    if entries:
        yield f"{what}: {len(entries)}"
        yield from (f"  {entry}" for entry in entries[:shown])
        if len(entries) > shown:
            yield f"  and {len(entries) - shown} more (info --json shows all)"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _rate(images: int, seconds: float) -> str:
    if not images or not seconds:
        return ""
    rate = images / seconds
    return f", {rate:.{0 if rate >= 1 else 2}f} images/s"


def image_name(folder: bytes, name: bytes) -> str:
    """Name an image: "class/name"."""
    return os.fsdecode(folder + b"/" + name)

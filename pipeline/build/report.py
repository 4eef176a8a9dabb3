"""Report a build to a person: plain text, one fact a line."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.format.classes import ClassId, class_table
from pipeline.format.inspection import Inspection
from pipeline.format.tables import Failed
from pipeline.text import (
    SHOWN,
    ShownAsText,
    counted,
    first_lines,
    printable,
    show_bytes,
    show_path,
    show_rate,
    titled_lines,
)


@dataclass
class BuildReport(ShownAsText):
    """The result of a build, for every file of the source.

    Attributes:
        path: the cache.
        class_ids, class_names, counts: (C,) by label; `counts` are cached images.
        cached: images in the cache: `decoded` now, `copied` from the old cache, `kept` from an unfinished build, or
            left in place.
        left_out: number of files that are no images, by reason.
        left_out_named: (path below the source, reason) of those that may have been meant as images.
        failed: files that should have given an image and did not.
        why: the reason why the old cache was out of date, in one line; empty without one.
        inherited: the options that were taken from the old cache, in one line.
        up_to_date: True if nothing was done: nothing was missing, or the same files still cannot be read.
        warnings: one line each.
        inspection: images worth a look.
        file_bytes: size of the cache.
        seconds: the time that the build took.
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
    inherited: str = ""
    up_to_date: bool = False
    warnings: list[str] = field(default_factory=list)
    inspection: Inspection = field(default_factory=Inspection)
    file_bytes: int = 0
    seconds: float = 0.0

    @property
    def seen(self) -> int:
        """Number of files in the source: cached + left out + failed."""
        return self.cached + self.left_out.total() + len(self.failed)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def __repr__(self) -> str:
        images = f"{counted(self.cached, 'image')}, {counted(len(self.class_ids), 'class', 'classes')}"
        return f"{type(self).__name__}({str(self.path)!r}: {images}, {len(self.failed)} failed)"

    def _why_lines(self) -> Iterator[str]:
        if self.why:
            yield f"was out of date: {self.why}"

    def _where(self) -> str:
        return f"{show_path(self.path)}: {counted(self.cached, 'image')}, {show_bytes(self.file_bytes)}"

    def _lines(self) -> Iterator[str]:
        if self.inherited:
            yield self.inherited
        yield from self._why_lines()
        yield from class_table(self.class_ids, self.class_names, self.counts)
        yield from left_out_lines(self.left_out, self.left_out_named)
        yield from failed_lines(self.failed)
        yield from (f"warning: {warning}" for warning in self.warnings)
        if summary := self.inspection.summary():
            yield f"worth inspecting: {summary}; info lists them"
        where = self._where()
        again = sum(failed.transient for failed in self.failed)
        if self.up_to_date and again:
            files = "1 file still fails" if again == 1 else f"{again} files still fail"
            yield f"{where}, is as it was; {files} and will be tried again ({self.seconds:.2f} s)"
        elif self.up_to_date:
            yield f"{where}, is up to date; nothing was decoded ({self.seconds:.2f} s)"
        else:
            parts = ((self.decoded, "decoded"), (self.copied, "copied"), (self.kept, "kept from the unfinished build"))
            done = ", ".join(f"{count} {what}" for count, what in parts if count)
            rate = show_rate(self.decoded, self.seconds)
            yield f"{where}: {done or 'tables alone rewritten'} in {self.seconds:.1f} s{rate}"


def left_out_lines(left_out: Counter[str], named: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield the number of files left out by reason, and the names of possible images."""
    if left_out:
        counts = ", ".join(f"{count} × {reason}" for reason, count in sorted(left_out.items()))
        yield f"left out: {counts}"
    yield from (f"  {line}" for line in first_lines([f"{show_path(name)}: {reason}" for name, reason in named]))


def failed_lines(failed: Sequence[Failed]) -> Iterator[str]:
    """Yield failed files with class and reason."""
    yield from titled_lines("failed", [f"class {show_path(str(f.class_id))}, {_failed(f)}" for f in failed], SHOWN * 2)


def _failed(failed: Failed) -> str:
    again = " (the next build tries again)" if failed.transient else ""
    return f"{show_path(failed.name)}: {printable(failed.reason)}{again}"

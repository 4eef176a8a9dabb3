"""Report a sharded build to a person."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.build.report import BuildReport
from pipeline.format.tables import sort_failures
from pipeline.source.manifest import Manifest
from pipeline.text import counted, first_lines, printable, show_bytes, show_path, show_rate


class WorkerRate(NamedTuple):
    """The work of one worker of an executor: shards, images decoded, seconds that it was busy."""

    name: str
    shards: int
    decoded: int
    seconds: float

    def __str__(self) -> str:
        rate = show_rate(self.decoded, self.seconds)
        shards = "1 shard" if self.shards == 1 else f"{self.shards} shards"
        return f"worker {printable(self.name)}: {shards}, {self.decoded} decoded in {self.seconds:.1f} s{rate}"


@dataclass(repr=False)
class ShardsReport(BuildReport):
    """The result of a build of all shards, or of one alone; `path` is the name or pattern of the shards.

    Attributes:
        shards: number of all shards.
        built: number of shards that this build touched.
        whys: why shards were out of date, and how many of them.
        shard: the number of the shard that was built alone; None for all.
        missing: number of shards that are not there yet, if one was built alone.
        workers: the work of each worker of an executor.
    """

    shards: int = 1
    built: int = 0
    whys: Counter[str] = field(default_factory=Counter)
    shard: int | None = None
    missing: int = 0
    workers: list[WorkerRate] = field(default_factory=list)

    def _why_lines(self) -> Iterator[str]:
        shards = (
            (why, "1 shard was" if count == 1 else f"{count} shards were") for why, count in self.whys.most_common()
        )
        yield from first_lines([f"{were} out of date: {why}" for why, were in shards])

    def _where(self) -> str:
        files = f" in {self.shards} shards" if self.shard is None else f", shard {self.shard} of {self.shards}"
        return f"{show_path(self.path)}: {counted(self.cached, 'image')}{files}, {show_bytes(self.file_bytes)}"

    def _lines(self) -> Iterator[str]:
        yield from super()._lines()
        yield from map(str, self.workers)
        if self.missing:
            yield f"{self.shards - self.missing} of {self.shards} shards are there"


def add_up(reports: Sequence[BuildReport], manifest: Manifest) -> ShardsReport:
    """Add up the reports of shards, at least one, of the source that `manifest` lists."""
    first = reports[0]
    report = ShardsReport(first.path, first.class_ids, first.class_names, [0] * len(first.class_ids), 0)
    report.left_out, report.left_out_named = manifest.left_out, manifest.left_out_named
    report.warnings = list(manifest.warnings)
    for part in reports:
        report.counts = [a + b for a, b in zip(report.counts, part.counts, strict=True)]
        for name in ("cached", "decoded", "copied", "kept", "failed", "file_bytes"):
            setattr(report, name, getattr(report, name) + getattr(part, name))
        report.warnings += [warning for warning in part.warnings if warning not in report.warnings]
        report.built += not part.up_to_date
        if part.why:
            report.whys[part.why] += 1
    report.failed = sort_failures(report.failed, first.class_ids)
    report.up_to_date = not report.built
    return report


def worker_rates(done: Sequence[tuple[str, int, float]]) -> list[WorkerRate]:
    """Add up what each worker did.

    Args:
        done: of each shard its worker (empty: this process), images decoded, and seconds.
    """
    by_worker: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for worker, decoded, seconds in done:
        if worker:
            by_worker[worker].append((decoded, seconds))
    return [
        WorkerRate(name, len(shards), sum(n for n, _ in shards), sum(seconds for _, seconds in shards))
        for name, shards in sorted(by_worker.items())
    ]

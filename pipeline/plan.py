"""What a build would do, without doing it: `build-cache --dry-run`."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline import freshness
from pipeline.build import open_old_cache, refuse_other_content, refuse_other_photographs, refuse_place
from pipeline.classes import Choice
from pipeline.decode import Undecodable, decode, decoder_identity
from pipeline.errors import show_bytes, show_path
from pipeline.ledger import Ledger
from pipeline.places import Damaged, read_image
from pipeline.recipe import Recipe
from pipeline.report import class_table, failed_lines, left_out_lines
from pipeline.scan import scan_source
from pipeline.sources import Scan
from pipeline.unfinished import room_needed

_TRIAL_SECONDS = 0.5


@dataclass
class Plan:
    """What `build_cache` would find and need.

    Attributes:
        scan: of the source.
        path: where the cache would be.
        state: "up to date", "out of date: …", "not there yet" or "damaged: …".
        bytes_needed, bytes_free: of the disk, where the cache is to be.
        seconds: estimated from decoding a few of the images, with all workers; 0 where nothing has to be decoded.
    """

    scan: Scan
    path: Path
    state: str
    bytes_needed: int
    bytes_free: int
    seconds: float

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        scan = self.scan
        counts = np.bincount(scan.labels, minlength=len(scan.class_ids)).tolist()
        yield from class_table(scan.class_ids, scan.class_names, counts)
        yield from left_out_lines(scan.left_out, scan.left_out_named)
        yield from failed_lines(scan.failed)
        yield from (f"warning: {warning}" for warning in scan.warnings)
        yield f"{show_path(self.path)}: {self.state}"
        enough = "" if self.bytes_needed <= self.bytes_free else ": NOT ENOUGH"
        yield f"needs {show_bytes(self.bytes_needed)}, {show_bytes(self.bytes_free)} free{enough}"
        yield f"would take about {self.seconds:.0f} s" if self.seconds else "nothing would be decoded"


def plan_build(
    source: Path,
    path: Path,
    recipe: Recipe,
    workers: int | None = None,
    rebuild: bool = False,
    choice: Choice | None = None,
) -> Plan:
    """Look at source and cache as `build_cache` would; write nothing.

    Raises:
        SourceError, AccessDenied, OutputError: as `build_cache`.
    """
    scan = scan_source(source, path, choice)
    refuse_place(path)
    ledger = Ledger(scan)
    todo = len(scan.names)
    old, damage = open_old_cache(path, rebuild)
    state = damage or "not there yet"
    if old is not None:
        if not rebuild:
            refuse_other_content(old, "images")
        stats = freshness.read_stats(old)
        damaged = freshness.damaged_rows(old) if stats is None else []
        verdict = freshness.compare(ledger, old, recipe, decoder_identity(), stats, damaged)
        if verdict.fresh and not rebuild:
            state, todo = "up to date", 0
        else:
            state = f"out of date: {verdict or 'a rebuild was asked for'}"
        if not rebuild:
            refuse_other_photographs(old, verdict)
            if verdict.same_pixels:
                todo = len(scan.names) - verdict.shared - len(verdict.failures) + len(damaged)
    unfinished = path.with_name(path.name + ".building")
    reserved = unfinished.stat().st_blocks * 512 if unfinished.exists() else 0
    if reserved:
        state += "; an unfinished build is there, and what fits of it will be kept"
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    return Plan(
        scan=scan,
        path=path,
        state=state,
        bytes_needed=room_needed(ledger, recipe, len(scan.names)),
        bytes_free=shutil.disk_usage(place).free + reserved,
        seconds=todo * _seconds_an_image(scan, recipe) / (workers or os.cpu_count() or 1) if todo else 0,
    )


def _seconds_an_image(scan: Scan, recipe: Recipe) -> float:
    """Decode images spread over the source for half a second."""
    rows = np.random.default_rng(0).permutation(len(scan.names))
    start = time.monotonic()
    done, spent = 0, 0.0
    for row in rows.tolist():
        done += 1
        with suppress(OSError, Undecodable, Damaged, MemoryError):
            decode(read_image(scan.place(row))[0], recipe)
        spent = time.monotonic() - start
        if spent > _TRIAL_SECONDS:
            break
    return spent / done

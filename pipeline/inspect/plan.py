"""Plan a build without doing it: `build-cache --dry-run`."""

import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.build.assess import Assessment, assess
from pipeline.build.image_table import ImageTable
from pipeline.build.output import refuse_beside_shards, refuse_place
from pipeline.build.report import failed_lines, left_out_lines
from pipeline.build.space import room_needed
from pipeline.build.task import Task
from pipeline.decode.decode import decode
from pipeline.decode.faults import Undecodable
from pipeline.format.classes import class_table
from pipeline.format.paths import shards_pattern
from pipeline.format.tables import Failed, sort_failures
from pipeline.recipe import Recipe
from pipeline.shards.build import ShardsBuild
from pipeline.shards.choice import ShardChoice
from pipeline.source.manifest import Manifest
from pipeline.source.reader import Damaged, read_image
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.system.processes import usable_cores
from pipeline.text import SHOWN, show_bytes, show_path

_TRIAL_SECONDS = 0.5


@dataclass
class Plan:
    """The work and the space that a build needs.

    Attributes:
        manifest: of the source.
        failures: images that failed when the cache was built, and would again.
        path: where the cache would be.
        state: "up to date", "out of date: …", "not there yet" or "the cache was damaged: …".
        bytes_needed, bytes_free: on the disk of the cache.
        seconds: estimated by decoding a few images, for all workers; 0 if nothing has to be decoded.
    """

    manifest: Manifest
    failures: list[Failed]
    path: Path
    state: str
    bytes_needed: int
    bytes_free: int
    seconds: float

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        manifest = self.manifest
        failing = Counter(failed.class_id for failed in self.failures)
        found = np.bincount(manifest.labels, minlength=len(manifest.class_ids)).tolist()
        counts = [count - failing[class_id] for class_id, count in zip(manifest.class_ids, found, strict=True)]
        yield from class_table(manifest.class_ids, manifest.class_names, counts)
        yield from left_out_lines(manifest.left_out, manifest.left_out_named)
        yield from failed_lines(manifest.failed + self.failures)
        yield from (f"warning: {warning}" for warning in manifest.warnings)
        yield f"{show_path(self.path)}: {self.state}"
        enough = "" if self.bytes_needed <= self.bytes_free else ": NOT ENOUGH"
        yield f"needs {show_bytes(self.bytes_needed)}, {show_bytes(self.bytes_free)} free{enough}"
        yield f"would take about {self.seconds:.0f} s" if self.seconds else "nothing would be decoded"


def plan_build(
    source: Path,
    path: Path,
    recipe: Recipe,
    shards: ShardChoice | None = None,
    workers: int | None = None,
    rebuild: bool = False,
    choice: Choice | None = None,
) -> Plan:
    """Plan what `build_cache` would do, or `build_shards` where shards are given; write nothing.

    Raises:
        SourceError, AccessDenied, OutputError: as these.
    """
    if shards is None:
        refuse_beside_shards(path)
        manifest = scan_source(source, path, choice)
        refuse_place(path)
        files = [assess(Task(source, choice, manifest, path, recipe, None, rebuild=rebuild))]
        files[0].refuse_loss()
    else:
        manifest = scan_source(source, path, choice)
        build = ShardsBuild(source, manifest, path, recipe, shards, choice, rebuild)
        build.refuse()
        files = [assess(build.task(index)) for index in build.chosen]
        path = shards_pattern(path, build.count) if shards.only is None else build.file(shards.only)
    states = Counter(map(_state, files)).most_common(SHOWN)
    todo, reserved = sum(file.todo for file in files), sum(_reserved(file.task.path) for file in files)
    failures = [failed for file in files if file.reusable for failed in file.staleness.failures.values()]
    place = path.absolute().parent
    while not place.exists():
        place = place.parent
    return Plan(
        manifest=manifest,
        failures=sort_failures(failures, manifest.class_ids),
        path=path,
        state="; ".join(text if len(states) == 1 else f"{number} {text}" for text, number in states),
        bytes_needed=room_needed(ImageTable(manifest), recipe, len(manifest.names)),
        bytes_free=shutil.disk_usage(place).free + reserved,
        seconds=todo * _seconds_an_image(manifest, recipe) / (workers or usable_cores()) if todo else 0,
    )


def _reserved(path: Path) -> int:
    """Return the bytes of the disk that an unfinished build has."""
    partial = path.with_name(path.name + ".building")
    return partial.stat().st_blocks * 512 if partial.exists() else 0


def _state(found: Assessment) -> str:
    partial = "; there is an unfinished build, and its matching rows will be kept" * (_reserved(found.task.path) > 0)
    return found.state + partial


def _seconds_an_image(manifest: Manifest, recipe: Recipe) -> float:
    """Decode images spread over the source for half a second."""
    rows = np.random.default_rng(0).permutation(len(manifest.names))
    start = time.monotonic()
    done, spent = 0, 0.0
    for row in rows.tolist():
        done += 1
        with suppress(OSError, Undecodable, Damaged, MemoryError):
            decode(read_image(manifest.location(row))[0], recipe)
        spent = time.monotonic() - start
        if spent > _TRIAL_SECONDS:
            break
    return spent / done

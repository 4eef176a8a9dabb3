"""Plan a build without doing it: `build-cache --dry-run`."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.build.assess import Assessment, assess, room_beside_pixels, task_of_pixels
from pipeline.build.output import refuse_beside_shards, refuse_place
from pipeline.build.report import failed_lines, left_out_lines
from pipeline.build.space import Room, reserved, room_at, room_needed
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
from pipeline.text import SHOWN, show_path

_TRIAL_SECONDS = 0.5


@dataclass
class Plan:
    """The work and the space that a build needs.

    Attributes:
        manifest: of the whole source.
        counts: (C,) images that would be cached, by label; of one shard, if that is built alone.
        failed: files that give no image, as far as that is known.
        path: where the cache would be.
        state: "up to date", "out of date: …", "not there yet", or why the file that is there cannot be used.
        room: on the disk of the cache; nothing is needed where nothing would be written.
        seconds: estimated by decoding a few images, for all workers; 0 if nothing has to be decoded.
    """

    manifest: Manifest
    counts: list[int]
    failed: list[Failed]
    path: Path
    state: str
    room: Room
    seconds: float

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        manifest = self.manifest
        yield from class_table(manifest.class_ids, manifest.class_names, self.counts)
        yield from left_out_lines(manifest.left_out, manifest.left_out_named)
        yield from failed_lines(self.failed)
        yield from (f"warning: {warning}" for warning in manifest.warnings)
        yield f"{show_path(self.path)}: {self.state}"
        if self.room.needed:
            yield f"{self.room}{'' if self.room.is_enough else ': NOT ENOUGH'}"
        yield f"would take about {self.seconds:.0f} s" if self.seconds else "nothing would be decoded"


def plan_build(
    source: Path,
    path: Path,
    recipe: Recipe,
    shards: ShardChoice | None = None,
    workers: int | None = None,
    rebuild: bool = False,
    choice: Choice | None = None,
    own_mean_std: bool = False,
) -> Plan:
    """Plan what `build_cache` would do, or `build_shards` where shards are given; write nothing.

    Args:
        source, path, workers, rebuild, choice: as these have them.
        recipe: of the build.
        shards: to build; None for one file.
        own_mean_std: the build computes mean and std, as `computes_mean_std` tells.

    Raises:
        SourceError, OutputError, AccessDenied, WorkerDied, StorageError: as these.
    """
    if shards is None:
        refuse_beside_shards(path)
        manifest = scan_source(source, path, choice)
        refuse_place(path)
        task = Task(source, choice, manifest, path, recipe, None, rebuild=rebuild)
        files = [assess(task)]
        files[0].refuse_loss()
        todo = files[0].todo
        room = room_at(0 if files[0].up_to_date else room_needed(files[0].images, recipe, len(manifest.names)), [path])
        if own_mean_std and (pixels := task_of_pixels(task)).path != path:
            room, todo = room_beside_pixels(task, pixels), assess(pixels).todo
    else:
        manifest = scan_source(source, path, choice)
        build = ShardsBuild(source, manifest, path, recipe, shards, choice, rebuild)
        build.refuse()
        files = [assess(build.task(index)) for index in build.chosen]
        room = build.room([index for index, file in zip(build.chosen, files, strict=True) if not file.up_to_date])
        path = shards_pattern(path, build.count) if shards.only is None else build.file(shards.only)
        todo = sum(file.todo for file in files)
    states = Counter(map(_state, files)).most_common(SHOWN)
    known = [failed for file in files if file.reusable for failed in file.staleness.failures.values()]
    failing = Counter(failed.class_id for failed in known)
    labels = np.concatenate([file.task.manifest.labels for file in files])
    found = np.bincount(labels, minlength=len(manifest.class_ids)).tolist()
    failed = [failed for file in files for failed in file.task.manifest.failed] + known
    return Plan(
        manifest=manifest,
        counts=[count - failing[class_id] for class_id, count in zip(manifest.class_ids, found, strict=True)],
        failed=sort_failures(failed, manifest.class_ids),
        path=path,
        state="; ".join(text if len(states) == 1 else f"{number} {text}" for text, number in states),
        room=room,
        seconds=todo * _seconds_an_image(manifest, recipe) / (workers or usable_cores()) if todo else 0,
    )


def _state(found: Assessment) -> str:
    partial = "; there is an unfinished build, and its matching rows will be kept" * (reserved(found.task.path) > 0)
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

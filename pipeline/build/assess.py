"""Decide what a build of one file has to do: the one answer to "is the cache fresh?". Changes nothing.

The build, the dry run, the shards and `info --check` all ask here; what follows from the answer is theirs.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from pipeline.build import stat_cache
from pipeline.build.image_table import ImageTable
from pipeline.build.output import (
    identity,
    open_old_cache,
    refuse_other_content,
    refuse_other_photographs,
    refuse_place,
)
from pipeline.build.space import Room, bytes_needed, room_at, room_needed
from pipeline.build.staleness import Staleness, compare, damaged_rows
from pipeline.build.task import Task
from pipeline.format.header import PIXELS, describe_shard
from pipeline.format.reader import CacheReader
from pipeline.recipe import Recipe


@dataclass
class Assessment:
    """The state of cache and source before a build changes anything.

    Attributes:
        task: the build.
        images: the images of the source; it knows the contents that were read for the comparison.
        old: the cache that is there, or the donor of the task; None without one, or if header or tables are damaged.
        why: why that cache must be rebuilt, in one line; empty where it need not, or where there is none.
        staleness: how source and cache differ; empty without a cache.
        reusable: rows of the cache can be copied, or derived without decoding.
        todo: images that have to be decoded.
    """

    task: Task
    images: ImageTable
    old: CacheReader | None = None
    why: str = ""
    staleness: Staleness = field(default_factory=Staleness)
    reusable: bool = False
    todo: int = 0

    @property
    def up_to_date(self) -> bool:
        """True where the build has nothing to do."""
        return self.old is not None and not self.why

    @property
    def state(self) -> str:
        """The cache's state in one line, for people."""
        if self.up_to_date:
            return "up to date"
        return f"out of date: {self.why}" if self.old else self.why or "not there yet"

    def refuse_loss(self) -> None:
        """Refuse to replace features, or the cache of other photographs.

        Of a shard, all shards together tell, before any is built; one that came since then is judged alone.

        Raises:
            OutputError: the cache that is there would be lost.
        """
        if self.task.rebuild:
            return
        if self.task.donor is not None:  # `old` only gives rows; the cache at the path would be replaced
            assess(replace(self.task, donor=None)).refuse_loss()
        elif self.old is not None:
            refuse_other_content(self.old, "images")
            is_new = identity(self.task.path) != self.task.before
            if (self.task.shard is None or is_new) and not self.up_to_date:
                refuse_other_photographs(self.task.path, self.staleness.held, self.old.num_images)


def assess(task: Task) -> Assessment:
    """Compare the source of a build with the cache that is there.

    Raises:
        OutputError: the file that is there is no cache, or one of a newer version.
    """
    images = ImageTable(task.manifest)
    count = len(task.manifest.names)
    old, why = open_old_cache(task.donor or task.path, task.rebuild)
    if old is None:
        return Assessment(task, images, why=why, todo=count)
    stats = stat_cache.read_stats(old)
    damaged = damaged_rows(old) if stats is None else []
    staleness = compare(images, old, task.recipe, stats, damaged)
    if old.header.shard != task.shard and not staleness.other:
        staleness.other.append(f"it was {describe_shard(old.header.shard)}")
    why = str(staleness) or ("a rebuild was asked for" if task.anew else "")
    reusable = staleness.same_pixels and not task.anew
    todo = 0 if not why else count
    if why and reusable:
        todo = count - staleness.shared + staleness.other_rows - len(staleness.failures) + len(damaged)
    return Assessment(task, images, old, why, staleness, reusable, todo)


def computes_mean_std(path: Path, rebuild: bool) -> bool:
    """Tell whether a build with the mean and std of its own pixels computes them: a cache that is there keeps its own.

    Raises:
        OutputError, AccessDenied: the path cannot become a cache, or there is a file that is none.
    """
    refuse_place(path)
    return rebuild or open_old_cache(path, rebuild)[0] is None


def task_of_pixels(task: Task) -> Task:
    """Return the build of the 8-bit pixels that mean and std of a cache are computed from.

    They are the rows of the cache itself, or else a cache beside it until it is built, which a stopped build leaves.
    """
    own = replace(task, recipe=replace(task.recipe, dtype="uint8"), options=None, own_mean_std=True)
    if task.recipe.dtype == "uint8":
        return own
    path = task.path.with_name(task.path.name + PIXELS)  # a file of our own, which nothing is lost with
    own = replace(own, path=path, before=identity(path), rebuild=True)
    there = open_old_cache(path, rebuild=True)[0]
    if there is not None and _differs_in_mean_and_std_alone(there.recipe, own.recipe):
        finished = replace(own, recipe=there.recipe, rebuild=False, own_mean_std=False)
        return finished if assess(finished).up_to_date else own
    return own


def _differs_in_mean_and_std_alone(one: Recipe, other: Recipe) -> bool:
    return replace(one, mean=other.mean, std=other.std) == other


def room_beside_pixels(task: Task, pixels: Task) -> Room:
    """Estimate the disk space that a build needs while a cache of its pixels lies beside it.

    Args:
        task: the build.
        pixels: its `task_of_pixels`.
    """
    images, rows = ImageTable(task.manifest), len(task.manifest.names)
    needed = bytes_needed(images, pixels.recipe, rows) if pixels.own_mean_std else 0  # else it is there
    return room_at(needed + room_needed(images, task.recipe, rows), [task.path, pixels.path])

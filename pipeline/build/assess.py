"""Decide what a build of one file has to do: the one answer to "is the cache fresh?". Changes nothing.

The build, the dry run, the shards and `info --check` all ask here; what follows from the answer is theirs.
"""

from dataclasses import dataclass, field, replace

from pipeline.build import stat_cache
from pipeline.build.image_table import ImageTable
from pipeline.build.output import open_old_cache, refuse_other_content, refuse_other_photographs
from pipeline.build.staleness import Staleness, compare, damaged_rows
from pipeline.build.task import Task
from pipeline.format.header import describe_shard
from pipeline.format.reader import CacheReader


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
        """Refuse to replace features, or the cache of other photographs; of a shard's, only all shards can tell.

        Raises:
            OutputError: the cache that is there would be lost.
        """
        if self.task.rebuild:
            return
        if self.task.donor is not None:  # `old` only gives rows; the cache at the path would be replaced
            assess(replace(self.task, donor=None)).refuse_loss()
        elif self.old is not None:
            refuse_other_content(self.old, "images")
            if self.task.shard is None and not self.up_to_date:
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

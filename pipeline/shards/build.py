"""Build a cache in shards: each is a file built by the same code, several at a time here, or by workers.

The build of a shard gets its own images only. Shards share nothing but the folder, so independent processes can build
them, and the next build completes what an interrupted one left.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Unpack

from pipeline.build.assess import assess
from pipeline.build.build import nothing_decoded
from pipeline.build.image_table import ImageTable
from pipeline.build.output import (
    identity,
    made_folder,
    open_old_cache,
    refuse_other_content,
    refuse_other_photographs,
    refuse_place,
)
from pipeline.build.space import Room, room_at, room_needed
from pipeline.build.task import Progress, Task, choose_recipe
from pipeline.decode.decode import decoder_identity
from pipeline.decode.formats import JPEG
from pipeline.format.fingerprint import shards_id
from pipeline.format.header import Shard
from pipeline.format.inspection import inspect_images
from pipeline.format.paths import shard_path, shard_paths, shards_at, shards_pattern
from pipeline.format.sharded import open_reader
from pipeline.recipe import Recipe, RecipeOptions
from pipeline.shards.choice import ShardChoice, choose_count
from pipeline.shards.local import AT_A_TIME, build_here, builders, share
from pipeline.shards.remote import BuiltShard, build_shard, installed_decoders, run_tasks
from pipeline.shards.report import ShardsReport, add_up, worker_rates
from pipeline.source.manifest import Manifest
from pipeline.source.partition import Partition
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.system import files
from pipeline.system.processes import usable_cores


def build_shards(
    source: "str | os.PathLike[str]",
    path: "str | os.PathLike[str]",
    shards: int | None = None,
    *,
    rows_per_shard: int | None = None,
    only: int | None = None,
    choice: Choice | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    rebuild: bool = False,
    wait: bool = False,
    progress: Progress | None = None,
    **options: Unpack[RecipeOptions],
) -> ShardsReport:
    """Decode a folder of images into shards, each a cache of its own that lists all classes.

    An image's shard follows from its class and name, so a build touches only the shards whose images changed.

    Args:
        source: the folder of class folders, or an archive of them; see `scan_source`.
        path: the name without numbers: `name.h5` for the files `name-00000-of-00064.h5` and so on.
        shards: number of files.
        rows_per_shard: chooses the number at the first build; later builds keep it.
        only: build only this shard, 0..shards-1.
        choice: which classes and how many images of each; None for all.
        workers: processes that decode, at most, shared by the shards in work; None for two a core. With an executor,
            processes for each shard; None for one.
        executor: builds shards at the same time, each in one of its workers, which see source and cache under the
            same paths as this process: a pool of processes, or a cluster's.
        rebuild: decode everything anew.
        wait: wait for another build of the same shard instead of raising `CacheBusy`.
        progress: called with (images done, images in all).
        options: the recipe, as `build_cache` takes it.

    Raises:
        ValueError: an impossible recipe or number.
        SourceError: no images there.
        OutputError: the shards cannot be created there, are of another number, or hold other photographs.
        CacheBusy: another process builds a shard.
        StorageError, AccessDenied, WorkerDied: the system failed; what is done is kept and the next call goes on.
    """
    start = time.monotonic()
    recipe, inherited = choose_recipe(Path(path), rebuild, **options)
    if workers is not None and workers < 1:
        raise ValueError(f"workers is a number of processes from 1, not {workers}")
    chosen = ShardChoice(shards, rows_per_shard, only)
    source, path = Path(source), Path(path)
    before = {file: identity(file) for shards_there in shards_at(path).values() for file in shards_there}
    manifest = scan_source(source, path, choice)
    build = ShardsBuild(source, manifest, path, recipe, chosen, choice, rebuild, wait, workers, before)
    build.refuse()
    with made_folder(path.parent):
        build.check_room()
        done = list(build.here(progress) if executor is None else build.elsewhere(executor, progress))
        report = build.report(done)
    report.inherited = inherited
    report.seconds = time.monotonic() - start
    return report


@dataclass
class ShardsBuild:
    """A build of one shard or all of them, with the arguments of `build_shards`.

    Attributes:
        manifest: of the whole source.
        shards: the shards to build; see `choose_count` for their number.
        before: `identity` of every file, from before the scan.
        The others: as `build_shards` has them.

    Raises:
        OutputError: as `choose_count`.
    """

    source: Path
    manifest: Manifest
    path: Path
    recipe: Recipe
    shards: ShardChoice
    choice: Choice | None = None
    rebuild: bool = False
    wait: bool = False
    workers: int | None = None
    before: Mapping[Path, tuple[int, int] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.count = choose_count(self.path, self.shards, len(self.manifest.names))
        self.partition = Partition(self.manifest, self.count)
        self.sizes = self.partition.sizes()
        self.set = shards_id(self.recipe, self.manifest.class_folders, self.manifest.class_names, self.count)

    @property
    def chosen(self) -> list[int]:
        """The numbers of the shards to build."""
        return list(range(self.count)) if self.shards.only is None else [self.shards.only]

    def file(self, index: int) -> Path:
        """Return the file of a shard."""
        return shard_path(self.path, index, self.count)

    def task(self, index: int) -> Task:
        """Return the build of one shard."""
        file = self.file(index)
        return Task(
            source=self.source.absolute(),
            choice=self.choice,
            manifest=_absolute(self.partition.shard(index)),
            path=file,
            recipe=self.recipe,
            shard=Shard(index, self.count, self.set),
            before=self.before.get(file),
            rebuild=self.rebuild,
            workers=self.workers,
        )

    def refuse(self) -> None:
        """Refuse paths that cannot become shards, and shards of other photographs."""
        for index in self.chosen:
            refuse_place(self.file(index))
        if not self.rebuild:
            self._refuse_other_photographs()

    def _refuse_other_photographs(self) -> None:
        """Refuse where the source has less than half of the images of all shards; no shard alone can tell."""
        counts = {}
        for index, file in enumerate(shard_paths(self.path, self.count)):
            old, _ = open_old_cache(file, self.rebuild)
            if old is not None:
                refuse_other_content(old, "images")
                counts[index] = old.num_images
        total, shared = sum(counts.values()), 0
        for index in counts:
            if 2 * shared >= total:
                return
            shared += assess(self.task(index)).staleness.held
        refuse_other_photographs(shards_pattern(self.path, self.count), shared, total)

    def room(self, building: Sequence[int]) -> Room:
        """Estimate the disk space that a build of these shards needs.

        Those that are not there come to the files. Of the others, as many as are built at a time stand beside the old
        ones before they replace them.
        """
        needed = {i: room_needed(ImageTable(self.partition.shard(i)), self.recipe, self.sizes[i]) for i in building}
        added = sum(needed[i] for i in building if not self.file(i).exists())
        beside = sorted(needed[i] for i in building if self.file(i).exists())[-AT_A_TIME:]
        return room_at(added + sum(beside), [self.file(i) for i in building or self.chosen])

    def check_room(self) -> None:
        """Refuse a disk that is too small for the shards that are not there."""
        self.room([i for i in self.chosen if not self.file(i).exists()]).refuse_less(self.path)

    def here(self, progress: Progress | None) -> Iterator[BuiltShard]:
        """Build shards beside each other, which share the workers; by default two a core, since a shard may wait."""
        workers = self.workers or 2 * usable_cores()
        at_a_time, each = share(workers, len(self.chosen))
        tasks = [replace(self.task(index), workers=each) for index in self.chosen]
        decoder_identity(JPEG.name)  # computed before the fork, not by each
        with builders(at_a_time) as pool:
            yield from run_tasks(pool, partial(build_here, wait=self.wait), tasks, progress)

    def elsewhere(self, executor: Executor, progress: Progress | None) -> Iterator[BuiltShard]:
        """Build shards in the workers of an executor."""
        tasks = [self.task(index) for index in self.chosen]
        decoder = installed_decoders()
        tasks = [replace(task, path=task.path.absolute(), decoder=decoder) for task in tasks]
        return run_tasks(executor, build_shard, tasks, progress)

    def report(self, done: Sequence[BuiltShard]) -> ShardsReport:
        """Add up the reports, and inspect the images of all shards if they are there."""
        reports = [one.report for one in sorted(done, key=lambda one: one.index)]
        report = add_up(reports, self.manifest)
        report.path = shards_pattern(self.path, self.count) if self.shards.only is None else reports[0].path
        report.shards, report.shard = self.count, self.shards.only
        report.workers = worker_rates([(one.worker, one.report.decoded, one.seconds) for one in done])
        paths = shard_paths(self.path, self.count)
        if self.shards.only is None:
            if not report.cached:
                for path in paths:
                    for suffix in ("", ".stat", ".lock"):
                        files.remove(path.with_name(path.name + suffix))
                raise nothing_decoded(self.manifest.root, report.failed)
            if not report.up_to_date:
                report.inspection = inspect_images(open_reader(paths))
        else:
            report.inspection = reports[0].inspection
            report.missing = sum(not path.exists() for path in paths)
        return report


def _absolute(manifest: Manifest) -> Manifest:
    """Let a manifest be understood in another folder."""
    archives = [(os.path.abspath(path), found) for path, found in manifest.archives]  # noqa: PTH100 -- bytes
    return replace(manifest, root=manifest.root.absolute(), archives=archives)

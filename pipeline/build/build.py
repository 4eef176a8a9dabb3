"""Build a cache: lock, assess, fill rows with many workers, publish by one rename; resumable at any moment."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from pipeline.build import stat_cache
from pipeline.build.assess import assess, computes_mean_std, room_beside_pixels, task_of_pixels
from pipeline.build.image_table import DONE, FAILED, TODO
from pipeline.build.lock import build_lock
from pipeline.build.output import (
    identity,
    made_folder,
    refuse_beside_shards,
    refuse_place,
    storage_errors,
)
from pipeline.build.partial import PartialBuild
from pipeline.build.pool import run_items
from pipeline.build.report import BuildReport
from pipeline.build.task import Progress, Task, choose_recipe
from pipeline.build.worker import DonorCache, Item, Job
from pipeline.decode.decode import decoder_identity
from pipeline.decode.formats import JPEG
from pipeline.errors import SourceError
from pipeline.format.header import SIDE_FILES, Header
from pipeline.format.inspection import inspect_images
from pipeline.format.reader import CacheReader
from pipeline.format.tables import Failed
from pipeline.recipe import RecipeOptions
from pipeline.source.reader import UNSETTLED, Stat
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.system import files
from pipeline.system.processes import usable_cores


def build_cache(
    source: "str | os.PathLike[str]",
    path: "str | os.PathLike[str]",
    *,
    choice: Choice | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    rebuild: bool = False,
    wait: bool = False,
    mean_std: Literal["auto"] | None = None,
    progress: Progress | None = None,
    **options: Unpack[RecipeOptions],
) -> BuildReport:
    """Decode a folder or archive of images, a class a folder, into one HDF5 tensor cache; do only what is left.

    Args:
        source: the folder of class folders, or an archive of them; see `scan_source`.
        path: the cache, created or replaced by one rename; readers of an old one keep it whole.
        choice: which classes and how many images of each; None for all.
        workers: processes that decode; None for one a core.
        executor: runs the work instead, any `concurrent.futures.Executor` that sees the same files.
        rebuild: decode everything anew, and replace whatever cache is there.
        wait: wait for another build of this cache instead of raising `CacheBusy`.
        mean_std: "auto" normalizes by the mean and std of the pixels, without pads. They are computed if there is no
            cache yet, or with `rebuild`; later builds keep the numbers.
        progress: called with (images done, images in all) as rows become ready.
        options: the recipe by the names that `Recipe` has: size, fit, mean, std, dtype and so on. One that is missing
            or None is as in the cache that is there; without a cache, or with `rebuild`, it has its default.

    Raises:
        ValueError: an impossible recipe or number of workers.
        SourceError: no images there.
        OutputError: the cache cannot be created there, or would replace that of other photographs.
        CacheBusy: another process builds it.
        StorageError, AccessDenied, WorkerDied: the system failed; what is done is kept and the next call goes on.
    """
    start = time.monotonic()
    source, path = Path(source), Path(path)
    if mean_std not in (None, "auto") or (mean_std and (options.get("mean") or options.get("std"))):
        raise ValueError(f"mean_std is None, or 'auto' without mean and std beside it, not {mean_std!r}")
    own = mean_std == "auto" and computes_mean_std(path, rebuild)
    recipe, inherited = choose_recipe(path, rebuild or own, **options)
    if mean_std and not own:
        kept = "mean and std stay as in the cache that is there (--rebuild computes them anew)"
        inherited = f"{inherited}; {kept}" if inherited else kept
    if workers is not None and workers < 1:
        raise ValueError(f"workers is a number of processes from 1, not {workers}")
    refuse_beside_shards(path)
    before = identity(path)
    manifest = scan_source(source, path, choice)
    task = Task(source, choice, manifest, path, recipe, before, rebuild=rebuild, workers=workers)
    task = replace(task, options=options, inherited=inherited)
    build = _build_with_own_mean_std if own else build_file
    report = build(task, executor=executor, wait=wait, progress=progress)
    report.seconds = time.monotonic() - start
    return report


def _build_with_own_mean_std(
    task: Task, *, executor: Executor | None, wait: bool, progress: Progress | None
) -> BuildReport:
    """Cache 8-bit pixels, and normalize them by their own mean and std.

    Rows of float32 are derived from a cache of the pixels beside the other, which is then deleted. A build that was
    stopped finds it again.
    """
    first = task_of_pixels(task)
    pixels = first.path
    if pixels != task.path:
        room_beside_pixels(task, first).refuse_less(task.path)
    report = build_file(first, executor=executor, wait=wait, progress=progress)
    recipe = replace(CacheReader(pixels).recipe, dtype=task.recipe.dtype)
    if pixels != task.path:
        second = replace(task, recipe=recipe, options=None, donor=pixels)
        derived = build_file(second, executor=executor, wait=wait, progress=progress)
        derived.decoded, derived.kept, derived.copied = report.decoded, report.kept, report.copied
        for suffix in ("", *SIDE_FILES):
            files.remove(pixels.with_name(pixels.name + suffix))
        report = derived
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (recipe.mean, recipe.std))
    report.inherited = f"mean and std of the pixels: {mean} and {std}"
    report.why = "a rebuild was asked for" if task.rebuild and task.before else ""
    return report


def build_file(
    task: Task, *, executor: Executor | None = None, wait: bool = False, progress: Progress | None = None
) -> BuildReport:
    """Build one file: a whole cache or a shard.

    Args:
        task: describes the file and its images.
        executor, wait, progress: as `build_cache` has them.
    """
    refuse_place(task.path)
    with made_folder(task.path.parent), storage_errors(task.path), build_lock(task.path, wait):
        if identity(task.path) != task.before:
            task = task.again()
        return _Build(task).run(executor, progress)


def nothing_decoded(root: Path, failed: list[Failed]) -> SourceError:
    """Return the error for a source without a decodable image."""
    reasons = Counter(f.reason for f in failed)
    shown = ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
    return SourceError("no images to cache", root, f"none of its files could be decoded ({shown})")


class _Build:
    """One build, under the lock."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.manifest = task.manifest
        self.path = task.path
        self.found = assess(task)
        self.images = self.found.images
        own = task.own_mean_std
        self.partial = PartialBuild(task.path, task.recipe, anew=task.anew, shard=task.shard, own_mean_std=own)
        self.counts: Counter[str] = Counter()

    def run(self, executor: Executor | None, progress: Progress | None) -> BuildReport:
        """Fill what is missing, publish the file, and report."""
        task, old = self.task, self.found.old
        self.found.refuse_loss()
        if old is not None and self.found.up_to_date:
            return self._up_to_date(old.header)
        donor = None
        if old is not None and self.found.reusable:
            donor = DonorCache(old.path, old.header.fingerprint, self.found.staleness.other_formats)
            self._take_over_failures()
        try:
            kept = self.partial.open(self.images)
            self._fill(Job(self.partial.building, task.recipe, donor), executor, progress)
            if task.shard is None and not (self.images.state == DONE).any():
                self.partial.discard()
                raise nothing_decoded(self.manifest.root, self.images.failed())
            header = self.partial.publish(self.images)
        finally:
            self.partial.close()
        report = self._report(header, why=self.found.why, kept=kept)
        self._keep_stats(header, report)
        report.inspection = inspect_images(CacheReader(self.path))
        if self.partial.discarded:
            report.warnings.append("an unfinished build of another recipe or format was discarded")
        return report

    def _up_to_date(self, header: Header) -> BuildReport:
        self.partial.discard()
        self.images.state[self.found.staleness.rows >= 0] = DONE
        self._take_over_failures()
        report = self._report(header, up_to_date=True)
        self._keep_stats(header, report)
        return report

    def _take_over_failures(self) -> None:
        for image, failure in self.found.staleness.failures.items():
            self.images.take_over(image, failure)

    def _fill(self, job: Job, executor: Executor | None, progress: Progress | None) -> None:
        """Fill every missing row, and note each in image table and journal."""
        images, workers = self.images, self.task.workers or usable_cores()
        todo = np.flatnonzero(images.state == TODO)
        image_of_row = {}
        total, finished = len(images.state), len(images.state) - len(todo)

        def items() -> Iterator[Item]:
            for image in map(int, self.manifest.in_reading_order(todo)):  # one at a time, not a list of a million
                row = int(self.partial.rows[image])
                image_of_row[row] = image
                yield Item(row, self.manifest.location(image), images.known_sha256(image))

        if progress:
            progress(finished, total)
        if not len(todo):
            return
        decoder_identity(JPEG.name)  # proves decoder and resizing once; forked workers inherit that
        # closed before the lock is released, so that no worker writes while another build runs
        with closing(run_items(job, items(), len(todo), workers, executor)) as finished_chunks:
            for results in finished_chunks:
                entries = []
                for result in results:
                    image = image_of_row.pop(result.row)
                    images.record(image, result)
                    self.counts[result.how] += 1
                    if result.how != "transient":
                        entries.append(images.entry(image))
                self.partial.record(entries)
                finished += len(results)
                if progress:
                    progress(finished, total)

    def _keep_stats(self, header: Header, report: BuildReport) -> None:
        """Keep stat data beside a cache that is complete with or without them."""
        try:
            stat_cache.write_stats(self.path, header, *self._stats())
        except OSError as error:
            again = f"the next build will read every file again: {self.path.name}.stat: {error.strerror}"
            report.warnings.append(again)

    def _stats(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return stat data: (N, 4) of each row's file, and (F, 4) of each failed file in the order of the table."""
        images = self.images
        failed = {(f.class_id, f.name): UNSETTLED for f in images.failed()}
        for image in np.flatnonzero(images.state == FAILED).tolist():
            key = self.manifest.class_ids[self.manifest.labels[image]], os.fsdecode(self.manifest.names[image])
            failed[key] = Stat(*images.stats[image].tolist())
        done = images.state == DONE
        rows = images.stats if done.all() else images.stats[done]
        return rows, np.array(list(failed.values()), np.int64).reshape(-1, len(Stat._fields))

    def _report(self, header: Header, why: str = "", kept: int = 0, up_to_date: bool = False) -> BuildReport:
        manifest, images = self.manifest, self.images
        done = images.state == DONE
        return BuildReport(
            path=self.path,
            class_ids=manifest.class_ids,
            class_names=manifest.class_names,
            counts=np.bincount(manifest.labels[done], minlength=len(manifest.class_ids)).tolist(),
            cached=int(done.sum()),
            decoded=self.counts["decoded"],
            copied=self.counts["copied"],
            kept=kept,
            left_out=manifest.left_out,
            left_out_named=manifest.left_out_named,
            failed=images.failed(),
            why=why,
            inherited=self.task.inherited,
            up_to_date=up_to_date,
            warnings=manifest.warnings,
            file_bytes=header.file_size,
        )

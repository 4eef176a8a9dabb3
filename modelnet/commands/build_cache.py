"""build-cache: decode photographs into an HDF5 tensor cache."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from modelnet.commands._options import (
    DONE_WITH_FAILURES,
    PATH,
    QUIET,
    GroupedCommand,
    choice_options,
    example,
    grouped,
)
from modelnet.commands.option_groups.recipe import apply_like, recipe_options, refuse_beside_mean_std
from modelnet.commands.shared.console import progress_bar, usage_errors
from modelnet.commands.shared.process import tell
from modelnet.options.folders import CACHES

if TYPE_CHECKING:
    from pipeline.shards.choice import ShardChoice


_build = grouped("Build")
_shards = grouped("Shards")


@click.command("build-cache", cls=GroupedCommand, epilog=example("build-cache data/example"))
@click.argument("source", type=PATH)
@choice_options
@recipe_options
@_build("--out", type=PATH, help="The cache.  [default: data/cache/<SOURCE>.h5]")
@_build("-j", "--workers", type=click.IntRange(1), help="Processes that decode.  [default: one a core, for shards two]")
@_build("--strict", is_flag=True, help="End with exit code 3 if any image failed.")
@_build("--rebuild", is_flag=True, help="Decode everything anew, and replace whatever cache is there.")
@_build("--wait", is_flag=True, help="Wait for another build of the same cache.")
@_build("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@_shards("--shards", type=click.IntRange(1), help="Several files instead of one: name-00000-of-00064.h5, ...")
@_shards(
    "--rows-per-shard",
    type=click.IntRange(1),
    help="About so many rows in a shard; sets the number of shards, at the first build.",
)
@_shards("--shard", metavar="I/K", help="Build only shard I of K, counted from 0: 3/64.")
@_shards("--engine", type=click.Choice(["local", "dask"]), default="local", help="Who builds shards.")
@_shards("--scheduler", metavar="ADDRESS", help="Address of the Dask cluster: tcp://host:8786.")
@QUIET
def command(
    source: Path,
    classes: str | None,
    merged: tuple[str, ...],
    per_class: int | None,
    table: Path | None,
    file_column: str | None,
    label_column: str | None,
    out: Path | None,
    workers: int | None,
    strict: bool,
    rebuild: bool,
    wait: bool,
    dry_run: bool,
    engine: str,
    scheduler: str | None,
    like: str | None,
    mean_std: Literal["auto"] | None,
    **recipe: Any,
) -> None:
    """Decode SOURCE, a folder with a folder of images per class, into an HDF5 tensor cache.

    SOURCE may also be a tar or zip of class folders, ImageNet's tar of class tars, or a folder of class archives or
    WebDataset shards. Nothing is unpacked. A folder within an archive is written photos.zip/train. The classes may be
    in a table: --table, Kaggle's train.csv, Hugging Face's metadata.csv or Parquet files (data/train).

    A cache that is up to date is left alone. Otherwise only what changed is decoded, and an interrupted build goes on
    where it stopped. An existing cache keeps its recipe (--size to --scaled-decode), but for options that are given.
    """
    from pipeline.build.assess import computes_mean_std
    from pipeline.build.build import build_cache
    from pipeline.build.report import BuildReport
    from pipeline.build.task import choose_recipe
    from pipeline.inspect.plan import plan_build
    from pipeline.shards.build import build_shards
    from pipeline.source.selection import parse_choice
    from pipeline.source.tables.labels import Labels

    shards = shard_options(engine, scheduler, recipe)
    path = out or default_cache(source)
    refuse_beside_mean_std(mean_std, {"like": like, "shards": shards, **recipe})
    if line := apply_like(like, recipe):
        click.echo(line)
    with usage_errors():
        own = mean_std is not None and computes_mean_std(path, rebuild)
        checked, inherited = choose_recipe(path, rebuild or own, **recipe)
        choice = parse_choice(classes, merged, per_class, Labels(table, file_column, label_column))
    if dry_run:
        if inherited:
            tell(inherited)
        tell(plan_build(source, path, checked, shards, workers, rebuild, choice, own))
        return
    recipe |= {"choice": choice, "workers": workers, "rebuild": rebuild, "wait": wait}
    report: BuildReport
    with progress_bar("decode", " images") as progress, cluster(scheduler) as executor:
        if shards:
            report = build_shards(source, path, progress=progress, executor=executor, **vars(shards), **recipe)
        else:
            report = build_cache(source, path, progress=progress, mean_std=mean_std, **recipe)
    tell(report)
    if strict and report.failed:
        raise SystemExit(DONE_WITH_FAILURES)


def shard_options(engine: str, scheduler: str | None, options: dict[str, Any]) -> "ShardChoice | None":
    """Remove the options about shards from the others; return None if one file is built."""
    from pipeline.shards.choice import ShardChoice

    shards, rows, shard = (options.pop(name) for name in ("shards", "rows_per_shard", "shard"))
    with usage_errors():
        chosen = ShardChoice.of(shards, rows, shard)
    if (engine == "dask") != (scheduler is not None):
        raise click.UsageError("--engine dask and --scheduler ADDRESS go together")
    if engine == "dask" and chosen is None:
        raise click.UsageError("--engine dask builds shards; give --shards, or --rows-per-shard")
    return chosen


@contextmanager
def cluster(scheduler: str | None) -> Iterator[Any]:
    """Yield the executor of a Dask cluster; None without one."""
    if scheduler is None:
        yield None
        return
    from pipeline.shards.dask import dask_executor

    with dask_executor(scheduler) as executor:
        yield executor


def default_cache(source: Path) -> Path:
    """Name the cache of a source: its own name, with its parent's for train, val and test, or that of a Parquet set."""
    place = Path(os.path.normpath(source.absolute()))
    if is_set := place.parent.name == "data" and not place.exists():  # of Parquet files: shapes/data/train
        place = place.parents[1] / place.name
    own, parent = (
        re.sub(r"\.(tar|zip|parquet)$", "", name, flags=re.IGNORECASE) for name in (place.name, place.parent.name)
    )
    name = f"{parent}-{own}" if is_set or own in ("train", "val", "test") else own
    return CACHES / f"{name or 'cache'}.h5"

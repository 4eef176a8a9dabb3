"""info: show the contents of a cache."""

from pathlib import Path

import click

from modelnet.commands._options import CACHES, PATH, choice_options, example, one_or_all
from modelnet.commands.shared.console import usage_errors


@click.command("info", epilog=example("info data/cache/example.h5"))
@CACHES
@click.option("--check", type=PATH, metavar="SOURCE", help="Compare the cache with SOURCE.")
@choice_options
@click.option("--mean-std", is_flag=True, help="Read all rows for mean and std, also of a large cache.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
def command(
    cache: tuple[Path, ...],
    check: Path | None,
    classes: str | None,
    merged: tuple[str, ...],
    per_class: int | None,
    table: Path | None,
    file_column: str | None,
    label_column: str | None,
    mean_std: bool,
    as_json: bool,
) -> None:
    """Show the contents of CACHE: classes with counts, recipe, sources, fingerprint, failed images, near duplicates.

    Mean and std of the stored pixels are on the 0 to 1 scale of --mean and --std. They are shown if the rows have at
    most 256 MiB, or with --mean-std. Several files are the shards of one set.

    With --check, the exit code is 65 if a build of SOURCE would change the cache. --classes, --class and --per-class
    choose images of SOURCE to compare, as in build-cache.
    """
    import json

    from pipeline.errors import CacheStale
    from pipeline.inspect.info import check_source, describe_cache
    from pipeline.source.selection import parse_choice
    from pipeline.source.tables.labels import Labels

    with usage_errors():
        choice = parse_choice(classes, merged, per_class, Labels(table, file_column, label_column))
    named = one_or_all(cache)
    info = describe_cache(named, mean_std=mean_std or None)
    differs = {} if check is None else {"source_differs": check_source(named, check, choice)}
    click.echo(json.dumps(info.to_dict() | differs, indent=2) if as_json else info)
    if check and not as_json:
        click.echo(f"source: {differs['source_differs'] or 'matches'}")
    if differs.get("source_differs"):
        raise SystemExit(CacheStale.exit_code)

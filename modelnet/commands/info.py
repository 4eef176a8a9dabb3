"""info: show what is in a cache."""

from pathlib import Path

import click

from modelnet.commands._console import usage_errors
from modelnet.commands._options import CACHES, PATH, choice_options, example, one_or_all


@click.command("info", epilog=example("python cli.py info data/cache/example.h5"))
@CACHES
@click.option("--check", type=PATH, metavar="SOURCE", help="Say whether SOURCE still matches.")
@choice_options
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def command(
    cache: tuple[Path, ...],
    check: Path | None,
    classes: str | None,
    merged: tuple[str, ...],
    per_class: int | None,
    as_json: bool,
) -> None:
    """Show what is in CACHE: classes with counts, recipe, bytes, fingerprint, what failed, what looks alike.

    Several files are the shards of one set.

    --classes, --class and --per-class say which part of SOURCE is compared with it, as they do to build-cache.
    """
    import json

    from pipeline.inspect.info import check_source, describe_cache
    from pipeline.source.selection import parse_choice

    with usage_errors():
        choice = parse_choice(classes, merged, per_class)
    named = one_or_all(cache)
    info = describe_cache(named)
    differs = {} if check is None else {"source_differs": check_source(named, check, choice)}
    click.echo(json.dumps(info.to_dict() | differs, indent=2) if as_json else info)
    if check and not as_json:
        click.echo(f"source: {differs['source_differs'] or 'matches'}")

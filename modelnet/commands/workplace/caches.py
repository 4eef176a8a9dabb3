"""caches: list caches with their size, age and the runs that used them."""

from pathlib import Path

import click

from modelnet.commands._options import PATH, example
from modelnet.commands.shared.process import tell
from modelnet.options.folders import CACHES, FEATURES, RUNS


@click.command("caches", epilog=example("caches"))
@click.argument("folders", nargs=-1, type=PATH, metavar="[FOLDER...]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, with all runs.")
def command(folders: tuple[Path, ...], as_json: bool) -> None:
    """List the caches in each FOLDER, by default data/cache/ and data/features/: images, size, age.

    A run in runs/ knows its cache by the fingerprint, also after the cache was moved or renamed. A cache without runs
    may be deleted, if its source is still there.
    """
    import json

    from modelnet.pages.cache_list import caches_table, list_caches

    listed = list_caches(folders or (CACHES, FEATURES), RUNS)
    tell(json.dumps([cache.to_dict() for cache in listed], indent=2) if as_json else caches_table(listed))

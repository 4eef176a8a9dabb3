"""show: look at a cache as one HTML page."""

from pathlib import Path

import click

from modelnet.commands._options import CACHES, PATH, example, one_or_all
from modelnet.commands.report import publish_page


@click.command("show", epilog=example("python cli.py show data/cache/example.h5"))
@CACHES
@click.option("--out", type=PATH, help="The page.  [default: CACHE.html beside the cache]")
def command(cache: tuple[Path, ...], out: Path | None) -> None:
    """Show the photographs of CACHE as one HTML page.

    Classes with counts and samples, sizes and aspect ratios of the image files, copies and near copies, images that are
    tiny or blank, the mean image, and the files that failed. Of a large cache a sample is shown, and the page says so.
    """
    from modelnet import show_cache
    from pipeline.format.paths import base_path, cache_files

    named = one_or_all(cache)
    page = show_cache(named)
    default = base_path(cache_files(cache[0])[0]).with_suffix(".html")
    publish_page(page, out, default, "Give --out", "page")

"""verify: check every row and table of a cache."""

from pathlib import Path

import click

from modelnet.commands._options import CACHES, QUIET, example, one_or_all
from modelnet.commands.shared.console import progress_bar
from modelnet.commands.shared.process import tell


@click.command("verify", epilog=example("verify data/cache/example.h5"))
@CACHES
@QUIET
def command(cache: tuple[Path, ...]) -> None:
    """Check every row and table of CACHE against its checksum, and the HDF5 library's view against the header."""
    from pipeline.errors import CacheDamaged
    from pipeline.inspect.verify import verify_cache

    with progress_bar("verify", " rows") as progress:
        damage = list(verify_cache(one_or_all(cache), progress))
    tell("\n".join(map(str, damage)) or "every row and table is as it was built")
    if damage:
        tell("\n".join(dict.fromkeys(f"{fault.advice}." for fault in damage)), err=True)
        raise SystemExit(CacheDamaged.exit_code)

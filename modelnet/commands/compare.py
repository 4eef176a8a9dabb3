"""compare: test whether runs differ beyond chance."""

from itertools import groupby
from pathlib import Path

import click

from modelnet.commands._options import PATH, example
from modelnet.commands.report import named_runs


@click.command("compare", epilog=example("python cli.py compare runs/example-modelnet-001 runs/example-modelnet-002"))
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN... [vs RUN...]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, with every image that flipped.")
def command(runs: tuple[Path, ...], as_json: bool) -> None:
    """Test whether runs with the same validation images differ beyond chance, and show their different options.

    Runs that differ in --seed and --data-seed alone form a side. "vs" between runs makes other sides:
    compare runs/old-* vs runs/new-*. A group.csv names all runs of a sweep.
    """
    import json

    from modelnet.compare.compare import compare_groups, compare_runs

    groups = [named_runs(group) for between, group in groupby(runs, Path("vs").__eq__) if not between]
    compared = compare_groups(groups) if Path("vs") in runs else compare_runs(named_runs(runs))
    click.echo(json.dumps(compared.to_dict(), indent=2) if as_json else compared)

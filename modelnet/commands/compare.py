"""compare: say whether runs differ beyond chance."""

from itertools import groupby
from pathlib import Path

import click

from modelnet.commands._options import PATH, example
from modelnet.commands.report import named_runs


@click.command("compare", epilog=example("python cli.py compare runs/example-modelnet-001 runs/example-modelnet-002"))
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN... [vs RUN...]")
@click.option("--json", "as_json", is_flag=True, help="For scripts, with every image that flipped.")
def command(runs: tuple[Path, ...], as_json: bool) -> None:
    """Say whether runs that were validated on the same images differ beyond chance, and in which options.

    Runs that differ in --seed and --data-seed alone are taken together. "vs" between runs says otherwise which belong
    together: compare runs/old-* vs runs/new-*. A group.csv stands for all the runs that it names.
    """
    import json

    from modelnet.compare.compare import compare_groups, compare_runs

    groups = [named_runs(group) for between, group in groupby(runs, Path("vs").__eq__) if not between]
    compared = compare_groups(groups) if Path("vs") in runs else compare_runs(named_runs(runs))
    click.echo(json.dumps(compared.to_dict(), indent=2) if as_json else compared)

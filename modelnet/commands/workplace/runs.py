"""runs: list runs with their state, result and differing options."""

from pathlib import Path

import click

from modelnet.commands._options import PATH, example
from modelnet.commands.report import named_runs
from modelnet.commands.shared.process import tell
from modelnet.options.folders import RUNS


@click.command("runs", epilog=example("runs"))
@click.argument("runs", nargs=-1, type=PATH, metavar="[RUN...]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, with the options that differ.")
def command(runs: tuple[Path, ...], as_json: bool) -> None:
    """List the given runs, by default all in runs/: state, epochs, validation accuracy with its interval, options.

    Options are shown where the listed runs differ in them, unless they have the default. A group.csv names all runs of
    a sweep.
    """
    import json

    from modelnet.pages.run_list import list_runs, runs_in, runs_table

    listed = list_runs(named_runs(runs) if runs else runs_in(RUNS))
    tell(json.dumps([run.to_dict() for run in listed], indent=2) if as_json else runs_table(listed))

"""compare: test whether runs differ beyond chance."""

from itertools import groupby
from pathlib import Path

import click

from modelnet.commands._options import ON, PATH, TRUST, example
from modelnet.commands.report import named_runs


@click.command("compare", epilog=example("compare runs/example-modelnet-001 runs/example-modelnet-002"))
@click.argument("runs", nargs=-1, required=True, type=PATH, metavar="RUN... [vs RUN...]")
@ON
@TRUST
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, with every image that flipped.")
def command(runs: tuple[Path, ...], side: str, trust_code: bool, as_json: bool) -> None:
    """Test whether runs with the same validation images differ beyond chance, and show their different options.

    Runs that differ in --seed and --data-seed alone form a side. "vs" between runs makes other sides:
    compare runs/old-* vs runs/new-*. A group.csv names all runs of a sweep. Each look at the test images of a split is
    noted in <split>.looks.csv.
    """
    import json

    from modelnet.compare.compare import compare_groups, compare_runs
    from modelnet.compare.load import check_ended
    from modelnet.runs.looks import add_looks, check_can_note
    from modelnet.runs.reader import RunReader

    if trust_code and side != "test":
        raise click.UsageError("--trust-code is for --on test, which runs the networks; leave it out")
    groups = [named_runs(group) for between, group in groupby(runs, Path("vs").__eq__) if not between]
    named, answers = [run for group in groups for run in group], None
    splits: dict[Path, Path] = {}
    if side == "test":
        from modelnet.eval.trained import Trained

        for run in named:  # refused before a test image is judged
            check_ended(RunReader(run))
            splits[run] = check_can_note(run)
        answers = {run: Trained.load(run, trust_code=trust_code).test(noted=True) for run in named}
    compared = compare_groups(groups, answers) if Path("vs") in runs else compare_runs(named, answers)
    compared.notes.extend(add_looks(splits, "compare"))
    click.echo(json.dumps(compared.to_dict(), indent=2) if as_json else compared)

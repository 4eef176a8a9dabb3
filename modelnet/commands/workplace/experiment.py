"""experiment: train the sides of an experiment with several seeds, and compare them."""

import shlex
from pathlib import Path

import click

from modelnet.commands._options import NO_SPLIT, PATH, QUIET, TRUST, GroupedCommand, check_split, example
from modelnet.commands.report import write_report
from modelnet.commands.shared.console import EpochLines, Notes
from modelnet.commands.shared.process import end, tell
from modelnet.commands.train import training_process
from modelnet.options.folders import CACHES, RUNS
from pipeline.text import command_line


@click.command("experiment", cls=GroupedCommand, epilog=example("experiment rates.toml"))
@click.argument("file", type=PATH)
@NO_SPLIT
@TRUST
@QUIET
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON for scripts.")
def command(file: Path, no_split: bool, trust_code: bool, as_json: bool) -> None:
    """Train the sides that FILE describes, each with the same seeds; compare them, and write a report.

    FILE is TOML or JSON: seeds = "0-7" at the top, options of all sides below [common], and a table of options for
    each side. The runs are named for file, side and seed. So the same command goes on where it was interrupted, and
    trains only what is new where the file has more seeds, sides or epochs.
    """
    import json

    from modelnet.compare.compare import compare_groups
    from modelnet.sweep.experiment import read_experiment, train_experiment
    from pipeline.errors import TrainingDiverged

    experiment = read_experiment(file, CACHES)
    for options in experiment.members:
        check_split(options.cache, options.split, no_split and options.split is None)
    with training_process() as stop, (Notes if as_json else EpochLines)() as progress:
        result = train_experiment(experiment, progress, stop, trust_code)
        if result is not None and result.interrupted:
            tell(f"stopped and saved. Continue with: {command_line()} experiment {shlex.quote(str(file))}", err=True)
            end(stop.exit_code)
    ended = {side: experiment.ended(side) for side in experiment.sides}
    for side, runs in ended.items():
        if left_out := len(members := experiment.sides[side]) - len(runs):
            failed = "failed, or are of a seed of which a fold failed," if members[0].fold is not None else "failed,"
            progress.warn(f"{left_out} of {len(members)} runs of {side} {failed} and are left out")
        if not runs:
            raise TrainingDiverged("nothing to compare", file, f"no run of {side} came to its end", "Try a smaller lr")
    comparison = compare_groups(list(ended.values()))
    if as_json:
        tell(json.dumps(comparison.to_dict() | {"names": list(ended)}, indent=2))
        return
    names = {side.label: name for side, name in zip(comparison.sides, ended, strict=True)}
    tell(f"\n{comparison}\n")
    for pair in comparison.pairs:
        tell(f"{names[pair.second]} ({pair.second}) against {names[pair.first]} ({pair.first}): {pair.verdict}")
    write_report([run for runs in ended.values() for run in runs], RUNS / f"{experiment.name}.html")

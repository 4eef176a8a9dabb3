"""train: train a network, or many of them, on a cache."""

import json
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modelnet.commands._options import NO_SPLIT, PATH, QUIET, TRUST, GroupedCommand, example, grouped, training_options
from modelnet.commands.option_groups.repeat import chosen_options, repeat_options, typed
from modelnet.commands.report import write_report
from modelnet.commands.shared.console import EpochJson, EpochLines, usage_errors
from modelnet.commands.shared.process import end, tell
from modelnet.options import OPTIONS
from modelnet.progress import Progress
from pipeline.text import command_line, show_path

if TYPE_CHECKING:
    from modelnet.runtime.interrupt import Stop
    from modelnet.sweep.result import SweepResult
    from modelnet.training.loop import TrainResult


_many = grouped("Many networks")


@click.command("train", cls=GroupedCommand, epilog=example("train --batch-size 8"), params=training_options())
@_many("--seeds", metavar="SEEDS", help="Train many networks, one for each seed: 0-15, or 3,5,8.")
@_many("--data-seeds", metavar="SEEDS", help="Train many networks, one for each order: 0-3. Each needs a pass.")
@_many(
    "--sweep",
    multiple=True,
    metavar="OPTION=VALUE,...",
    help="Train many networks, one for each value: lr=0.003,0.01. Several sweeps and seeds are crossed.",
)
@repeat_options
@click.option("--resume", "run", type=PATH, metavar="RUN", help="Continue this run folder, or all of a group.csv.")
@NO_SPLIT
@TRUST
@QUIET
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON: a line with the run folder, one for each epoch, and one for the result.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    run: Path | None,
    seeds: str | None,
    data_seeds: str | None,
    sweep: tuple[str, ...],
    trust_code: bool,
    config: Path | None,
    source: Path | None,
    as_json: bool,
    **_options: Any,
) -> None:
    """Train a network on a cache and keep the results in a new folder runs/<name>/.

    Ctrl-C finishes the step and saves a checkpoint; --resume continues there. --resume takes only --epochs, --device,
    --workers, --preload and --compile, and --cache or --val where a cache was moved.

    On several GPUs: torchrun --nproc-per-node 2 cli.py train ... divides every batch among processes (ranks). With an
    installed package: torchrun --nproc-per-node 2 --no-python modelnet train ... The losses are those of one process,
    up to rounding. --workers and --threads hold for each rank.
    """
    from modelnet.runtime.launcher import missing_variables
    from modelnet.runtime.ranks import join_ranks
    from modelnet.sweep.train import resume_many
    from modelnet.training.train import resume

    with training_process() as stop:
        shown = EpochJson if as_json else EpochLines
        with join_ranks() as ranks, shown() if ranks.is_main else Progress() as progress:
            if missing := missing_variables():
                progress.warn(f"WORLD_SIZE is set and {', '.join(missing)} not: this process trains alone")
            process: dict[str, Any] = {"progress": progress, "stop": stop, "ranks": ranks}
            result: TrainResult | SweepResult
            if run is None:
                if trust_code and source is None:
                    raise click.UsageError("--trust-code is for --resume and --from; leave it out")
                result = start(ctx, seeds, data_seeds, sweep, trust_code, process)
            else:
                go_on = resume_many if run.suffix == ".csv" else resume
                result = go_on(run, trust_code=trust_code, **resume_options(ctx), **process)
            if ranks.is_main:
                (tell_json if as_json else tell_result)(result)
        if result.interrupted:
            end(stop.exit_code)


@contextmanager
def training_process() -> "Iterator[Stop]":
    """Prepare this process for a training; yield what a signal sets."""
    import faulthandler

    from modelnet.runtime.interrupt import stop_on_signals
    from pipeline.load.batch_memory import keep_freed_memory

    for needed in ("matplotlib.backends.backend_agg", "jinja2"):
        import_module(needed)  # pictures and the report come last, but missing packages are reported first
    faulthandler.enable()  # a disk that fails under a memory map ends the process; this says where
    keep_freed_memory()
    with stop_on_signals() as stop:
        yield stop


def start(
    ctx: click.Context,
    seeds: str | None,
    data_seeds: str | None,
    sweep: tuple[str, ...],
    trust_code: bool,
    process: dict[str, Any],
) -> "TrainResult | SweepResult":
    """Train one network, or many where seeds, a sweep or all folds are given."""
    from modelnet.options.groups import ALL
    from modelnet.sweep.grid import parse_seeds, parse_sweep
    from modelnet.sweep.train import train_many
    from modelnet.training.train import train

    with usage_errors():
        many = None if seeds is None else parse_seeds(seeds)
        orders = None if data_seeds is None else parse_seeds(data_seeds)
        settings = parse_sweep(sweep)
    refuse_two_values(ctx, seeds, data_seeds, list(settings))
    chosen = chosen_options(ctx, trust_code, progress=process["progress"])
    if taken := ctx.params["config"] or ctx.params["source"]:
        process["progress"].note(f"options of {show_path(taken)}, but for those that are typed here")
    if not (seeds or data_seeds or sweep or chosen.fold == ALL):
        return train(chosen, **process)
    with usage_errors():
        return train_many(chosen, many or [chosen.seed], data_seeds=orders, sweep=settings, **process)


def tell_json(result: "TrainResult | SweepResult") -> None:
    """Print a line of JSON: the folders, and the scores of a single run."""
    from modelnet.sweep.result import SweepResult

    runs, scores = (result.runs, None) if isinstance(result, SweepResult) else ([result.run], result.scores)
    values = {"runs": list(map(os.fspath, runs)), "interrupted": result.interrupted}
    tell(json.dumps(values | {"scores": None if scores is None else scores.to_dict()}))


def tell_result(result: "TrainResult | SweepResult") -> None:
    """Print the results, or how to continue an interrupted training."""
    from modelnet.sweep.result import SweepResult

    if result.interrupted:
        stopped = result.table if isinstance(result, SweepResult) else result.run
        tell(f"stopped and saved. Continue with: {command_line()} train --resume {shlex.quote(str(stopped))}", err=True)
        return
    if isinstance(result, SweepResult):
        tell(f"\n{result}\n\nall networks: {show_path(result.table)}\ncurves: {show_path(result.picture)}")
        write_report(result.runs)
        return
    if result.scores is not None:
        tell(f"\n{result.scores}\n")
    tell(f"loss curve: {show_path(result.run / 'loss.png')}")
    write_report([result.run])


def refuse_two_values(ctx: click.Context, seeds: str | None, data_seeds: str | None, swept: list[str]) -> None:
    """Refuse an option that is given once for all networks and once for each."""
    each = {OPTIONS[name].flag: f"--sweep {OPTIONS[name].flag.removeprefix('--')}=..." for name in swept}
    each |= {"--seed": "--seeds"} if seeds is not None else {}
    each |= {"--data-seed": "--data-seeds"} if data_seeds is not None else {}
    for flag in sorted(typed(ctx).values()):
        if flag in each:
            raise click.UsageError(f"{each[flag]} gives each network its own; leave out {flag}")


def resume_options(ctx: click.Context) -> dict[str, Any]:
    """Return the options typed beside --resume; the others are those of the run."""
    given = typed(ctx)
    free = [name for name in given if name in OPTIONS and OPTIONS[name].resumable]
    if other := given.keys() - {*free, "run", "trust_code", "quiet", "as_json"}:
        flags = ", ".join(sorted(given[name] for name in other))
        raise click.UsageError(f"--resume goes on with the run's own options; leave out {flags}")
    return {name: ctx.params[name] for name in free}

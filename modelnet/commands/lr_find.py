"""lr-find: try learning rates and suggest one."""

from pathlib import Path
from typing import Any

import click

from modelnet.commands._options import NO_SPLIT, PATH, QUIET, TRUST, GroupedCommand, example, training_options
from modelnet.commands.option_groups.repeat import chosen_options, repeat_options
from modelnet.commands.shared.console import Notes, output_errors, progress_bar
from modelnet.commands.shared.process import tell
from modelnet.options.folders import RUNS
from pipeline.text import show_path


@click.command(
    "lr-find",
    cls=GroupedCommand,
    epilog=example("lr-find --batch-size 8"),
    params=training_options(lambda option: option.finder),
)
@click.option("--epochs", type=click.IntRange(1), default=10, help="Number of epochs for each learning rate.")
@click.option("--out", type=PATH, help="Picture of the losses, a PNG.  [default: runs/<cache>-<model>-lr.png]")
@NO_SPLIT
@repeat_options
@TRUST
@QUIET
@click.pass_context
def command(ctx: click.Context, /, out: Path | None, source: Path | None, trust_code: bool, **_options: Any) -> None:
    """Train for a few epochs with each of many learning rates from 0.0001 to 1, and suggest one.

    Give the options of the run to follow. All networks start alike and are not kept. Longer runs often fail at the rate
    with the lowest loss, so the rate below it is suggested.
    """
    from modelnet.plots.figures import rate_curve
    from modelnet.training.lr_finder import find_learning_rate
    from pipeline.format.paths import cache_name
    from pipeline.system.files import check_can_publish, publish

    if trust_code and source is None:
        raise click.UsageError("--trust-code is for --from; leave it out")
    chosen = chosen_options(ctx, trust_code, used=lambda option: option.finder)
    title = f"{cache_name(chosen.cache)}-{chosen.model_in_names}-lr"
    path = out or RUNS / f"{title}.png"
    if out is not None:
        with output_errors(path):
            check_can_publish(path)
    with progress_bar("lr-find", " rates") as bar:
        curve = find_learning_rate(chosen, progress=Notes(), done=bar)
    tell(curve)
    with output_errors(path):
        check_can_publish(path)
        publish(rate_curve(curve.rates, curve.losses, curve.blind, curve.suggestion, curve.epochs, title), path)
    tell(f"picture: {show_path(path)}")

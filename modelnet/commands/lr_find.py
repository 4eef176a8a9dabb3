"""lr-find: try learning rates and suggest one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from modelnet.commands._console import Notes, output_errors, progress_bar, usage_errors
from modelnet.commands._options import DEFAULT_CACHES, PATH, GroupedCommand, example, training_options
from modelnet.commands._process import tell
from pipeline.text import show_path


@click.command(
    "lr-find",
    cls=GroupedCommand,
    epilog=example("python cli.py lr-find --batch-size 8"),
    params=training_options(lambda option: option.finder),
)
@click.option("--epochs", type=click.IntRange(1), default=10, help="Number of epochs for each learning rate.")
@click.option("--out", type=PATH, help="Picture of the losses, a PNG.  [default: runs/<cache>-<model>-lr.png]")
def command(cache: Path | None, out: Path | None, **options: Any) -> None:
    """Train for a few epochs with each of many learning rates from 0.0001 to 1, and suggest one.

    Give the options of the run to follow. All networks start alike and are not kept. Longer runs often fail at the rate
    with the lowest loss, so the rate below it is suggested.
    """
    from modelnet.data.caches import find_cache
    from modelnet.options import TrainOptions
    from modelnet.plots.figures import rate_curve
    from modelnet.training.lr_finder import find_learning_rate
    from pipeline.format.paths import cache_name
    from pipeline.system.files import check_can_publish, publish

    with usage_errors():
        chosen = TrainOptions(cache or Path(), **options)
    chosen = replace(chosen, cache=cache or find_cache(DEFAULT_CACHES))
    title = f"{cache_name(chosen.cache)}-{chosen.model_in_names}-lr"
    path = out or Path("runs") / f"{title}.png"
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

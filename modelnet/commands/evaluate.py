"""evaluate: measure the network of a run."""

from pathlib import Path

import click

from modelnet.commands._options import AMP, CHECKPOINT, DEVICE, ON, PATH, RUN, TRUST, example
from modelnet.commands.shared.console import Notes
from modelnet.commands.shared.process import tell


@click.command("evaluate", epilog=example("evaluate runs/example-modelnet-001 --cache data/cache/example.h5"))
@RUN
@click.option("--cache", type=PATH, help="Cache to evaluate on, all of it.  [default: the validation images of RUN]")
@ON
@CHECKPOINT
@DEVICE
@AMP
@click.option("-j", "--workers", type=click.IntRange(0), default=0, help="Processes that read batches.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts.")
@TRUST
def command(
    run: Path,
    cache: Path | None,
    side: str,
    checkpoint: str | None,
    device: str,
    amp: bool | None,
    workers: int,
    as_json: bool,
    trust_code: bool,
) -> None:
    """Measure the network of RUN on its validation or test images, or on the images of another cache.

    The evaluation of another cache, of test images or of other weights is kept in RUN/evaluations/. Each look at the
    test images of a split is noted in <split>.looks.csv.
    """
    import json

    from modelnet.eval.trained import Trained

    test = side == "test"
    if test and cache is not None:
        raise click.UsageError("--on test means the cache of the run; leave out --cache")
    trained = Trained.load(run, checkpoint, device, amp, trust_code=trust_code)
    scores = trained.evaluate(cache, workers, notes := Notes(), keep=True, test=test)
    if trained.note:
        notes.note(f"note: {trained.note}")
    tell(json.dumps(scores.to_dict(), indent=2) if as_json else scores)

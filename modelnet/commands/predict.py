"""predict: classify image files with the network of a run."""

from pathlib import Path

import click

from modelnet.commands._options import AMP, CHECKPOINT, DEVICE, DONE_WITH_FAILURES, PATH, RUN, TRUST, example
from modelnet.commands.shared.console import Notes
from pipeline.text import show_path


@click.command("predict", epilog=example("predict runs/example-modelnet-001 data/example"))
@RUN
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGE|FOLDER...")
@click.option("-k", "--top-k", type=click.IntRange(1), default=3, help="Number of classes for each image.")
@CHECKPOINT
@DEVICE
@AMP
@click.option("--weights", type=PATH, help="Weights of the frozen network, if RUN was trained on features.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for scripts, a line for each image.")
@TRUST
def command(
    run: Path,
    images: tuple[Path, ...],
    top_k: int,
    checkpoint: str | None,
    device: str,
    amp: bool | None,
    weights: Path | None,
    as_json: bool,
    trust_code: bool,
) -> None:
    """Classify images with the network of RUN. They are prepared bit for bit as its training images were.

    Files that cannot be decoded are named, and the exit code is then 3.
    """
    import json

    from modelnet.eval.predict import answer_dict, answer_text, predict
    from modelnet.eval.trained import Trained

    trained = Trained.load(run, checkpoint, device, amp, trust_code=trust_code).on_images(weights)
    if trained.note:
        Notes().note(f"note: {trained.note}")
    failed = False
    for answer in predict(trained, images, top_k):
        failed |= bool(answer.error)
        if as_json:
            click.echo(json.dumps(answer_dict(trained, answer)))
        elif answer.error:
            click.echo(f"warning: left out: {show_path(answer.file)}: {answer.error}", err=True)
        else:
            click.echo(answer_text(trained, answer))
    if failed:
        raise SystemExit(DONE_WITH_FAILURES)

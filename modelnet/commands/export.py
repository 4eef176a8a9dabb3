"""export: write the network of a run for other programs."""

from pathlib import Path

import click

from modelnet.commands._console import Notes, output_errors
from modelnet.commands._options import CHECKPOINT, PATH, RUN, TRUST, example
from modelnet.commands._process import tell
from pipeline.text import show_path


@click.command("export", epilog=example("python cli.py export runs/example-modelnet-001"))
@RUN
@click.option(
    "--format",
    "form",
    type=click.Choice(["onnx", "torch", "safetensors"]),
    help="torch: a program of torch.export; safetensors: weights alone.  [default: as --out ends, else onnx]",
)
@click.option(
    "--out", type=PATH, help="The file.  [default: RUN/model.onnx, RUN/model.pt2 or RUN/safetensors/model.safetensors]"
)
@CHECKPOINT
@click.option("--weights", type=PATH, help="Weights of the frozen network, if RUN was trained on features.")
@TRUST
def command(
    run: Path, form: str | None, out: Path | None, checkpoint: str | None, weights: Path | None, trust_code: bool
) -> None:
    """Write the network of RUN for other programs, with its recipe for images and its classes.

    The network takes batches of any size. The file is read again and must give the same logits within 1e-5.

    --format safetensors writes weights under the names of torchvision or timm, and a config.json beside them that timm
    reads.
    """
    from modelnet.eval.export import SUFFIXES, export
    from modelnet.eval.export_weights import CONFIG, check_config_place, export_weights
    from modelnet.eval.trained import Trained
    from pipeline.system.files import check_can_publish, publish

    form = chosen_format(form, out)
    trained = Trained.load(run, checkpoint, "cpu", trust_code=trust_code)
    if trained.note:
        Notes().note(f"note: {trained.note}")
    path = out or run / ("safetensors" if form == "safetensors" else "") / f"model{SUFFIXES[form]}"
    with output_errors(path):
        check_can_publish(path)
    if form == "safetensors":
        check_config_place(path.with_name(CONFIG))
        exported = export_weights(trained, weights)
    else:
        exported = export(trained.on_images(weights), form)
    with output_errors(path):
        publish(exported.data, path)
        if exported.config:
            publish(exported.config, path.with_name(CONFIG))
    tell(exported.text(path))
    if exported.checked_by is None:
        tell("warning: not checked: onnxruntime is not installed", err=True)


def chosen_format(form: str | None, out: Path | None) -> str:
    """Return the format that is asked for, by name or by the end of the file's name; refuse two that differ."""
    from modelnet.eval.export import SUFFIXES

    named = next((form for form, suffix in SUFFIXES.items() if out is not None and out.suffix == suffix), None)
    if out is not None and form and named and form != named:
        raise click.UsageError(f"--format {form} writes {SUFFIXES[form]}, and --out {show_path(out)} ends otherwise")
    return form or named or "onnx"

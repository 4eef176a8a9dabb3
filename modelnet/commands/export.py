"""export: write the network of a run for other programs."""

from pathlib import Path

import click

from modelnet.commands._options import CHECKPOINT, PATH, RUN, TRUST, example
from modelnet.commands.shared.console import Notes, output_errors
from modelnet.commands.shared.process import tell
from pipeline.text import show_path


@click.command("export", epilog=example("export runs/example-modelnet-001"))
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
@click.option("--raw", is_flag=True, help="The bare network: normalized images in, logits out. Without infer.py.")
@CHECKPOINT
@click.option("--weights", type=PATH, help="Weights of the frozen network, if RUN was trained on features.")
@TRUST
def command(
    run: Path,
    form: str | None,
    out: Path | None,
    raw: bool,
    checkpoint: str | None,
    weights: Path | None,
    trust_code: bool,
) -> None:
    """Write the network of RUN for other programs, with its recipe for images and its classes.

    The network takes 8-bit pixels, in batches of any size, and gives probabilities. The file is read again and must
    give the same within 1e-5. Beside an ONNX file stands infer.py, which classifies image files without this package.

    --format safetensors writes weights under the names of torchvision or timm, and a config.json beside them that timm
    reads.
    """
    from modelnet.eval.export import SUFFIXES, export
    from modelnet.eval.export_beside import BESIDE, check_beside
    from modelnet.eval.export_weights import export_weights
    from modelnet.eval.trained import Trained
    from pipeline.system.files import check_can_publish, publish

    form = chosen_format(form, out)
    if raw and form == "safetensors":
        raise click.UsageError("--raw belongs to --format onnx and torch; weights alone are raw")
    trained = Trained.load(run, checkpoint, "cpu", trust_code=trust_code)
    if trained.note:
        Notes().note(f"note: {trained.note}")
    path = out or run / ("safetensors" if form == "safetensors" else "") / f"model{SUFFIXES[form]}"
    beside = () if raw else BESIDE.get(form, ())
    if path.name in beside:
        raise click.UsageError(f"--out {show_path(path)}: a file of this name is written beside the network")
    with output_errors(path):
        check_can_publish(path)
    check_beside(path.parent, beside)
    if form == "safetensors":
        exported = export_weights(trained, weights)
    else:
        exported = export(trained.on_images(weights), form, raw, path.name)
    with output_errors(path):
        publish(exported.data, path)
        for name, data in exported.beside.items():
            publish(data, path.with_name(name))
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

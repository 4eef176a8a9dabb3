"""build-features: extract features with a frozen network."""

from pathlib import Path

import click

from modelnet.commands._options import DEVICE, PATH, QUIET, example
from modelnet.commands.shared.console import Notes, progress_bar
from modelnet.commands.shared.process import tell


@click.command(
    "build-features",
    epilog=example("build-features data/cache/example.h5 --model resnet18 --weights resnet18-f37072fd.pth"),
)
@click.argument("cache", type=PATH)
@click.option("--model", required=True, help="The frozen network: a torchvision classifier, or timm:NAME.")
@click.option(
    "--weights", type=PATH, help="A local file with its weights; without it, a line says which file is meant."
)
@click.option(
    "--layer",
    default="",
    metavar="NAME",
    show_default=False,
    help="Layer to extract.  [default: the input of the last layer]",
)
@click.option(
    "--out",
    type=PATH,
    help="The cache of features.  [default: data/features/<CACHE>-<MODEL>[-<LAYER>]-<8 digits of SHA-256>.h5]",
)
@DEVICE
@QUIET
@click.option("--amp/--no-amp", default=False, show_default=True, help="Compute in bfloat16 where that is safe.")
@click.option("--rebuild", is_flag=True, help="Compute every row anew.")
@click.option("--wait", is_flag=True, help="Wait for another build of the same cache.")
def command(
    cache: Path,
    model: str,
    weights: Path | None,
    layer: str,
    out: Path | None,
    device: str,
    amp: bool,
    rebuild: bool,
    wait: bool,
) -> None:
    """Extract features of the images of CACHE with a frozen network, for a linear layer that is trained on them.

    A row is the input of the network's last layer, or the output of --layer. Maps are averaged over their positions.
    train --model linear takes the cache of features.
    """
    from modelnet.eval.features import build_features, default_path
    from modelnet.nets.preparation import pretrained_file

    if weights is None:
        found = pretrained_file(model)
        raise click.UsageError(f"--weights are needed{f'; those of {model} are {found}' if found else ''}")
    path, more = out or default_path(cache, model, weights, layer), {"amp": amp, "rebuild": rebuild, "wait": wait}
    with progress_bar("features", " images") as bar:
        tell(build_features(cache, path, model, weights, device, layer=layer, notes=Notes(), progress=bar, **more))

"""build-features: extract features with a frozen network."""

from pathlib import Path

import click

from modelnet.commands._console import progress_bar
from modelnet.commands._options import DEVICE, PATH, example
from modelnet.commands._process import tell

DEFAULT_FEATURES = Path("data/features")


@click.command(
    "build-features",
    epilog=example(
        "python cli.py build-features data/cache/example.h5 --model resnet18 --weights resnet18-f37072fd.pth"
    ),
)
@click.argument("cache", type=PATH)
@click.option("--model", required=True, help="The frozen network: a torchvision classifier, or timm:NAME.")
@click.option("--weights", required=True, type=PATH, help="A local file with its weights.")
@click.option("--out", type=PATH, help="The cache of features.  [default: data/features/<CACHE>-<MODEL>.h5]")
@DEVICE
@click.option("--rebuild", is_flag=True, help="Compute every row anew.")
@click.option("--wait", is_flag=True, help="Wait for another build of the same cache.")
def command(cache: Path, model: str, weights: Path, out: Path | None, device: str, rebuild: bool, wait: bool) -> None:
    """Extract features of the images of CACHE with a frozen network, for a linear layer that is trained on them.

    A row is the input of the network's last layer. train --model linear takes the cache of features.
    """
    from modelnet.eval.features import build_features
    from pipeline.format.paths import cache_name

    path = out or DEFAULT_FEATURES / f"{cache_name(cache)}-{model.replace(':', '-')}.h5"
    with progress_bar("features", " images") as bar:
        tell(build_features(cache, path, model, weights, device, rebuild=rebuild, wait=wait, progress=bar))

"""Build a cache of features with a frozen backbone."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from modelnet.nets.backbone import Backbone
from modelnet.nets.preparation import preparation_hint
from modelnet.nets.weights_file import digest_of
from modelnet.options.folders import FEATURES
from modelnet.progress import Progress
from modelnet.runtime.device import cpu_threads, precision_warning
from pipeline import TensorCache
from pipeline.build.features import ROWS_AT_ONCE, FeaturesReport, write_features
from pipeline.errors import CacheMissing, CheckpointError, OptionsError, OutputError
from pipeline.format.paths import cache_name
from pipeline.text import command_line


def default_path(images: Path, model: str, weights: Path, layer: str = "") -> Path:
    """Return where features go by default: data/features/<cache>-<model>[-<layer>]-<8 digits of the weights>.h5.

    Raises:
        RunError: no such file of weights.
    """
    parts = [cache_name(images), model.replace(":", "-"), *[layer] * bool(layer), digest_of(weights)[:8]]
    return FEATURES / f"{'-'.join(parts)}.h5"


def build_features(
    images: Path,
    path: Path,
    model: str,
    weights: Path,
    device: str = "auto",
    *,
    layer: str = "",
    amp: bool = False,
    notes: Progress | None = None,
    rebuild: bool = False,
    wait: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FeaturesReport:
    """Extract features from the images of a cache with a frozen network, unless they are up to date.

    Args:
        images: a cache of images.
        path: the cache of features.
        model, weights, device, layer: as `Backbone` has them.
        amp: compute in bfloat16 where that is safe; the rows stay float32.
        notes: hears what was loaded, and whether the images are prepared as the weights expect.
        rebuild, wait, progress: as `write_features` has them.

    Raises:
        CacheMissing: a folder instead of a cache.
        CacheError: the cache of images cannot be used.
        CheckpointError: the network gives no numbers.
        As `Backbone` and `write_features` otherwise.
    """
    if images.is_dir():
        advice = f"Build its cache first: {command_line()} build-cache {shlex.quote(str(images))}"
        raise CacheMissing("no cache of images", images, "this is a folder", advice)
    cache = TensorCache(images)
    if cache.features is not None:
        raise OptionsError("no images to make features of", images, "it holds features", "Give the cache of images")
    if path.resolve() == images.resolve():
        raise OutputError("the cache would be lost", path, "the images are in it", "Give another --out")
    precision, notes = "bfloat16" if amp else "float32", notes or Progress()
    backbone = Backbone(model, weights, cache.recipe.size, device, layer=layer, precision=precision)
    for line in backbone.loaded.notes:
        notes.note(line)
    for line in backbone.loaded.warnings:
        notes.warn(line)
    if warning := precision_warning(precision, backbone.device):
        notes.warn(warning)
    if hint := preparation_hint(model, weights, cache.recipe, None):
        notes.note(f"hint: {hint}")
    return extract(backbone, cache, path, rebuild=rebuild, wait=wait, progress=progress)


def extract(
    backbone: Backbone,
    cache: TensorCache,
    path: Path,
    *,
    rebuild: bool = False,
    wait: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> FeaturesReport:
    """Extract features from the images of an open cache, unless they are up to date.

    Args:
        backbone: the frozen network.
        cache: of images.
        path: the cache of features.
        rebuild, wait, progress: as `write_features` has them.

    Raises:
        CheckpointError: the network gives no numbers.
        As `write_features` otherwise.
    """

    def rows_of(first: int, end: int) -> NDArray[np.float32]:
        batch = cache.read(torch.arange(first, end))
        # always the same number together: a smaller one may be summed in another order, with other last digits
        full = torch.cat([batch, batch.new_zeros((-len(batch) % backbone.at_once, *batch.shape[1:]))])
        rows_ND = backbone(full)[: len(batch)]
        if not bool(rows_ND.isfinite().all()):
            what, name = "the weights cannot be used", backbone.name
            raise CheckpointError(what, backbone.loaded.path, f"with them {name} gives NaN or infinity")
        found: NDArray[np.float32] = rows_ND.numpy()
        return found

    with cpu_threads(None, backbone.name, ROWS_AT_ONCE):
        return write_features(
            cache.reader, path, backbone.features_of(cache), rows_of, rebuild=rebuild, wait=wait, progress=progress
        )

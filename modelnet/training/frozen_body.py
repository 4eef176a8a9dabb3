"""Where the last layer alone is trained, run all others once for each image, and keep what they give as features."""

import time
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modelnet.data.relabel import with_labels_of
from modelnet.eval.features import default_path, extract
from modelnet.nets.backbone import Backbone
from modelnet.nets.freeze import ALL_BUT_HEAD
from modelnet.nets.head import head_of
from modelnet.options import TrainOptions
from modelnet.options.code import is_own
from modelnet.progress import Progress
from modelnet.runtime.device import SMALL
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache
from pipeline.build.features import holds_others
from pipeline.errors import CacheError, CacheStale, CheckpointError
from pipeline.format.features import Features
from pipeline.text import show_minutes, show_path

PROBED = 2  # images
WORTH_SAYING = 60.0  # seconds that are left
CLOSE = {"float32": 1e-3, "bfloat16": 3e-2}  # of the largest number: dropout or another layer differ by far more


class CachedBody(NamedTuple):
    """What the frozen layers give, in place of the images.

    Attributes:
        head: path of the last layer, which maps features to logits.
        train, val: caches of features with the rows of those of images; `val` is None without validation images.
    """

    head: str
    train: TensorCache
    val: TensorCache | None


class NotComputed(Exception):
    """Features are not there: a stop was asked for before they were computed, or they were not to be."""


def trains_head_alone(options: TrainOptions) -> bool:
    """Say whether options train the last layer alone, on images that are the same in every epoch.

    Whether the network allows it, `cached_body` finds out.
    """
    changes = options.augment or options.augment_code or options.crop_size or options.norm_stats == "update"
    known = options.model not in SMALL and not is_own(options.model)
    frozen = options.freeze == ALL_BUT_HEAD and options.thaw_epoch is None and options.weights is not None
    return frozen and known and not changes and not options.compile and options.precision in CLOSE


def cached_body(
    network: nn.Module,
    options: TrainOptions,
    images: tuple[TensorCache, TensorCache | None],
    weights_sha256: str | None,
    autocast: AbstractContextManager[object],
    progress: Progress,
    stop: Stop,
    home: Path = Path(),
    computes: bool = True,
) -> CachedBody | None:
    """Extract the features of a frozen network, unless they are up to date; None where it is not its last layer alone.

    Args:
        network: of the options, with its weights, on its device.
        options: for which `trains_head_alone` is true.
        images: to train and to validate on.
        weights_sha256: of the file that gave the network its weights.
        autocast: the context that it computes in.
        progress: hears where the features are, and how long they take.
        stop: when it is set, `NotComputed` is raised; the next run computes the features anew.
        home: the folder in which data/features is.
        computes: False writes nothing, and raises `NotComputed` unless the features are there.

    Raises:
        NotComputed: as above.
        RunError, CheckpointError: the file of weights is not there any more, is another, or lacks frozen layers.
        As `extract` otherwise.
    """
    device, (train, val) = next(network.parameters()).device, images
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        rows = torch.arange(min(PROBED, train.num_images))
        found = _input_of_head(network, train.read(rows).to(device), autocast, CLOSE[options.precision])
        if found is None:
            return None
        head, expected_ND = found
        assert options.weights is not None
        weights = options.weights if options.weights.exists() else home / options.weights
        how: dict[str, Any] = {"precision": options.precision, "memory_format": options.memory_format}
        backbone = Backbone(options.model, weights, train.recipe.size, str(device), **how)
    if backbone.loaded.sha256 != weights_sha256:
        reason = f"their SHA-256 is {backbone.loaded.sha256[:8]}, and the run began with {str(weights_sha256)[:8]}"
        raise CheckpointError("the weights are others", weights, reason)
    opened: list[TensorCache] = []
    for cache in (train,) if val is None else (train, val):
        path, features = home / default_path(cache.path, options.model, weights), backbone.features_of(cache)
        taken = any(one.path == path and one.features != features for one in opened)
        if taken or holds_others(path, cache.reader):  # of another cache of that name
            path = path.with_stem(f"{path.stem}-{cache.fingerprint[:8]}")
        if computes:
            once = f"the frozen layers run once for each image: features in {show_path(path)}"
            report = extract(backbone, cache, path, wait=True, progress=_Poll(progress, stop, once))
            if report.up_to_date and path not in [one.path for one in opened]:
                progress.note(f"{once} are up to date")
        elif not _is_there(path, features):
            raise NotComputed
        opened.append(with_labels_of(TensorCache(path), cache))
        if opened[-1].features != features:
            raise CacheStale("the features have changed", path, "another process replaced them")
    if not _close(opened[0].read(rows), expected_ND, CLOSE[options.precision]):
        return None
    return CachedBody(head, opened[0], None if val is None else opened[-1])


def _is_there(path: Path, features: Features) -> bool:
    with suppress(CacheError):
        return TensorCache(path).features == features
    return False


class _Poll:
    """Hears how far features are: says once how long they take, and raises `NotComputed` if a stop was asked for."""

    def __init__(self, progress: Progress, stop: Stop, what: str) -> None:
        self.progress, self.stop, self.what, self.began = progress, stop, what, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if self.what:
            left = (time.monotonic() - self.began) * (total - done) / done
            self.progress.note(f"{self.what}{f', in about {show_minutes(left)}' if left > WORTH_SAYING else ''}")
            self.what = ""
        if self.stop.signal is not None:
            raise NotComputed


def _input_of_head(
    network: nn.Module, images_NCHW: Tensor, autocast: AbstractContextManager[object], close: float
) -> tuple[str, Tensor] | None:
    """Return the path of the last layer and what it is given, (N, D) float32 on the CPU.

    None where the logits are more than that linear layer of a fixed function of the image: dropout before it is on in
    training, for example, or it is a convolution.
    """
    heads = head_of(network)
    layer = network.get_submodule(heads[0]) if len(heads) == 1 else None
    if type(layer) is not nn.Linear or layer.bias is None:
        return None
    calls: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _, given, output: calls.append((given[0], output)))
    try:
        with torch.no_grad(), autocast:
            logits = [network.train(mode)(images_NCHW) for mode in (False, True)]
    finally:
        hook.remove()
    if len(calls) != 2 or any(given.dim() != 2 for given, _ in calls):
        return None
    (evaluated, _), (trained, _) = calls
    same = all(torch.equal(output, logit) for (_, output), logit in zip(calls, logits, strict=True))
    return (heads[0], trained.float().cpu()) if same and _close(evaluated, trained, close) else None


def _close(found: Tensor, expected: Tensor, close: float) -> bool:
    found, expected = found.float().cpu(), expected.float().cpu()
    return found.shape == expected.shape and bool((found - expected).abs().max() <= close * expected.abs().max())

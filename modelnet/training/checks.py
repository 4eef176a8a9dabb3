"""Check a run before it begins: what cannot be trained, and what changes nothing."""

import copy

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from modelnet.nets.freeze import ALL_BUT_HEAD
from modelnet.nets.head import head_of
from modelnet.nets.modelnet import SMALLEST
from modelnet.nets.registry import LINEAR, MODELNET
from modelnet.options import OPTIONS, TrainOptions
from modelnet.runtime.device import memory_errors
from modelnet.runtime.ranks import Ranks
from pipeline import TensorCache
from pipeline.errors import OptionsError
from pipeline.load.batch_plan import BatchPlan
from pipeline.text import show_size


def check_batch_size(size: int, ranks: Ranks) -> None:
    """Refuse batches with fewer images than ranks.

    Raises:
        OptionsError: says what to give instead.
    """
    if size < ranks.size:
        reason = f"a batch of {size} images cannot be divided among {ranks.size} ranks"
        advice = f"Give --batch-size {ranks.size} or more: it is that of all"
        raise OptionsError("too many ranks", None, reason, advice)


def check_input(cache: TensorCache, options: TrainOptions) -> None:
    """Refuse a network that takes images where a cache holds features, or the other way round.

    Raises:
        OptionsError: says what to give instead.
    """
    takes_features = options.model == LINEAR
    if cache.features is None and takes_features:
        advice = "Make one: build-features CACHE --model resnet18 --weights FILE"
        raise OptionsError("--model linear takes features", cache.path, "it holds images", advice)
    if cache.features is not None and not takes_features:
        reason = f"it holds features, which {options.model} does not take"
        raise OptionsError("not a cache of images", cache.path, reason, "Give --model linear")
    changes = [OPTIONS[name].flag for name in ("augment", "augment_code", "crop_size") if getattr(options, name)]
    if cache.features is not None and changes:
        raise OptionsError(f"{changes[0]} changes images", cache.path, "it holds features", "Leave it out")
    if cache.features is None and options.crop is not None:
        check_crop_size(options.crop, cache, options)


def check_crop_size(crop: tuple[int, int], cache: TensorCache, options: TrainOptions) -> None:
    """Refuse a crop that is larger than the images, or too small for the network."""
    (height, width), typed = cache.recipe.size, f"--crop-size {show_size(crop)}"
    if crop[0] > height or crop[1] > width:
        reason = f"its images have {height} × {width} pixels"
        raise OptionsError(f"{typed} is too large", cache.path, reason, "Give a smaller one")
    if options.model == MODELNET and min(crop) < SMALLEST <= min(height, width):
        reason = f"ModelNet needs {SMALLEST} × {SMALLEST} pixels or more"
        advice = f"Give {SMALLEST} to {show_size(cache.recipe.size)}, or leave it out"
        raise OptionsError(f"{typed} is too small", cache.path, reason, advice)


def check_smallest_batch(network: nn.Module, plan: BatchPlan, row_shape: tuple[int, ...], name: str) -> None:
    """Refuse a batch of one image where the network cannot train on one, before an epoch begins.

    BatchNorm has no variance of a single value. Ranks could train on it together, but not one process alone.

    Args:
        network: on its device, not yet divided among ranks; its statistics and the random states stay as they are.
        plan: of the batches.
        row_shape: of an image.
        name: of the network.

    Raises:
        OptionsError: says what to give instead.
    """
    if min(plan.size(0), plan.size(len(plan) - 1)) > 1:
        return
    before = copy.deepcopy(network.state_dict())
    device = next(network.parameters()).device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad(), memory_errors(device):
            network.train()(torch.zeros(1, *row_shape, device=device))
    except ValueError as error:
        can_drop = len(plan) > 1 and plan.batch_size > 1
        advice = "Give --drop-last or another --batch-size" if can_drop else "Give a larger --batch-size"
        reason = f"{'the last batch of an epoch' if plan.batch_size > 1 else 'a batch'} has one image ({error})"
        raise OptionsError(f"{name} cannot train on a single image", None, reason, advice) from error
    network.load_state_dict(before)


def unreached(options: TrainOptions) -> list[str]:
    """Name the options that wait for more epochs than the run has."""
    effects = {
        "thaw_epoch": "thaws nothing",
        "patience": "ends nothing",
        "warmup_epochs": "ends after the run: the rate never reaches --lr",
    }
    if waits := {"step": "decay_epochs", "plateau": "plateau_epochs"}.get(options.sched):
        effects[waits] = f"never lets --sched {options.sched} lower the rate"
    return [
        f"{OPTIONS[name].flag} {epochs} {effect}: there are {options.epochs} epochs"
        for name, effect in effects.items()
        if (epochs := getattr(options, name)) is not None
        and epochs >= options.epochs + (name in ("warmup_epochs", "thaw_epoch"))
    ]


def idle_when_fine_tuning(network: nn.Module, options: TrainOptions) -> list[str]:
    """Name options of fine-tuning that change nothing in this network."""
    found = []
    if options.freeze is not None and options.thaw_epoch == 1:
        found.append(f"--freeze {options.freeze} changes nothing: --thaw-epoch 1 trains all from the first epoch on")
    if options.norm_stats is not None:
        if not any(isinstance(module, _NormBase) for module in network.modules()):
            found.append(f"--norm-stats {options.norm_stats} changes nothing: {options.model} has no BatchNorm")
        elif options.norm_stats == "update" and options.freeze is None:
            found.append("--norm-stats update changes nothing without --freeze")
    return found


def frozen_note(network: nn.Module, freeze: str | None) -> str:
    """Say how much of a network is frozen, and which layer was taken for its last: of a person's own it is a guess."""
    counts = [parameter.numel() for parameter in network.parameters()]
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    kept = f"all but {', '.join(head_of(network))}; " if freeze == ALL_BUT_HEAD else ""
    return f"frozen: {kept}{trained:,} of {sum(counts):,} weights are trained"

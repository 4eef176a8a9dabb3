"""Say how a pretrained network wants its images: the recipe options of torchvision's and timm's weights.

Both libraries carry these settings with their list of networks; nothing is downloaded.
"""

import math
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from modelnet.nets.registry import INCEPTIONS, TIMM, import_timm
from modelnet.options.code import is_own
from modelnet.runtime.device import SMALL
from pipeline.errors import OptionsError
from pipeline.recipe import Recipe

_SOURCES = "Give a network of torchvision, timm:NAME, the folder of a run, or a cache (.h5)"
_HALF = (0.5, 0.5, 0.5)  # to this, torchvision's pretrained Inceptions change their input themselves


def preparation_of(name: str) -> dict[str, Any]:
    """Return the recipe options of a network's pretrained weights.

    Args:
        name: of torchvision, "resnet50" for its default weights or "resnet50:IMAGENET1K_V1"; of timm, "timm:NAME".

    Returns:
        size (height, width), fit, resize_to where fit is "crop", interpolation, mean and std.

    Raises:
        OptionsError: neither library knows the name, or a recipe cannot say what the weights want.
    """
    return _of_timm(name) if name.startswith(TIMM) else _of_torchvision(name)


def preparation_hint(model: str, weights: Path, recipe: Recipe, crop: tuple[int, int] | None) -> str:
    """Say how the images of a cache differ from what a network's pretrained weights want; empty if they do not.

    Args:
        model: the name of the network.
        weights: the file; one that has the name of older weights of torchvision is taken for these.
        recipe: of the cache.
        crop: the (height, width) that training cuts out of the images, or None.
    """
    try:
        model += _older_weights(model, weights)
        wanted = preparation_of(model)
    except OptionsError:  # ModelNet, a network without weights, or weights whose preparation a recipe cannot say
        return ""
    have = {name: getattr(recipe, name) for name in wanted} | ({} if crop is None else {"size": crop})
    other = [name.replace("_", " ") for name, value in wanted.items() if have[name] != value]
    if not other:
        return ""
    return f"the pretrained weights of {model} want another {', '.join(other)}: build-cache --like {model}"


def _older_weights(model: str, weights: Path) -> str:
    """Return ":IMAGENET1K_V1" for a file whose name is that of such weights of torchvision, not its newest; else ""."""
    from torchvision import models

    if model not in models.list_models(module=models):
        return ""
    available = models.get_model_weights(model)
    others = [member for member in available if member is not available["DEFAULT"]]
    return next((f":{member.name}" for member in others if member.url.rpartition("/")[2] == weights.name), "")


def pretrained_hint(model: str) -> str:
    """Say which file has a network's pretrained weights, and how to give it; empty if no library knows one."""
    found = pretrained_file(model)
    return f"{model} starts untrained; pretrained weights are {found}: give that file as --weights" if found else ""


def pretrained_file(model: str) -> str:
    """Say which file has a network's pretrained weights: its address; empty if no library knows one."""
    if model in SMALL or is_own(model):
        return ""  # without importing torchvision, which takes a second
    if model.startswith(TIMM):
        config = import_timm().get_pretrained_cfg(model.removeprefix(TIMM))
        if config and config.hf_hub_id:
            return f"{config.hf_hub_filename or 'model.safetensors'} of {config.hf_hub_id} on the Hugging Face Hub"
        return str((config and config.url) or "")
    from torchvision import models

    known = model in models.list_models(module=models)
    return str(models.get_model_weights(model)["DEFAULT"].url) if known else ""


def _of_torchvision(name: str) -> dict[str, Any]:
    from torchvision import models

    network, _, weights = name.partition(":")
    known = models.list_models(module=models)
    if network not in known:
        _unknown(network, [*known, *_names_of_timm()])
    available = models.get_model_weights(network)
    choices = [member.name for member in available]
    if weights and weights not in {*choices, "DEFAULT"}:
        _unknown(weights, choices, f"weights of {network}", f"It has {', '.join(choices)}")
    wanted = available[weights or "DEFAULT"].transforms()
    (height, width), (resize_to,) = (wanted.crop_size * 2)[:2], wanted.resize_size
    mean, std = (_HALF, _HALF) if network in INCEPTIONS else (wanted.mean, wanted.std)
    return _options((height, width), resize_to, wanted.interpolation.value, mean, std)


def _of_timm(name: str) -> dict[str, Any]:
    timm = import_timm()
    known = timm.list_pretrained()
    config = timm.get_pretrained_cfg(name.removeprefix(TIMM)) if _is_pretrained(name, known) else None
    if config is None:
        _unknown(name, [*_names_of_timm(), *(TIMM + other for other in known)])
    wanted = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    size, part, mode = wanted["input_size"][1:], wanted["crop_pct"], wanted["crop_mode"]
    if mode == "squash" and part == 1:
        options = _options(size, None, wanted["interpolation"], wanted["mean"], wanted["std"])
    elif mode == "center" and size[0] == size[1]:
        resize_to = math.floor(size[0] / part)
        options = _options(size, resize_to, wanted["interpolation"], wanted["mean"], wanted["std"])
    else:
        reason = f"crop mode {mode} of {part:.3f} at {size[0]} × {size[1]}, which a recipe cannot express"
        raise OptionsError(
            f"the preparation of {name} cannot be copied", None, reason, "Give --fit and --size yourself"
        )
    return options


def _options(
    size: Iterable[int], resize_to: int | None, interpolation: str, mean: Iterable[float], std: Iterable[float]
) -> dict[str, Any]:
    fit = {"fit": "squash"} if resize_to is None else {"fit": "crop", "resize_to": resize_to}
    return {"size": tuple(size), **fit, "interpolation": interpolation, "mean": tuple(mean), "std": tuple(std)}


def _names_of_timm() -> list[str]:
    """List the networks of timm that have weights, as `--like` takes them; none if timm is not installed."""
    try:
        known = import_timm().list_pretrained()
    except OptionsError:
        return []
    return list(dict.fromkeys(TIMM + name.partition(".")[0] for name in known))


def _is_pretrained(name: str, known: Iterable[str]) -> bool:
    name = name.removeprefix(TIMM)
    return any(name in (other, other.partition(".")[0]) for other in known)


def _unknown(name: str, known: list[str], what: str = "network", otherwise: str = _SOURCES) -> NoReturn:
    near = get_close_matches(name, known)
    raise OptionsError(f"no such {what}", None, repr(name), f"Near it: {', '.join(near)}" if near else otherwise)

"""Networks by name: ModelNet, torchvision's classifiers, timm's; weights to start from, out of a local file."""

import pickle
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from modelnet.network import ModelNet
from pipeline.errors import AccessDenied, CheckpointError, CheckpointUnsafe, OptionsError, RunError

MODELNET, LINEAR, TIMM = "modelnet", "linear", "timm:"

_AUXILIARY = ("googlenet", "inception_v3")  # would give a second and third answer in training


def build_network(name: str, classes: int, size: int) -> nn.Module:
    """Make the network of that name, its weights drawn from torch's global generator.

    Args:
        name: "modelnet", or that of a torchvision classifier, as "resnet18", or one of timm's, as "timm:resnet18";
            "linear" takes features instead of images.
        classes: C, the number of classes.
        size: S, the side of the images in pixels; for "linear" D, numbers an image.

    Raises:
        OptionsError: no such network, or one that cannot take images of that size.
    """
    if name == MODELNET:
        return ModelNet(classes, size)
    if name == LINEAR:
        return nn.Linear(size, classes)
    known, make = _timm(size) if name.startswith(TIMM) else _torchvision(size)
    if name not in known:
        some = [MODELNET, LINEAR, "resnet18", "and torchvision's other classifiers"]
        near = get_close_matches(name, [MODELNET, LINEAR, *known]) or some
        raise OptionsError("no such network", None, repr(name), f"There is {', '.join(near)}")
    try:
        network = make(name, classes)
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, size, size))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise OptionsError(
            f"{name} cannot take images of {size} × {size} pixels",
            None,
            str(error),
            "Build the cache with another --size",
        ) from error
    return network.train()


_Maker = Callable[[str, int], nn.Module]


def _torchvision(size: int) -> tuple[list[str], _Maker]:
    """Return the names of torchvision's classifiers, and what makes one of a name for so many classes."""
    from torchvision import models

    def make(name: str, classes: int) -> nn.Module:
        special: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in _AUXILIARY else {}
        if name.startswith("vit_"):
            special = {"image_size": size}
        elif name == "maxvit_t":
            special = {"input_size": (size, size)}
        network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **special)
        return network

    return models.list_models(module=models), make


def _timm(size: int) -> tuple[list[str], _Maker]:
    """Return the same of timm. A name that is not in its list could be a place in the network: never looked up.

    Raises:
        OptionsError: timm is not installed.
    """
    try:
        import timm
    except ImportError as error:
        advice = "Type: pip install 'modelnet-cache[timm]'"
        raise OptionsError("timm is not installed", None, str(error), advice) from error

    def make(name: str, classes: int) -> nn.Module:
        name = name.removeprefix(TIMM)
        made_for = timm.get_pretrained_cfg(name)
        fixed = made_for is not None and made_for.fixed_input_size and made_for.input_size[1:] != (size, size)
        special: dict[str, Any] = {"img_size": size} if fixed else {}
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **special)
        return network

    return [TIMM + name for name in timm.list_models()], make


def load_weights(network: nn.Module, path: Path) -> list[str]:
    """Take the weights of a file: one of torch's with a network's `state_dict`, or a checkpoint of ours.

    Tensors of another shape, as those of a last layer for other classes, are left as they are.

    Args:
        network: changed in place.
        path: of the file; nothing but tensors and plain values is unpickled.

    Returns:
        Names of the tensors that were left.

    Raises:
        RunError: no such file.
        CheckpointError: it is not weights, or those of another network.
        CheckpointUnsafe: a pickle that would run code.
    """
    found, own = _read_weights(path), network.state_dict()
    what = "the weights do not fit"
    if missing := [name for name in own if name not in found]:
        raise CheckpointError(
            what, path, f"it has no {missing[0]}, as {len(missing)} of the network's {len(own)} tensors"
        )
    if unknown := [name for name in found if name not in own]:
        raise CheckpointError(
            what, path, f"the network has no {unknown[0]}, as {len(unknown)} of its {len(found)} tensors"
        )
    other = [name for name in own if own[name].shape != found[name].shape]
    if bad := [name for name in own if name not in other and not found[name].isfinite().all()]:
        reason = f"{bad[0]} holds NaN or infinite numbers, as {len(bad)} of {len(own)} tensors do"
        raise CheckpointError("the weights cannot be used", path, reason)
    network.load_state_dict({name: own[name] if name in other else found[name] for name in own})
    return other


def _is_of_torch(path: Path) -> bool:
    """Say whether a file begins as torch's do, which are zip files, and once were pickles."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError("no weights there", path, "no such file", "Give the path of a local file") from error
    except PermissionError as error:
        raise AccessDenied("the weights cannot be read", path, "permission denied") from error
    except pickle.UnpicklingError as error:
        if not _is_of_torch(path):
            reason, advice = "it is no file of torch.save", "Load it with what wrote it, and save its tensors with that"
            raise CheckpointError("the weights cannot be read", path, reason, advice) from error
        reason = "it holds more than tensors and plain values, which could run code; it is not loaded"
        raise CheckpointUnsafe("not safe weights", path, reason) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is empty"
        raise CheckpointError("the weights cannot be read", path, reason) from error
    if isinstance(content, dict) and isinstance(content.get("weights"), dict):
        content = content.get("average") or content["weights"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError("the weights cannot be read", path, "it is not a dictionary of tensors")
    return content

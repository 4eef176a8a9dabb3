"""Make networks by name: ModelNet, torchvision's classifiers, timm's, a linear layer, and a person's own."""

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import nn

from modelnet.nets.modelnet import ModelNet
from modelnet.nets.own import OwnCode, own_network
from modelnet.options.code import GIVEN
from modelnet.runtime.device import SMALL
from pipeline.errors import OptionsError
from pipeline.text import how_to_install

MODELNET, LINEAR = SMALL
TIMM = "timm:"

INCEPTIONS = ("googlenet", "inception_v3")  # they would return auxiliary logits in training


def build_network(
    name: str,
    classes: int,
    size: int | tuple[int, int],
    code: OwnCode | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Make the network of that name, its weights drawn from torch's global generator.

    Args:
        name: "modelnet", or that of a torchvision classifier, as "resnet18", or one of timm's, as "timm:resnet18" or,
            with the tag of its weights, "timm:resnet18.a1_in1k"; "linear" takes features instead of images;
            "net.py:Net" is a person's own.
        classes: C, the number of classes.
        size: (height, width) of the images in pixels, or one number for squares; for "linear" D, numbers an image.
        code: the person's own, where the name is that of one. A name alone never makes a file run.
        arguments: of that.

    Raises:
        OptionsError: no such network, or one that cannot take images of that size.
        CodeError: a person's own raises an error, or is no network for such images.
    """
    if name == MODELNET:
        return ModelNet(classes, size)
    if name == LINEAR and isinstance(size, int):
        return nn.Linear(size, classes)
    height, width = (size, size) if isinstance(size, int) else size
    if code is not None:
        return own_network(code, arguments or {}, classes, (height, width))
    if name.startswith(GIVEN):
        reason = f"a {name.removeprefix(GIVEN)} was given from Python, and is kept in no file"
        raise OptionsError("the network is needed", None, reason, "Give it again from Python: resume(run, network=...)")
    known, make = _timm(height, width) if name.startswith(TIMM) else _torchvision(height, width)
    if name not in known and not _is_tagged(name):
        some = [MODELNET, LINEAR, "resnet18", "and torchvision's other classifiers"]
        near = get_close_matches(name, [MODELNET, LINEAR, *known]) or some
        raise OptionsError("no such network", None, repr(name), f"There is {', '.join(near)}")
    try:
        network = make(name, classes)
        with torch.inference_mode():
            network.eval()(torch.zeros(1, 3, height, width))
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise OptionsError(
            f"{name} cannot take images of {height} × {width} pixels",
            None,
            str(error),
            "Build the cache with another --size",
        ) from error
    return network.train()


_Maker = Callable[[str, int], nn.Module]


def _torchvision(height: int, width: int) -> tuple[list[str], _Maker]:
    """Return the names of torchvision's classifiers, and a function (name, classes) that makes one."""
    from torchvision import models

    def make(name: str, classes: int) -> nn.Module:
        special: dict[str, Any] = {"aux_logits": False, "init_weights": True} if name in INCEPTIONS else {}
        if name.startswith("vit_"):
            if height != width:
                raise ValueError("it needs square images")
            special = {"image_size": height}
        elif name == "maxvit_t":
            special = {"input_size": (height, width)}
        network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **special)
        return network

    return models.list_models(module=models), make


def _timm(height: int, width: int) -> tuple[list[str], _Maker]:
    """Return the same for timm. Names outside its list are never looked up: they may be addresses on the internet.

    Raises:
        OptionsError: timm is not installed.
    """
    timm = import_timm()

    def make(name: str, classes: int) -> nn.Module:
        name = name.removeprefix(TIMM)
        made_for = timm.get_pretrained_cfg(name)
        fixed = made_for is not None and made_for.fixed_input_size and made_for.input_size[1:] != (height, width)
        special: dict[str, Any] = {"img_size": (height, width)} if fixed else {}
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **special)
        return network

    return [TIMM + name for name in timm.list_models()], make


def _is_tagged(name: str) -> bool:
    """Say whether it is a name of timm with one of the tags that its list has: "timm:resnet18.a1_in1k"."""
    return name.startswith(TIMM) and name.removeprefix(TIMM) in import_timm().list_pretrained()


def import_timm() -> Any:
    """Return the module timm.

    Raises:
        OptionsError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise OptionsError("timm is not installed", None, str(error), how_to_install("timm")) from error
    return timm

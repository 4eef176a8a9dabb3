"""The last layer of a classifier, which is new where weights were made for other classes."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from modelnet.nets.init import initialize


def head_of(network: nn.Module) -> tuple[str, ...]:
    """Return the names of the layers that give the logits: one, of some networks of timm two.

    Of timm's networks its configuration says which. Of others it is the last linear layer or convolution; there is none
    if that layer is the whole network, or in a network of timm without classes.
    """
    config: Mapping[str, Any] = getattr(network, "pretrained_cfg", None) or {}
    if named := config.get("classifier"):
        return (named,) if isinstance(named, str) else tuple(named)
    if getattr(network, "num_classes", None) == 0:  # an encoder of timm: its last linear layer belongs to the body
        return ()
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return tuple(name for name in layers[-1:] if name)


def draw_head(network: nn.Module, layers: Sequence[str], seed: int, init: str) -> None:
    """Draw last layers anew from a generator of the seed alone, as `--model linear` draws its layer.

    Args:
        network: changed in place; it may be on any device.
        layers: names of `head_of`.
        seed: torch's global generator is set to it, and has drawn these layers alone afterwards.
        init: as `initialize` has it.
    """
    torch.manual_seed(seed)
    for layer in map(network.get_submodule, layers):
        fresh = copy.deepcopy(layer).cpu()  # a device's own generator would draw other numbers
        for module in fresh.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
        initialize(fresh, init)
        layer.load_state_dict(fresh.state_dict())

"""Optimizers by name, and the running mean of weights."""

import inspect
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from modelnet.options import TrainOptions

_OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}
_WITH_MOMENTUM = ("sgd", "rmsprop")


def build_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Make torch's optimizer of the name that was asked for; those that have no momentum take none."""
    settings: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if options.opt in _WITH_MOMENTUM:
        settings["momentum"] = options.momentum
    if options.opt == "sgd" and not options.scales_gradients:  # a skipped fused step of torch corrupts the momentum
        settings["fused"] = True  # all weights in one pass: a twentieth less time a step at batch size 8
    optimizer: torch.optim.Optimizer = _without_compiler(_OPTIMIZERS[options.opt])(network.parameters(), **settings)
    return optimizer


def _without_compiler(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return a torch optimizer that does not import torch's compiler when it is made, which takes over a second.

    Torch wraps these methods to tell a compiler to leave them alone; what they wrap is the same code.
    """
    names = ("add_param_group", "zero_grad", "step", "state_dict", "load_state_dict")
    inner = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    return type(optimizer.__name__, (optimizer,), inner | {"step": torch.no_grad()(inner["step"])})


def running_mean_of_weights(network: nn.Module, decay: float) -> AveragedModel:
    """Copy a network into one whose weights are a running mean of those after each step; the first replace it.

    Args:
        network: in training.
        decay: the part of the mean that a step keeps.
    """
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

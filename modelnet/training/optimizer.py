"""Optimizers by name, and the moving average of weights (EMA)."""

import inspect
from collections.abc import Collection
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from modelnet.nets.head import head_of
from modelnet.options import TrainOptions
from pipeline.errors import OptionsError

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
    optimizer: torch.optim.Optimizer = _without_compiler(_OPTIMIZERS[options.opt])(
        parameter_groups(network, options), **settings
    )
    return optimizer


def parameter_groups(network: nn.Module, options: TrainOptions, known: Collection[int] = ()) -> list[dict[str, Any]]:
    """Return groups of the parameters that are trained, those of each learning rate together.

    Args:
        network: its frozen parameters are left out.
        options: `head_lr` and `layer_decay` give a group its `lr_scale`, the factor on its learning rate.
        known: ids of parameters that are left out as well.

    Raises:
        OptionsError: `layer_decay` for a network that is not timm's.
    """
    trained = [(name, p) for name, p in network.named_parameters() if p.requires_grad and id(p) not in known]
    if options.head_lr == 1 and options.layer_decay is None:
        return [{"params": [parameter for _, parameter in trained]}]
    heads = tuple(f"{head}." for head in head_of(network))
    if options.head_lr != 1 and not heads:
        raise OptionsError("--head-lr has no effect", None, f"{options.model} is one layer", "Give --lr")
    decays = {} if options.layer_decay is None else _layer_decays(network, options.layer_decay)
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in trained:
        scale = decays.get(name, 1.0) * (options.head_lr if name.startswith(heads) else 1.0)
        groups.setdefault(scale, []).append(parameter)
    return [{"params": parameters, "lr_scale": scale} for scale, parameters in groups.items()]


def _layer_decays(network: nn.Module, decay: float) -> dict[str, float]:
    """Return the factor on the learning rate of each parameter: decay ** (layers above it), in timm's groups."""
    if not hasattr(network, "group_matcher"):
        advice = "Give a network of timm, as timm:resnet18"
        raise OptionsError("--layer-decay needs timm's groups of layers", None, "the network has none", advice)
    from timm.models import group_parameters

    of_timm: Any = network
    layers = group_parameters(of_timm, of_timm.group_matcher(coarse=False), reverse=True)
    last = max(layers.values())
    return {name: decay ** (last - layer) for name, layer in layers.items()}


def add_thawed(optimizer: torch.optim.Optimizer, network: nn.Module, options: TrainOptions) -> None:
    """Let an optimizer change the parameters as well that it lacks, in groups after its own."""
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for group in parameter_groups(network, options, known):
        optimizer.add_param_group(group)


def _without_compiler(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return a torch optimizer that does not import torch's compiler when it is made, which takes over a second.

    Torch wraps these methods to tell a compiler to leave them alone; what they wrap is the same code. It would also
    wrap each step for profilers and hooks. Without that, and with plain clearing, a step of one image is 10 % shorter.
    """
    names = ("add_param_group", "step", "state_dict", "load_state_dict")
    inner = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    step = torch.no_grad()(inner["step"])
    step.hooked = True  # torch's mark of a step that is wrapped already
    return type(optimizer.__name__, (optimizer,), inner | {"step": step, "zero_grad": _clear_gradients})


def _clear_gradients(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def running_mean_of_weights(network: nn.Module, decay: float) -> AveragedModel:
    """Copy a network into one whose weights are a moving average of those after each step; the first replace it.

    Args:
        network: in training.
        decay: the part of the mean that a step keeps.
    """
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

"""Keep layers of a network as they are: no gradient, evaluation mode, the same bits."""

import re
from types import MethodType

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from modelnet.nets.head import head_of
from pipeline.errors import OptionsError

ALL_BUT_HEAD = "all-but-head"


def frozen_paths(network: nn.Module, freeze: str) -> set[str]:
    """Return the paths of modules and of parameters that are frozen, with all that is in them.

    Args:
        network: whose modules `named_modules` names.
        freeze: "all-but-head", or a regular expression that is matched with the beginning of each path.

    Raises:
        OptionsError: it matches no parameter, or all of them.
    """
    parameters = [name for name, _ in network.named_parameters()]
    paths = [path for path, _ in network.named_modules() if path] + parameters
    if freeze == ALL_BUT_HEAD:
        heads = tuple(f"{head}." for head in head_of(network))
        of_head = tuple(path for path in paths if f"{path}.".startswith(heads))
        frozen = {path for path in paths if path not in of_head and not any(h.startswith(f"{path}.") for h in heads)}
    else:
        pattern = re.compile(freeze)
        matched = tuple(f"{path}." for path in paths if pattern.match(path))
        frozen = {path for path in paths if f"{path}.".startswith(matched)}
    count = len(frozen.intersection(parameters))
    if count in (0, len(parameters)):
        what, way = "no layer", f"or give {ALL_BUT_HEAD}"
        if count:
            what, way = "every layer", "leave some to train"
        layers = ", ".join(name for name, _ in network.named_children())
        advice = f"There is {layers}; {way}" if layers else "It is one layer: leave out --freeze"
        raise OptionsError(f"--freeze matches {what}", None, repr(freeze), advice)
    return frozen


def freeze_layers(network: nn.Module, freeze: str | None, norm_stats: str | None) -> None:
    """Freeze layers of a network in place. They stay in evaluation mode when the network is put into training.

    Args:
        network: changed in place.
        freeze: as `frozen_paths` has it; None freezes nothing.
        norm_stats: "keep" or "update" the running statistics of all BatchNorm layers; None keeps those in frozen ones.

    Raises:
        OptionsError: as `frozen_paths`.
    """
    frozen = set() if freeze is None else frozen_paths(network, freeze)
    for name, parameter in network.named_parameters():
        if name in frozen:  # others stay as the network was made
            parameter.requires_grad_(False)
    for path, module in network.named_modules():
        is_norm = isinstance(module, _NormBase)
        if (norm_stats == "keep" and is_norm) or (path in frozen and not (norm_stats == "update" and is_norm)):
            _hold(module)


def thaw_layers(network: nn.Module, norm_stats: str | None) -> None:
    """Let all layers train again; with "keep", BatchNorm layers keep their running statistics nevertheless."""
    network.requires_grad_(True)
    for module in network.modules():
        if norm_stats != "keep" or not isinstance(module, _NormBase):
            vars(module).pop("train", None)
    network.train(network.training)


def is_frozen(network: nn.Module) -> bool:
    """Say whether some parameters are frozen."""
    return not all(parameter.requires_grad for parameter in network.parameters())


def _hold(module: nn.Module) -> None:
    """Keep a module in evaluation mode, whatever mode the network is put into."""
    # of this module alone: a subclass would change its type, by which others know it
    module.train = MethodType(_stay, module)  # type: ignore[method-assign]
    module.training = False


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    module.training = False
    for child in module.children():
        child.train(mode)
    return module

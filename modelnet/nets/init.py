"""Initialization of weights other than PyTorch's own."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

_FILL: dict[str, Callable[[Tensor], Any]] = {
    "kaiming": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "xavier": nn.init.xavier_uniform_,
    "orthogonal": nn.init.orthogonal_,
    "zeros": nn.init.zeros_,
}


def initialize(network: nn.Module, how: str) -> None:
    """Fill the weights of all convolutions and linear layers anew, and set their biases to zero.

    Random numbers come from torch's global generator, in the order of the layers.

    Args:
        network: changed in place.
        how: "default" leaves it alone; "kaiming" is normal for ReLU, "xavier" uniform, both by fan-in and fan-out as
            `torch.nn.init` has them; "orthogonal"; "zeros", from which no hidden layer ever learns.
    """
    if how == "default":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            _FILL[how](layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

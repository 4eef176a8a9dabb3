"""The part of a network that computes features: all but its last layer, or all up to a named one."""

from contextlib import suppress
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import OptionsError


class _Reached(Exception):
    """Ends the forward pass at a layer."""


class Body(nn.Module):
    """Maps (N, 3, H, W) images to (N, D) features: the output of a network or of one of its layers, pooled.

    Maps are averaged over their positions. Of a sequence of tokens the class token is taken where the network itself
    pools by it, else the mean of the tokens of patches.

    Args:
        network: without its last layer.
        name: of the network, for messages.
        layer: name of a module, "layer3" or "blocks.10"; "" for the output of the whole network.

    Raises:
        OptionsError: no such layer; on a call, an output that gives no features.
    """

    def __init__(self, network: nn.Module, name: str, layer: str = "") -> None:
        super().__init__()
        self.network, self.name, self.layer = network, name, layer
        known = [module for module, _ in network.named_modules() if module]
        if layer and layer not in known:
            near = get_close_matches(layer, known) or [module for module, _ in network.named_children()]
            raise OptionsError(f"{name} has no such layer", None, repr(layer), f"There is {', '.join(near)}")
        self._reached: list[Any] = []
        if layer:
            network.get_submodule(layer).register_forward_hook(self._keep)

    def forward(self, images_NCHW: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 images to (N, D) features."""
        self._reached.clear()
        output: Any = None
        with suppress(_Reached):
            output = self.network(images_NCHW)
        if self.layer:
            if not self._reached:
                raise self._no_features("it is not run")
            output = self._reached.pop()
        if not isinstance(output, Tensor) or not 2 <= output.dim() <= 4:
            what = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise self._no_features(f"its output is {what}, and a tensor of 2 to 4 dimensions is needed")
        if output.dim() == 4:
            return output.mean((1, 2) if self._ends_in_channels() else (2, 3))
        return output if output.dim() == 2 else self._pooled_tokens(output)

    def _keep(self, _module: nn.Module, _inputs: Any, output: Any) -> None:
        """Keep the first output of the layer, and end the pass; torch.export only follows a pass that goes on."""
        if not self._reached:
            self._reached.append(output)
        if not torch.compiler.is_compiling():
            raise _Reached

    def _pooled_tokens(self, tokens_NLD: Tensor) -> Tensor:
        by_class_token = getattr(self.network, "global_pool", "") == "token" or hasattr(self.network, "class_token")
        if by_class_token:
            return tokens_NLD[:, 0]
        return tokens_NLD[:, getattr(self.network, "num_prefix_tokens", 0) :].mean(1)

    def _ends_in_channels(self) -> bool:
        """Say whether maps are (N, H, W, C), as those of Swin transformers are."""
        if isinstance(self.network.get_submodule(self.layer), nn.Conv2d | nn.BatchNorm2d | nn.MaxPool2d | nn.AvgPool2d):
            return False
        of_torchvision = type(self.network).__module__ == "torchvision.models.swin_transformer"
        return of_torchvision or getattr(self.network, "output_fmt", "") == "NHWC"

    def _no_features(self, reason: str) -> OptionsError:
        where = f"layer {self.layer} of {self.name}" if self.layer else self.name
        return OptionsError(f"{where} gives no features", None, reason, "Give another --layer")

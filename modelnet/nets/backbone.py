"""Run a frozen network without its last layer, and describe the features that it computes from a cache."""

from pathlib import Path

import torch
from torch import Tensor, nn

from modelnet.nets.body import Body
from modelnet.nets.head import head_of
from modelnet.nets.registry import LINEAR, TIMM, build_network
from modelnet.nets.weights import load_weights
from modelnet.runtime.device import (
    autocast,
    choose_device,
    choose_memory_format,
    images_at_once,
    memory_errors,
    move_network,
)
from pipeline import TensorCache
from pipeline.build.features import ROWS_AT_ONCE
from pipeline.errors import CheckpointError, OptionsError
from pipeline.format.features import Features
from pipeline.text import counted

_CLASSES = 1000  # ImageNet's; the last layer is left out anyway. timm makes its networks without one


class Backbone:
    """A network up to the input of its last layer, or up to a named one, with weights of a file, in evaluation mode.

    Args:
        name: as `build_network` has it, but not "linear".
        weights: a local file, as `load_weights` takes it.
        size: (height, width) of the images.
        device: "auto", "cpu", "cuda" or "cuda:1".
        layer: whose output the features are, as `Body` has it; "" for the input of the last layer.
        precision: that it computes in, as `autocast` has it.
        memory_format: "contiguous" or "channels_last"; None for the choice of `choose_memory_format`.

    Raises:
        OptionsError: no such network or layer, or one that gives no features, or cannot take such images.
        RunError, CheckpointError: the weights are not there, or not this network's.
        DeviceError: the device is not there.

    Attributes:
        at_once: images that are computed together, at most.
        length: D, numbers an image.
        loaded: what the file gave the network; its digest is that of the file.
    """

    def __init__(
        self,
        name: str,
        weights: Path,
        size: tuple[int, int],
        device: str = "auto",
        *,
        layer: str = "",
        precision: str = "float32",
        memory_format: str | None = None,
    ) -> None:
        if name == LINEAR:
            raise OptionsError("no such backbone", None, "linear takes features itself", "Give resnet18, say")
        self.name, self.layer = name, layer
        self.device = choose_device(device)
        self.at_once = images_at_once(name, self.device, precision) or ROWS_AT_ONCE
        self.precision = precision
        self.memory_format = memory_format or choose_memory_format(name, self.device, precision)
        self.autocast = autocast(precision, self.device)
        network = build_network(name, 0 if name.startswith(TIMM) else _CLASSES, size)
        self.loaded = load_weights(network, weights, with_head=False)
        if new := self.loaded.new:
            reason = f"it lacks {counted(len(new), 'tensor')} of {name}, such as {new[0]}"
            raise CheckpointError("the weights do not fit", weights, reason)
        for head in () if name.startswith(TIMM) else head_of(network):
            network.set_submodule(head, nn.Identity())
        self.network = Body(network, name, layer).eval()
        move_network(self.network, self.device, self.memory_format)
        self.length = self(torch.zeros(1, 3, *size)).shape[1]

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 images to (N, D) float32 numbers on the CPU."""
        with torch.inference_mode(), memory_errors(self.device), self.autocast:
            parts = [self.network(part.to(self.device)) for part in images_NCHW.split(self.at_once)]
        return torch.cat(parts).float().cpu()

    def features_of(self, cache: TensorCache) -> Features:
        """Describe the features that this network computes from the images of a cache."""
        how = self.precision, self.memory_format
        return Features(self.name, self.layer, self.length, self.loaded.sha256, cache.fingerprint, *how)

"""Run a frozen network without its last layer, and describe the features that it computes from a cache."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from modelnet.nets.registry import LINEAR, build_network
from modelnet.nets.weights import load_weights
from modelnet.runtime.device import choose_device, memory_errors
from pipeline import TensorCache
from pipeline.errors import CheckpointError, OptionsError
from pipeline.format.features import Features

_CLASSES = 1000  # ImageNet's; the last layer is left out anyway


class Backbone:
    """A network up to the input of its last linear layer, with weights of a file, in evaluation mode.

    Args:
        name: as `build_network` has it, but not "linear".
        weights: a local file, as `load_weights` takes it.
        size: (height, width) of the images.
        device: "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        OptionsError: no such network, or one that does not end in a linear layer, or cannot take such images.
        RunError, CheckpointError: the weights are not there, or not this network's.
        DeviceError: the device is not there.

    Attributes:
        layer: name of the last layer.
        length: D, numbers an image.
        digest: SHA-256 of the weights that are used, 64 hexadecimal digits.
    """

    def __init__(self, name: str, weights: Path, size: tuple[int, int], device: str = "auto") -> None:
        if name == LINEAR:
            raise OptionsError("no such backbone", None, "linear takes features itself", "Give resnet18, say")
        self.name = name
        self.device = choose_device(device)
        network = build_network(name, _CLASSES, size)
        linear = [(layer, module) for layer, module in network.named_modules() if isinstance(module, nn.Linear)]
        if not linear or linear[-1][1].out_features != _CLASSES:
            raise OptionsError(f"{name} gives no features", None, "its last layer is not linear", "Try resnet18")
        self.layer, last = linear[-1]
        if new := load_weights(network, weights).new:
            reason = f"it has no {new[0]}, as {len(new)} of the tensors of {name}"
            raise CheckpointError("the weights do not fit", weights, reason)
        network.set_submodule(self.layer, nn.Identity())
        self.length = last.in_features
        self.digest = _digest(network)
        with memory_errors(self.device):
            self.network = network.to(self.device).eval()
        if self(torch.zeros(1, 3, *size)).shape != (1, self.length):
            raise OptionsError(f"{name} gives no features", None, f"{self.layer} does not end it", "Try resnet18")

    def __call__(self, images_NCHW: Tensor) -> Tensor:
        """Map (N, 3, H, W) float32 images to (N, D) float32 numbers on the CPU."""
        with torch.inference_mode(), memory_errors(self.device):
            features_ND: Tensor = self.network(images_NCHW.to(self.device))
        return features_ND.float().cpu()

    def features_of(self, cache: TensorCache) -> Features:
        """Describe the features that this network computes from the images of a cache."""
        return Features(self.name, self.layer, self.length, self.digest, cache.fingerprint)


def _digest(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, values in sorted(network.state_dict().items()):
        digest.update(f"{name} {values.dtype} {tuple(values.shape)} ".encode())
        digest.update(np.ascontiguousarray(values.numpy()).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()

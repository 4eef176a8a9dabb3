"""Copy tensors to a device without waiting for it."""

import torch
from torch import Tensor


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device, without waiting for the GPU's running work."""
    if device.type == "cuda" and not tensor.is_pinned():
        tensor = tensor.pin_memory()  # from other memory a copy waits until all before it is done
    return tensor.to(device, non_blocking=True)

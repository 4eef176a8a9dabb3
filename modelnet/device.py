"""Which device a network is trained on: the one that was asked for, or an error, never another."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from pipeline.errors import DeviceError


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        DeviceError: a CUDA device was asked for and is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = f"PyTorch sees {count} CUDA device{'' if count == 1 else 's'}"
            raise DeviceError("the device is not there", None, f"{name} was asked for, {there}", "Try --device cpu")
        torch.backends.cudnn.benchmark = False  # would choose algorithms by their time: other runs, other losses
        torch.backends.cudnn.deterministic = True
    return device


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn CUDA's running out of memory into a `DeviceError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            "out of GPU memory", None, f"{device}: {str(error).splitlines()[0]}", "Try a smaller --batch-size"
        ) from error

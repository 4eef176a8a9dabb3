"""Which device a network is trained on (what was asked for, or an error, never another), and on how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from modelnet.options import DEVICE, TrainOptions
from pipeline.errors import DeviceError, OptionsError

IMAGES_A_THREAD = 16  # with fewer, starting and joining PyTorch's threads costs more than they save


def choose_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        OptionsError: another name.
        DeviceError: a CUDA device was asked for and is not there.
    """
    if not DEVICE.fullmatch(name):
        raise OptionsError("no such device", None, repr(name), "Give auto, cpu, cuda or cuda:N")
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


def autocast(options: TrainOptions, device: torch.device) -> torch.autocast:
    """Return the context that a network computes in, training and evaluated alike; it can be entered again and again.

    Raises:
        DeviceError: the device has no numbers of the type that was asked for.
    """
    dtype: torch.dtype = getattr(torch, options.amp_dtype)
    lacks = device.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(False)
    if options.amp and lacks:
        reason = f"{torch.cuda.get_device_name(device)} does not compute with bfloat16"
        raise DeviceError("--amp does not work here", None, reason, "Give --amp-dtype float16")
    return torch.autocast(device.type, dtype, enabled=options.amp)


@contextmanager
def cpu_threads(asked: int | None, batch_size: int) -> Iterator[None]:
    """Set PyTorch's threads for a run: as asked, else one for every 16 images of a batch, at most PyTorch's own number.

    The number follows from the options alone and never from the load of the machine: it decides in which order floats
    are added up, so another number gives losses that differ in the last digits.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(asked or max(1, min(before, batch_size // IMAGES_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn CUDA's running out of memory into a `DeviceError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            "out of GPU memory", None, f"{device}: {str(error).splitlines()[0]}", "Try a smaller --batch-size"
        ) from error

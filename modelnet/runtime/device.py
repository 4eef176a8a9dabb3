"""Choose the device for training (the one asked for, or an error) and the number of threads."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from modelnet.options import DEVICE, TrainOptions
from modelnet.runtime.ranks import Ranks
from pipeline.errors import DeviceError, OptionsError

IMAGES_A_THREAD = 16  # with fewer, starting and joining PyTorch's threads costs more than they save


def choose_device(name: str, ranks: Ranks | None = None) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "cuda:1"; of several ranks each takes a GPU of its own.

    Raises:
        OptionsError: another name, or one GPU for several ranks.
        DeviceError: a CUDA device was asked for and is not there.
    """
    if not DEVICE.fullmatch(name):
        raise OptionsError("no such device", None, repr(name), "Give auto, cpu, cuda or cuda:N")
    name = (ranks or Ranks()).device_name(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            there = f"PyTorch sees {count} CUDA device{'' if count == 1 else 's'}"
            raise DeviceError("the device is not there", None, f"{name} was asked for, {there}", "Try --device cpu")
        try:
            torch.zeros(1, device=device)
        except RuntimeError as error:  # held by another process, or too old for this PyTorch
            reason = f"{name}: {str(error).splitlines()[0]}"
            raise DeviceError("the device cannot be used", None, reason, "Try --device cpu") from error
        torch.backends.cudnn.benchmark = False  # it chooses algorithms by measured time: losses would vary
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.allow_tf32 = False  # TF32 is not float32; --amp is the option for lower precision
        if device.index is not None:
            torch.cuda.set_device(device)
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
def cpu_threads(asked: int | None, batch_size: int, ranks: Ranks | None = None) -> Iterator[None]:
    """Set PyTorch's threads for a run: as asked, else one for every 16 images of a batch, at most PyTorch's own number.

    Several ranks share the batch, and the cores of their machine.

    The number follows from the options alone and never from the load of the machine: it decides in which order floats
    are added up, so another number gives losses that differ in the last digits.
    """
    before = most = torch.get_num_threads()
    if ranks is not None and ranks.size > 1:  # torchrun sets OMP_NUM_THREADS to 1
        most, batch_size = (os.cpu_count() or 1) // ranks.local_size, batch_size // ranks.size
    torch.set_num_threads(asked or max(1, min(most, batch_size // IMAGES_A_THREAD)))
    try:
        yield
    finally:
        torch.set_num_threads(before)


_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|ALLOC_FAILED")


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn PyTorch's running out of memory into a `DeviceError`."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        what = "out of GPU memory" if device.type == "cuda" else "out of memory"
        reason = f"{device}: {str(error).splitlines()[0]}"
        raise DeviceError(what, None, reason, "Try a smaller --batch-size, and no --preload") from error

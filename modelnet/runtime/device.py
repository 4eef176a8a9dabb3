"""Choose how a network is computed: device, number of threads, precision, memory format. All follow from rules."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import nn

from modelnet.options import DEVICE
from modelnet.options.code import is_own
from modelnet.runtime.ranks import Ranks
from pipeline.errors import DeviceError, OptionsError, OutOfMemory
from pipeline.system.processes import usable_cores

SMALL = ("modelnet", "linear")  # networks whose steps take milliseconds, with few channels or none
IMAGES_A_THREAD = 16  # with fewer, starting and joining PyTorch's threads costs a small network more than they save
AT_ONCE = 8  # images: a processor's cache does not hold what a layer of a large network gives of more
CONTIGUOUS, CHANNELS_LAST = "contiguous", "channels_last"


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


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Return the context that a network computes in, training and evaluated alike; it can be entered again and again.

    Args:
        precision: "float32", or the half precision where that is safe: "bfloat16" or "float16".
        device: of the network.

    Raises:
        DeviceError: the device has no numbers of the type that was asked for.
    """
    if precision == "float32":
        return nullcontext()  # an autocast that is off costs a step of one image a thirtieth
    if device.type == "cuda" and precision == "bfloat16" and not torch.cuda.is_bf16_supported(False):
        reason = f"{torch.cuda.get_device_name(device)} does not compute with bfloat16"
        raise DeviceError("--amp does not work here", None, reason, "Give --amp-dtype float16")
    return torch.autocast(device.type, getattr(torch, precision))


def precision_warning(precision: str, device: torch.device) -> str:
    """Warn of a half precision that the processor has no instructions for; empty elsewhere."""
    if precision == "float32" or device.type != "cpu":
        return ""
    fast = False
    if torch.backends.mkldnn.is_available():  # without oneDNN, torch has neither of these functions
        ops = torch.ops.mkldnn
        fast = ops._is_mkldnn_bf16_supported() if precision == "bfloat16" else ops._is_mkldnn_fp16_supported()
    return "" if fast else f"this processor has no instructions for {precision}: --amp is many times slower here"


def choose_memory_format(model: str, device: torch.device, precision: str) -> str:
    """Return the order in memory of the values of an image between the layers of a network.

    Convolutions on a CPU, and those in half precision on a GPU, are faster with the channels last. ModelNet has too few
    channels to gain by it: it gets slower. A person's own network may rely on contiguous ones: `view` does.

    Returns:
        "contiguous" or "channels_last".
    """
    wins = device.type == "cpu" or precision != "float32"
    return CHANNELS_LAST if wins and model not in SMALL and not is_own(model) else CONTIGUOUS


def images_at_once(model: str, device: torch.device, precision: str) -> int | None:
    """Return how many images a network that is evaluated computes together; None for as many as a batch has."""
    if device.type != "cpu" or model in SMALL:
        return None
    return AT_ONCE if precision == "float32" else 2 * AT_ONCE  # numbers of half the size


def move_network(network: nn.Module, device: torch.device, memory_format: str) -> None:
    """Move a network to a device, its kernels in a memory format: convolutions convert their images to it.

    Raises:
        OutOfMemory: too little.
    """
    with memory_errors(device):
        if memory_format == CHANNELS_LAST:
            network.to(device).to(memory_format=torch.channels_last)
        else:
            network.to(device)


@contextmanager
def cpu_threads(
    asked: int | None, model: str, batch_size: int, ranks: Ranks | None = None, networks: int = 1
) -> Iterator[int]:
    """Set PyTorch's threads for a run, as asked or by a rule, and yield their number.

    ModelNet and linear layers get one for every 16 images, and leave a core free: it reads the next batch, and a busy
    process there does not stop every one of hundreds of short operations. Other networks get one for every core.

    Several `networks` that are trained as one have longer operations, as if their batches were one: no core stays free.

    Several ranks share the batch, and the cores of their machine.

    The number follows from the options and the cores alone and never from the load of the machine: it decides in which
    order floats are added up, so another number gives losses that differ in the last digits.
    """
    before = torch.get_num_threads()
    most = min(before, usable_cores())
    if ranks is not None and ranks.size > 1:  # torchrun sets OMP_NUM_THREADS to 1
        most, batch_size = ranks.cores, batch_size // ranks.size
    if model in SMALL:
        free = 1 if networks == 1 else 0
        most = min(most, usable_cores() - free, batch_size * networks // IMAGES_A_THREAD)
    torch.set_num_threads(asked or max(1, most))
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


_OUT_OF_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate memory|ALLOC_FAILED")


@contextmanager
def memory_errors(device: torch.device) -> Iterator[None]:
    """Turn PyTorch's running out of memory into an error of its own."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        what = "out of GPU memory" if device.type == "cuda" else "out of memory"
        reason = f"{device}: {str(error).splitlines()[0]}"
        raise OutOfMemory(what, None, reason, "Try a smaller --batch-size, and no --preload") from error

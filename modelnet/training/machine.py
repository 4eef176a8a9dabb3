"""Describe the machine and this installation: what decoding, reading and training have to work with."""

import os
import platform
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import features

from modelnet.data.workers import SHARED_MEMORY
from modelnet.nets.registry import MODELNET
from modelnet.runs.provenance import versions
from modelnet.runtime.device import precision_warning
from pipeline.decode.jpeg import has_simplejpeg
from pipeline.decode.resize import resizes_in_c
from pipeline.load.kernels import compiled_kernels
from pipeline.system.processes import usable_cores
from pipeline.text import how_to_install, show_bytes

_SMALL = 2**30  # bytes of shared memory below which workers with large batches fail; Docker gives 64 MB
_COMPILER = "Install a C compiler and install the package again, or install a wheel"


class Fact(NamedTuple):
    """A line about the machine: its name, what is there, and what would help; `advice` is empty where all is well."""

    name: str
    value: str
    advice: str = ""


def describe_machine(folder: Path) -> list[Fact]:
    """Return versions, processor, GPU, memory and disk, and whether the fast code is in use.

    Args:
        folder: whose disk is meant.
    """
    gpus = [torch.cuda.get_device_properties(number) for number in range(torch.cuda.device_count())]
    packages = versions(MODELNET, torch.device("cuda" if gpus else "cpu"))
    cores, usable = os.cpu_count() or 1, usable_cores()
    turbo = features.version_feature("libjpeg_turbo") if features.check_feature("libjpeg_turbo") else None
    return [
        Fact("versions", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
        Fact("system", f"{platform.system()} {platform.release()}, {platform.machine()}"),
        Fact(
            "processor",
            f"{cores} cores{f', {usable} usable here' if usable != cores else ''}; "
            f"PyTorch uses {torch.get_num_threads()} threads",
            "Unset OMP_NUM_THREADS" if os.environ.get("OMP_NUM_THREADS") and torch.get_num_threads() < usable else "",
        ),
        Fact("half precision", precision_warning("bfloat16", torch.device("cpu")) or "fast on this processor"),
        Fact(
            "GPU", "; ".join(f"{gpu.name}, {show_bytes(gpu.total_memory)}" for gpu in gpus) or "none that PyTorch sees"
        ),
        Fact("memory", f"{show_bytes(_memory('SC_PHYS_PAGES'))}, {show_bytes(_memory('SC_AVPHYS_PAGES'))} unused"),
        _shared_memory(),
        Fact("disk", f"{show_bytes(shutil.disk_usage(folder).free)} free"),
        _fast("JPEG decoder", has_simplejpeg(), "simplejpeg", "Pillow, slower", how_to_install("fast")),
        _fast("libjpeg-turbo", turbo is not None, f"{turbo}, in Pillow", "not in Pillow", "Install a wheel of Pillow"),
        _fast("resizing", resizes_in_c(), "compiled", "Pillow, slower", _COMPILER),
        _fast("reading", compiled_kernels() is not None, "compiled", "PyTorch, slower", _COMPILER),
    ]


def _fast(name: str, is_used: bool, fast: str, slow: str, advice: str) -> Fact:
    return Fact(name, fast) if is_used else Fact(name, slow, advice)


def _memory(pages: str) -> int:
    try:
        return os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # macOS does not say what is unused
        return 0


def _shared_memory() -> Fact:
    if not SHARED_MEMORY.is_dir():
        return Fact("shared memory", "no folder of its own")
    free = shutil.disk_usage(SHARED_MEMORY).free
    advice = "docker run --shm-size 8g gives more, where --workers is used" if free < _SMALL else ""
    return Fact("shared memory", f"{show_bytes(free)} free", advice)

"""What config.json records besides the options: enough to know, a year later, what made the numbers."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from modelnet.data.batches import Batches
from modelnet.data.caches import class_counts
from modelnet.options import TrainOptions
from modelnet.runtime.ranks import Ranks

_PACKAGES = ("modelnet-cache", "torch", "numpy", "pillow")


def describe_run(options: TrainOptions, train: Batches, val: Batches | None, device: torch.device) -> dict[str, Any]:
    """Return the content of config.json, plain JSON values."""
    return {
        "options": options.to_dict(),
        "command": command(options, train.ranks),
        "ranks": train.ranks.size,
        "model": options.model,
        "learning_rate": options.learning_rate,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "cache": describe_images(train),
        "val": None if val is None else describe_images(val),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in _PACKAGES},
        "git_commit": git_commit(),
    }


def command(options: TrainOptions, ranks: Ranks) -> str:
    """Return the command that trains once more with these options, by as many processes."""
    alone = options.command()
    if ranks.size == 1:
        return alone
    nodes = ranks.size // ranks.local_size
    more = f"--nnodes {nodes} " if nodes > 1 else ""
    return f"torchrun {more}--nproc-per-node {ranks.local_size} {alone.removeprefix('python ')}"


def describe_images(batches: Batches) -> dict[str, Any]:
    """Return what tells one set of images from another."""
    cache = batches.cache
    counts = class_counts(cache, batches.subset).tolist()
    return {
        "fingerprint": cache.fingerprint,
        "images": len(batches.subset),
        "classes": [
            {"id": class_id, "name": name, "images": count}
            for class_id, name, count in zip(cache.class_ids, cache.class_names, counts, strict=True)
        ],
        "recipe": cache.recipe.to_dict(),
        "features": None if cache.features is None else cache.features.to_dict(),
    }


def git_commit() -> str | None:
    """Return the commit of the checkout that this code lies in, "-dirty" where it was changed; None elsewhere."""
    checkout = Path(__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

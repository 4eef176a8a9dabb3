"""Describe a run for config.json: options, images, weights and versions, so that its results can be traced later."""

import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from modelnet.data.batches import Batches
from modelnet.data.caches import class_counts
from modelnet.data.relabel import LabelTable
from modelnet.nets.registry import TIMM
from modelnet.nets.weights_file import digest_of
from modelnet.options import TrainOptions
from modelnet.options.code import GIVEN
from modelnet.runs.labels import describe_labels
from modelnet.runtime.device import CONTIGUOUS
from modelnet.runtime.ranks import Ranks

_PACKAGES = ("modelnet-cache", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "pillow-heif")


def describe_run(
    options: TrainOptions,
    train: Batches,
    val: Batches | None,
    device: torch.device,
    code: Mapping[str, str],
    labels: LabelTable | None = None,
) -> dict[str, Any]:
    """Return the content of config.json, plain JSON values; `code` has the SHA-256 of each file of a person's own."""
    caches = dict.fromkeys([train.cache, *([] if val is None else [val.cache])])
    return {
        "options": options.to_dict(),
        "command": None if options.model.startswith(GIVEN) else command(options, train.ranks),
        "ranks": train.ranks.size,
        "model": options.model,
        "learning_rate": options.learning_rate,
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": torch.get_num_threads(),
        "memory_format": options.memory_format or CONTIGUOUS,
        "cache": describe_images(train),
        "val": None if val is None else describe_images(val),
        "result": result_of(options),
        "weights": None if options.weights is None else {"sha256": digest_of(options.weights)},
        "split": None if options.split is None else {"sha256": digest_of(options.split)},
        "code": dict(code),
        "labels": None if labels is None else describe_labels(labels, *caches),
        "versions": versions(options.model, device),
        "git_commit": git_commit(),
    }


def result_of(options: TrainOptions) -> str:
    """Return the checkpoint that is the result of a run: "best" where `--patience` chooses it, else "last"."""
    return "last" if options.patience is None else "best"


def versions(model: str, device: torch.device) -> dict[str, str | None]:
    """Return the versions of all that computes or decodes: None of a package that is not installed.

    Args:
        model: whose package is among them.
        device: with CUDA, that version too.
    """
    packages = [*_PACKAGES, *(["timm"] if model.startswith(TIMM) else [])]
    found = {"python": platform.python_version()} | {name: _version(name) for name in packages}
    return found | ({"cuda": torch.version.cuda} if device.type == "cuda" else {})


def command(options: TrainOptions, ranks: Ranks) -> str:
    """Return the command that trains once more with these options, by as many processes."""
    alone = options.command()
    if ranks.size == 1:
        return alone
    nodes = ranks.size // ranks.local_size
    more = f"--nnodes {nodes} " if nodes > 1 else ""
    program = alone.removeprefix("python ") if alone.startswith("python ") else f"--no-python {alone}"
    return f"torchrun {more}--nproc-per-node {ranks.local_size} {program}"


def describe_images(batches: Batches) -> dict[str, Any]:
    """Describe a set of images: fingerprints (see `kind.images_of`), classes with counts, recipe."""
    cache = batches.cache
    counts = class_counts(cache, batches.subset).tolist()
    return {
        "fingerprint": cache.fingerprint,
        "earlier_fingerprint": cache.reader.earlier_fingerprint,
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

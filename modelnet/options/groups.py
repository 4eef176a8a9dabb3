"""Every option of training, declared once, in the groups that `--help` shows: each class is a group."""

import re
from collections.abc import Container
from dataclasses import MISSING, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from modelnet.options.code import EXAMPLE
from modelnet.options.declaration import Scope, declare
from pipeline.load.kinds import KINDS
from pipeline.text import parse_size

ALL = "all"  # every fold
MIXTURES = ("mixup", "cutmix")
AUGMENTATIONS = (*KINDS, *MIXTURES)
RULES = {  # what rules choose where it is not given, and the options that they choose it by
    "threads": ("model", "batch_size"),
    "memory_format": ("model", "device", "amp"),
}

_network, _pass, _group = (partial(declare, scope) for scope in (Scope.NETWORK, Scope.PASS, Scope.GROUP))
_course = partial(_network, finder=False)  # over many epochs: lr-find tries a few
_machine, _record = (partial(declare, scope) for scope in (Scope.MACHINE, Scope.RECORD))
_images = partial(declare, Scope.IMAGES, opens=True)
_rows = partial(_group, opens=True)  # which images of a cache, and their labels


def chosen_anew(typed: Container[str]) -> list[str]:
    """Return what rules choose anew for a repeated run, since options are typed that they choose it by."""
    return [name for name, chosen_by in RULES.items() if any(option in typed for option in chosen_by)]


def parse_fold(value: Any) -> int | str:
    """Return the number of a fold, or "all".

    Raises:
        ValueError: it is neither.
    """
    if value == ALL:
        return ALL
    if isinstance(value, int | str) and re.fullmatch(r"\d{1,9}", str(value), re.ASCII):
        return int(value)
    raise ValueError("folds are counted from 0")


@dataclass(frozen=True)
class Data:
    """The images: which, and in which batches and order."""

    cache: Path = _images(
        MISSING,
        "Cache to train on: a file, or the name of a set of shards.",
        default_text="the one in data/cache/",
        resumable=True,
    )
    val: Path | None = _images(None, "Cache to validate on after every epoch.", resumable=True, finder=False)
    val_fraction: float | None = _rows(
        None, "Fraction of the images to keep for validation, chosen by their content.", least=0, most=1, open=True
    )
    split: Path | None = _rows(
        None, "Table of folds that `split` wrote. Its test images are not used.", metavar="FILE", default_text="none"
    )
    fold: int | str | None = _pass(
        None,
        "Fold of --split to validate on; the others are trained on. all: every fold once, each in its own run.",
        parse=parse_fold,
        form="the number of a fold, or all",
        opens=True,
        seed=True,
        metavar="FOLD|all",
        default_text="none: train on all folds",
    )
    labels: Path | None = _rows(
        None, "Table of other labels for the images, by their content: CSV, TSV, JSON lines or Parquet.", metavar="FILE"
    )
    label_column: str | None = _rows(
        None, "Column of --labels with the labels.", default_text="label, class, ...", needs=("labels", ())
    )
    file_column: str | None = _rows(
        None,
        "Column of --labels that names the images: path, file name or SHA-256.",
        default_text="sha256, file_name, image, id, ...",
        needs=("labels", ()),
    )
    batch_size: int = _pass(8, "Images in a batch; under torchrun, of all ranks together.", flags=("-b",), least=1)
    shuffle: bool = _pass(True, "Shuffle in each epoch, or go class after class.")
    drop_last: bool = _pass(False, "Leave out the last, shorter batch of an epoch.")
    data_seed: int = _pass(0, "Seed of the order of the images and of --augment.", least=0, seed=True)


@dataclass(frozen=True)
class Network:
    """The network, and the weights that it starts from."""

    model: str = _pass(
        "modelnet",
        "Network: modelnet, a torchvision classifier, timm:NAME, linear for features, or your own: net.py:Net.",
    )
    model_arg: tuple[str, ...] = _group(
        (), "Argument of your own network; may be given again.", metavar="KEY=VALUE", needs=("model", (EXAMPLE,))
    )
    weights: Path | None = _pass(None, "Local file with weights to start from.")
    freeze: str | None = _network(
        None,
        "Layers to keep as they are: all-but-head, or a regular expression for the beginning of their paths.",
        metavar="all-but-head|REGEX",
    )
    thaw_epoch: int | None = _course(
        None, "First epoch, from 1, that trains frozen layers too.", least=1, needs=("freeze", ())
    )
    norm_stats: str | None = _network(
        None,
        "Running statistics of BatchNorm layers.",
        choices=("keep", "update"),
        default_text="keep those of frozen layers",
    )
    init: str = _network(
        "default", "Initialization of the weights.", choices=("default", "kaiming", "xavier", "orthogonal", "zeros")
    )
    seed: int = _network(0, "Seed of the initial weights and of dropout.", least=0, seed=True)


@dataclass(frozen=True)
class Optimization:
    """How the weights are trained: optimizer, learning rate, loss."""

    epochs: int = _course(100, "Number of passes over the images.", least=1, resumable=True)
    opt: str = _network(
        "sgd", "Optimizer, one of PyTorch's.", choices=("sgd", "adam", "adamw", "nadam", "radam", "rmsprop")
    )
    lr: float | None = _course(
        None, "Learning rate.", least=0, open=True, default_text="0.001 × batch size for sgd, 0.001 for the others"
    )
    momentum: float = _network(0.5, "Momentum of sgd and rmsprop.", least=0, needs=("opt", ("sgd", "rmsprop")))
    weight_decay: float = _network(1e-4, "Weight decay.", flags=("--wd",), least=0)
    sched: str = _course(
        "none",
        "Schedule of the learning rate: half a cosine, in steps, or lower when no epoch improves.",
        choices=("none", "cosine", "step", "plateau"),
    )
    warmup_epochs: int = _course(0, "Epochs in which the learning rate rises from 0.", least=0)
    decay_rate: float = _course(
        0.1,
        "Factor by which step and plateau lower the learning rate.",
        least=0,
        most=1,
        needs=("sched", ("step", "plateau")),
    )
    decay_epochs: int = _course(30, "Epochs between two steps of --sched step.", least=1, needs=("sched", ("step",)))
    plateau_epochs: int = _course(
        10, "Epochs without improvement before --sched plateau lowers the rate.", least=1, needs=("sched", ("plateau",))
    )
    head_lr: float = _network(1.0, "Factor on the learning rate of the last layer.", least=0, open=True)
    layer_decay: float | None = _network(
        None, "Factor on the learning rate from each layer to the one before, for networks of timm.", least=0, most=1
    )
    accumulate: int = _pass(1, "Batches in a step; their gradients are added.", least=1)
    zero_grad: str = _pass(
        "batch",
        "When to clear gradients: before every step, before every epoch, or never.",
        choices=("batch", "epoch", "never"),
    )
    clip_grad: float | None = _network(None, "Largest norm of the gradient.", least=0, open=True)
    smoothing: float = _network(0.0, "Label smoothing, 0 to 1.", least=0, most=1)
    class_weights: str = _network(
        "none", "balanced: every class counts the same, whatever its size.", choices=("none", "balanced")
    )
    model_ema: float | None = _course(
        None,
        "Validate with a moving average of the weights: 0.99, for example.",
        least=0,
        most=1,
        open=True,
        metavar="DECAY",
    )
    patience: int | None = _course(None, "Stop after this many epochs without improvement.", least=1)


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images."""

    augment: str = _pass(
        "",
        f"Random changes of training images, new in each epoch: {', '.join(AUGMENTATIONS)}.",
        metavar="KIND,...",
        default_text="none",
    )
    augment_code: str | None = _pass(
        None,
        "A function of your own that changes each training image before --augment: changes.py:change.",
        metavar="FILE.py:NAME",
    )
    crop_size: str | int | tuple[int, int] | None = _pass(
        None,
        "Size of training images, 224 or 192x256: --augment crop resizes its box to it, else a part is cut out.",
        parse=parse_size,
        metavar="SIZE",
        default_text="that of the images",
    )
    crop_scale: float = _pass(
        0.35, "Smallest share of the area that --augment crop keeps.", least=0, most=1, needs=("augment", ("crop",))
    )
    color_jitter: float = _pass(
        0.4,
        "Largest change of brightness, contrast and saturation by --augment color.",
        least=0,
        most=1,
        needs=("augment", ("color",)),
    )
    mixup_alpha: float = _pass(
        0.2,
        "mixup draws the share of an image from Beta(alpha, alpha).",
        least=0,
        open=True,
        needs=("augment", ("mixup",)),
    )
    cutmix_alpha: float = _pass(
        1.0, "cutmix draws its share in the same way; 1 is uniform.", least=0, open=True, needs=("augment", ("cutmix",))
    )


@dataclass(frozen=True)
class Device:
    """Where and how fast it is computed."""

    device: str = _machine("auto", "Device: auto, cpu, cuda or cuda:1.", resumable=True, opens=True)
    amp: bool = _group(False, "Compute in half precision where that is safe.")
    amp_dtype: str = _group(
        "bfloat16",
        "Half precision: float16 is finer; bfloat16 has the range of float32 and is fast on some CPUs.",
        choices=("bfloat16", "float16"),
        needs=("amp", (True,)),
    )
    compile: bool = _machine(
        False, "Compile the network first; with CUDA, use graphs of kernels.", resumable=True, finder=False
    )
    preload: bool = _machine(False, "Keep all images in the memory of the device.", resumable=True, opens=True)
    workers: int = _machine(
        0, "Processes that read batches; 0 is fastest from memory.", flags=("-j",), least=0, resumable=True
    )
    threads: int | None = _machine(
        None, "PyTorch's threads on the CPU.", least=1, most=4096, default_text="by network, batch size and cores"
    )
    memory_format: str | None = _machine(
        None,
        "Order of the values of an image between layers.",
        choices=("contiguous", "channels_last"),
        default_text="by network and device",
    )


@dataclass(frozen=True)
class Output:
    """What is written."""

    tensorboard: bool = _record(False, "Log every epoch for TensorBoard, in RUN/tensorboard.", finder=False)
    name: str | None = _record(
        None, "Name of the run folder in runs/.", default_text="<cache>-<model>-001, counted up", finder=False
    )


GROUPS = (Data, Network, Optimization, Augmentation, Device, Output)
OF_IMAGES = (Data.__name__, Augmentation.__name__)  # groups that decide what a network sees

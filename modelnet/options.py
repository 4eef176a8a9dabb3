"""What a training run can be asked for: one frozen dataclass, which turns to plain values and to a command line."""

import math
import os
import re
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

LR_PER_IMAGE, LR_OTHERS = 0.001, 0.001  # of SGD, × batch size; of the optimizers that scale the gradient themselves

CHOICES = {
    "opt": ("sgd", "adam", "adamw", "nadam", "radam", "rmsprop"),
    "sched": ("none", "cosine", "step", "plateau"),
    "class_weights": ("none", "balanced"),
    "init": ("default", "kaiming", "xavier", "orthogonal", "zeros"),
    "zero_grad": ("batch", "epoch", "never"),
    "amp_dtype": ("bfloat16", "float16"),
}

_WHOLE_FROM = {
    "batch_size": 1,
    "epochs": 1,
    "accumulate": 1,
    "patience": 1,
    "workers": 0,
    "threads": 1,
    "warmup_epochs": 0,
    "decay_epochs": 1,
    "plateau_epochs": 1,
    "crop_size": 1,
}
MIXTURES = ("mixup", "cutmix")
AUGMENTATIONS = ("flip", "crop", "color", "erase", *MIXTURES)

_BELOW_1 = ("val_fraction", "model_ema")
_FROM_0_TO = {
    "momentum": math.inf,
    "weight_decay": math.inf,
    "decay_rate": 1.0,
    "smoothing": 1.0,
    "crop_scale": 1.0,
    "color_jitter": 1.0,
}
# What runs of the same kind may differ in; and paths, for which fingerprints stand.
OF_ONE_START = ("seed", "data_seed", "name", "device", "preload", "compile", "workers", "threads", "tensorboard")
PLACES = ("cache", "val")
DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train`; the defaults are those of the command line.

    Attributes:
        cache: images to train on.
        val: images to validate on after every epoch, or None.
        val_fraction: of the images of `cache`, kept for that instead; which ones follows from their content.
        model: "modelnet", the name of a torchvision classifier, or "timm:" and that of one of timm's.
        weights: a local file with weights to start from, or None.
        batch_size: images that go through the network at once.
        accumulate: batches a step, whose gradients are those of one batch of all their images.
        zero_grad: when gradients are cleared: before every step ("batch"), every "epoch" or "never"; where they are
            not, each batch's gradient is added to those before it.
        epochs: times every image is seen.
        opt: which of torch's optimizers.
        lr: learning rate; None is 0.001 × batch size for SGD, since 0.001 is right for single images and a batch
            makes fewer steps; 0.001 for the others, whose steps do not grow with the gradient.
        momentum: of SGD and RMSprop.
        weight_decay: of any.
        sched: how the learning rate goes on after the warm-up: "none", "cosine", "step" or "plateau".
        warmup_epochs: over which it rises from 0.
        decay_rate, decay_epochs: with "step", × `decay_rate` every so many epochs.
        plateau_epochs: with "plateau", × `decay_rate` after so many epochs without a better one.
        clip_grad: the gradient's norm at most, or None.
        smoothing: of the labels.
        augment: random changes of training images, of "flip", "crop", "color", "erase", "mixup" and "cutmix", with
            commas: "flip,crop"; brought into this order, in which they are done.
        crop_size: side, in pixels, of a part of each image: anywhere in training, the middle otherwise; None for all.
        crop_scale: smallest part of an image's area that "crop" keeps.
        color_jitter: "color" multiplies brightness, contrast and saturation by 1 ± this at most.
        mixup_alpha, cutmix_alpha: "mixup" and "cutmix" draw an image's own part from Beta(alpha, alpha).
        model_ema: validate and predict with a running mean of the weights, of which every step keeps this part, near 1.
        patience: epochs without a better one, after which training ends; None for never.
        init: of the weights: "default" as PyTorch's layers start, or "kaiming", "xavier", "orthogonal", "zeros".
        class_weights: "balanced" makes each class count as much as any other, however few images it has.
        shuffle: a new order each epoch; else the order of the cache, class after class.
        drop_last: leave out the last, shorter batch of an epoch.
        seed: of the initial weights and dropout.
        data_seed: of the order and the augmentation.
        device: "auto" (CUDA where it is there), "cpu", "cuda" or "cuda:1".
        amp: compute with numbers of half the size where that does little harm, as `torch.autocast` does it.
        amp_dtype: which these are. "float16" is finer, and its gradients are scaled so that none of them is lost;
            "bfloat16" needs no scaling, and is quick on CPUs too.
        compile: let torch compile the network for whole batches; with CUDA as graphs of kernels.
        preload: keep all images in the memory of the device, as they are stored.
        workers: processes that read batches; 0 reads in the main process, the fastest for a cache in memory.
        threads: of PyTorch on the CPU; None is one for every 16 images of a batch, at most PyTorch's own number.
        tensorboard: write every epoch for TensorBoard too, which has to be installed.
        name: of the run folder; None counts up `<cache>-<model>-001`.

    Raises:
        ValueError: a value that nothing could be trained with.
    """

    cache: Path
    val: Path | None = None
    val_fraction: float | None = None
    model: str = "modelnet"
    weights: Path | None = None
    batch_size: int = 8
    accumulate: int = 1
    zero_grad: str = "batch"
    epochs: int = 100
    opt: str = "sgd"
    lr: float | None = None
    momentum: float = 0.5
    weight_decay: float = 1e-4
    sched: str = "none"
    warmup_epochs: int = 0
    decay_rate: float = 0.1
    decay_epochs: int = 30
    plateau_epochs: int = 10
    clip_grad: float | None = None
    smoothing: float = 0.0
    class_weights: str = "none"
    augment: str = ""
    crop_size: int | None = None
    crop_scale: float = 0.35
    color_jitter: float = 0.4
    mixup_alpha: float = 0.2
    cutmix_alpha: float = 1.0
    model_ema: float | None = None
    patience: int | None = None
    init: str = "default"
    shuffle: bool = True
    drop_last: bool = False
    seed: int = 0
    data_seed: int = 0
    device: str = "auto"
    amp: bool = False
    amp_dtype: str = "bfloat16"
    compile: bool = False
    preload: bool = False
    workers: int = 0
    threads: int | None = None
    tensorboard: bool = False
    name: str | None = None

    def __post_init__(self) -> None:
        for name, least in _WHOLE_FROM.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not least <= value < 2**31):
                raise ValueError(f"{name} is a whole number from {least} to 2**31 - 1, not {value!r}")
        for name in ("seed", "data_seed"):
            if type(getattr(self, name)) is not int or not 0 <= getattr(self, name) < 2**63:
                raise ValueError(f"{name} is a whole number from 0 to 2**63 - 1, not {getattr(self, name)!r}")
        self._check_floats()
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} is one of {', '.join(choices)}, not {getattr(self, name)!r}")
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device is auto, cpu, cuda or cuda:N, not {self.device!r}")
        if self.name is not None and (self.name in ("", ".", "..") or set("/\0") & set(self.name)):
            raise ValueError(f"name is that of one folder, not {self.name!r}")
        if self.augment and not set(self.augmentations) <= set(AUGMENTATIONS):
            raise ValueError(f"augment is some of {', '.join(AUGMENTATIONS)}, with commas, not {self.augment!r}")
        if len(set(self.augmentations)) < len(self.augmentations):
            raise ValueError(f"augment takes each kind once, not {self.augment!r}")
        in_order = ",".join(kind for kind in AUGMENTATIONS if kind in self.augmentations)
        object.__setattr__(self, "augment", in_order)  # they are done in this order, in whichever they are named
        if self.scales_gradients and self.zero_grad != "batch":
            raise ValueError(
                "float16's gradients are scaled anew for every step: keep none, or give amp_dtype bfloat16"
            )
        if self.preload and self.workers:
            raise ValueError("preload leaves nothing to read for workers: give one of both")
        if self.val is not None and self.val_fraction is not None:
            raise ValueError("val_fraction keeps images of the cache to validate on, and val names another cache")

    def _check_floats(self) -> None:
        for name in ("lr", "clip_grad", "mixup_alpha", "cutmix_alpha"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is greater than 0, not {value!r}")
        for name in _BELOW_1:
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"{name} is between 0 and 1, not {value!r}")
        for name, most in _FROM_0_TO.items():
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 <= value <= most):
                raise ValueError(
                    f"{name} is 0 or greater{f', at most {most}' if most < math.inf else ''}, not {value!r}"
                )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The kinds of random changes."""
        return tuple(kind.strip() for kind in self.augment.split(",")) if self.augment else ()

    @property
    def idle(self) -> list[str]:
        """What was given and changes nothing beside the other options, as a person should be told it."""
        needs = {
            "mixup_alpha": ("mixup" in self.augmentations, "--augment mixup"),
            "cutmix_alpha": ("cutmix" in self.augmentations, "--augment cutmix"),
            "crop_scale": ("crop" in self.augmentations, "--augment crop"),
            "color_jitter": ("color" in self.augmentations, "--augment color"),
            "momentum": (self.opt in ("sgd", "rmsprop"), "--opt sgd or rmsprop"),
            "decay_rate": (self.sched in ("step", "plateau"), "--sched step or plateau"),
            "decay_epochs": (self.sched == "step", "--sched step"),
            "plateau_epochs": (self.sched == "plateau", "--sched plateau"),
            "amp_dtype": (self.amp, "--amp"),
        }
        defaults = {field.name: field.default for field in fields(self)}
        return [
            f"--{name.replace('_', '-')} {getattr(self, name)} changes nothing without {needed}"
            for name, (used, needed) in needs.items()
            if not used and getattr(self, name) != defaults[name]
        ]

    @property
    def scales_gradients(self) -> bool:
        """Whether the loss is scaled before its gradient is computed: float16 has no numbers below 6e-8."""
        return self.amp and self.amp_dtype == "float16"

    @property
    def mixtures(self) -> tuple[str, ...]:
        """The kinds of random changes that mix images, and with them their labels."""
        return tuple(kind for kind in MIXTURES if kind in self.augmentations)

    @property
    def model_in_names(self) -> str:
        """The model as a part of the names of files and folders."""
        return self.model.replace(":", "-")

    @property
    def learning_rate(self) -> float:
        """The learning rate that is used: the highest, where it varies."""
        if self.lr is not None:
            return self.lr
        return LR_PER_IMAGE * self.batch_size * self.accumulate if self.opt == "sgd" else LR_OTHERS

    @property
    def learning_rate_reason(self) -> str:
        """Why it is that, where nobody gave it."""
        if self.opt != "sgd":
            return f"{self.opt} takes it for any batch size"
        accumulated = f" × {self.accumulate} accumulated" if self.accumulate > 1 else ""
        return f"{LR_PER_IMAGE:g} × batch size {self.batch_size}{accumulated}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: os.fspath(value) if isinstance(value, Path) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainOptions":
        """Build from `to_dict`'s values; what is missing has its default.

        Raises:
            ValueError: an unknown or impossible value.
        """
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            names = ", ".join(sorted(map(repr, unknown)))
            raise ValueError(f"not options of a training run: {names} is unknown here; a newer version may have it")
        if not isinstance(values.get("cache"), str):
            raise ValueError(f"not options of a training run: cache is {values.get('cache')!r}")
        paths = {name: Path(values[name]) for name in ("cache", "val", "weights") if values.get(name) is not None}
        try:
            return cls(**(values | paths))
        except TypeError as error:
            raise ValueError(f"not options of a training run: {error}") from error

    def command(self) -> str:
        """Return the command that trains once more with these options, in a new folder; defaults are written out."""
        words = ["python", "cli.py", "train"]
        for name, value in (self.to_dict() | {"lr": self.learning_rate, "name": None}).items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            elif value is not None:
                words += [f"--{flag}", str(value)]
        return shlex.join(words)

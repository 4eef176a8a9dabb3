"""Every option of training, declared once, and the values that a run has for them."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, cast, get_args

from modelnet.options.code import EXAMPLE, check_code, is_own
from modelnet.options.declaration import Option, Scope, declare, plain
from pipeline.text import parse_size

LR_PER_IMAGE, LR_OTHERS = 0.001, 0.001  # SGD's is × batch size; the others scale the gradient themselves
MIXTURES = ("mixup", "cutmix")
PIXEL_CHANGES = ("rot90", "vflip", "rotate", "grey", "blur", "randaugment", "trivialaugment")
AUGMENTATIONS = (*PIXEL_CHANGES, "flip", "crop", "color", "erase", *MIXTURES)
DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")

_network, _pass, _group = (partial(declare, scope) for scope in (Scope.NETWORK, Scope.PASS, Scope.GROUP))
_course = partial(_network, finder=False)  # over many epochs: lr-find tries a few
_machine, _record, _images = (partial(declare, scope) for scope in (Scope.MACHINE, Scope.RECORD, Scope.IMAGES))


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train`; the defaults are those of the command line.

    Raises:
        ValueError: a value that nothing could be trained with.
    """

    cache: Path = _images(
        MISSING,
        "Cache to train on: a file, or the name of a set of shards.",
        default_text="the one in data/cache/",
        resumable=True,
    )
    val: Path | None = _images(None, "Cache to validate on after every epoch.", resumable=True, finder=False)
    val_fraction: float | None = _group(
        None, "Fraction of the images to keep for validation, chosen by their content.", least=0, most=1, open=True
    )
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
        "Layers to keep as they are: all-but-head, or a regular expression that their paths begin with.",
        metavar="all-but-head|REGEX",
    )
    thaw_epoch: int | None = _course(
        None, "First epoch, from 1, that trains frozen layers too.", least=1, needs=("freeze", ())
    )
    head_lr: float = _network(1.0, "Factor on the learning rate of the last layer.", least=0, open=True)
    layer_decay: float | None = _network(
        None, "Factor on the learning rate from each layer to the one before, for networks of timm.", least=0, most=1
    )
    norm_stats: str | None = _network(
        None,
        "Running statistics of BatchNorm layers.",
        choices=("keep", "update"),
        default_text="keep those of frozen layers",
    )
    batch_size: int = _pass(8, "Images in a batch; under torchrun, of all ranks together.", flags=("-b",), least=1)
    accumulate: int = _pass(1, "Batches in a step; their gradients are added.", least=1)
    zero_grad: str = _pass(
        "batch",
        "When to clear gradients: before every step, before every epoch, or never.",
        choices=("batch", "epoch", "never"),
    )
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
    clip_grad: float | None = _network(None, "Largest norm of the gradient.", least=0, open=True)
    smoothing: float = _network(0.0, "Label smoothing, 0 to 1.", least=0, most=1)
    class_weights: str = _network(
        "none", "balanced: every class counts the same, whatever its size.", choices=("none", "balanced")
    )
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
    crop_scale: float = _pass(0.35, "Smallest area of --augment crop.", least=0, most=1, needs=("augment", ("crop",)))
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
    model_ema: float | None = _course(
        None,
        "Validate with a moving average of the weights: 0.99, for example.",
        least=0,
        most=1,
        open=True,
        metavar="DECAY",
    )
    patience: int | None = _course(None, "Stop after this many epochs without improvement.", least=1)
    init: str = _network(
        "default", "Initialization of the weights.", choices=("default", "kaiming", "xavier", "orthogonal", "zeros")
    )
    shuffle: bool = _pass(True, "Shuffle in each epoch, or go class after class.")
    drop_last: bool = _pass(False, "Leave out the last, shorter batch of an epoch.")
    seed: int = _network(0, "Seed of the initial weights and of dropout.", least=0, seed=True)
    data_seed: int = _pass(0, "Seed of the order of the images and of --augment.", least=0, seed=True)
    device: str = _machine("auto", "Device: auto, cpu, cuda or cuda:1.", resumable=True)
    amp: bool = _group(False, "Compute in half precision where that is safe.")
    amp_dtype: str = _group(
        "bfloat16",
        "Half precision: float16 is finer; bfloat16 has the range of float32 and is fast on CPUs.",
        choices=("bfloat16", "float16"),
        needs=("amp", (True,)),
    )
    compile: bool = _machine(
        False, "Compile the network first; with CUDA, use graphs of kernels.", resumable=True, finder=False
    )
    preload: bool = _machine(False, "Keep all images in the memory of the device.", resumable=True)
    workers: int = _machine(
        0, "Processes that read batches; 0 is fastest from memory.", flags=("-j",), least=0, resumable=True
    )
    threads: int | None = _machine(
        None, "PyTorch's threads on the CPU.", least=1, default_text="by network, batch size and cores"
    )
    memory_format: str | None = _machine(
        None,
        "Order of the values of an image between layers.",
        choices=("contiguous", "channels_last"),
        default_text="by network and device",
    )
    tensorboard: bool = _record(False, "Log every epoch for TensorBoard, in RUN/tensorboard.", finder=False)
    name: str | None = _record(
        None, "Name of the run folder in runs/.", default_text="<cache>-<model>-001, counted up", finder=False
    )

    def __post_init__(self) -> None:
        for option in OPTIONS.values():
            object.__setattr__(self, option.name, option.checked(getattr(self, option.name)))
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device is auto, cpu, cuda or cuda:N, not {self.device!r}")
        if self.name is not None and (self.name in ("", ".", "..") or set("/\0") & set(self.name)):
            raise ValueError(f"name is that of one folder, not {self.name!r}")
        if self.augment and not set(self.augmentations) <= set(AUGMENTATIONS):
            raise ValueError(f"augment is some of {', '.join(AUGMENTATIONS)}, with commas, not {self.augment!r}")
        if len(set(self.augmentations)) < len(self.augmentations):
            raise ValueError(f"augment takes each kind once, not {self.augment!r}")
        in_order = ",".join(kind for kind in AUGMENTATIONS if kind in self.augmentations)
        object.__setattr__(self, "augment", in_order)  # they run in this order, whatever the order on the command line
        check_code(self.model, self.model_arg, self.augment_code)
        if self.freeze is not None:
            try:
                re.compile(self.freeze)
            except re.error as error:
                raise ValueError(f"freeze is no regular expression: {self.freeze!r}: {error}") from error
        if self.scales_gradients and self.zero_grad != "batch":
            raise ValueError(
                "float16's gradients are scaled anew for every step: keep none, or give amp_dtype bfloat16"
            )
        if self.preload and self.workers:
            raise ValueError("preload leaves nothing to read for workers: give one of both")
        if self.val is not None and self.val_fraction is not None:
            raise ValueError("val_fraction keeps images of the cache to validate on, and val names another cache")

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The kinds of random changes."""
        return tuple(kind.strip() for kind in self.augment.split(",")) if self.augment else ()

    @property
    def crop(self) -> tuple[int, int] | None:
        """The (height, width) that the network sees, where that is not the size of the stored images."""
        return cast("tuple[int, int] | None", self.crop_size)

    @property
    def mixtures(self) -> tuple[str, ...]:
        """The kinds of random changes that mix images, and with them their labels."""
        return tuple(kind for kind in MIXTURES if kind in self.augmentations)

    @property
    def precision(self) -> str:
        """The numbers that the network computes with where that is safe: "float32", "bfloat16" or "float16"."""
        return self.amp_dtype if self.amp else "float32"

    @property
    def scales_gradients(self) -> bool:
        """Whether the loss is scaled before its gradient is computed: float16 has no numbers below 6e-8."""
        return self.precision == "float16"

    @property
    def idle(self) -> list[str]:
        """A warning for each option that was given and changes nothing beside the others."""
        return [
            f"{option.flag} {value[0] if option.repeats else value} changes nothing without {_typed(*option.needs)}"
            for option in OPTIONS.values()
            if option.needs and self._is_idle(option) and (value := getattr(self, option.name)) != option.default
        ]

    def _is_idle(self, option: Option) -> bool:
        if option.needs is None:
            return False
        name, values = option.needs
        given = self.augmentations if name == "augment" else (getattr(self, name),)
        given = (EXAMPLE,) if name == "model" and is_own(self.model) else given
        return not (set(values) & set(given) if values else any(given))

    @property
    def model_in_names(self) -> str:
        """The model for names of files and folders; of one's own network the class."""
        return self.model.rpartition(":")[2] if is_own(self.model) else self.model.replace(":", "-")

    @property
    def learning_rate(self) -> float:
        """The learning rate that is used: the highest, where it varies."""
        if self.lr is not None:
            return self.lr
        return LR_PER_IMAGE * self.batch_size * self.accumulate if self.opt == "sgd" else LR_OTHERS

    @property
    def learning_rate_reason(self) -> str:
        """Why the learning rate is that, where nobody gave it."""
        if self.opt != "sgd":
            return f"{self.opt} takes it for any batch size"
        accumulated = f" × {self.accumulate} accumulated" if self.accumulate > 1 else ""
        return f"{LR_PER_IMAGE:g} × batch size {self.batch_size}{accumulated}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        values = {name: getattr(self, name) for name in OPTIONS}
        return {name: plain(value) for name, value in values.items()}

    def resolved(self) -> dict[str, Any]:
        """Return plain JSON values as training uses them: the actual learning rate; the default of what is idle."""
        values = self.to_dict() | {"lr": float(f"{self.learning_rate:.12g}")}
        return values | {option.name: plain(option.default) for option in OPTIONS.values() if self._is_idle(option)}

    def compared(self) -> dict[str, Any]:
        """Return what runs of the same options share: the values that results depend on, without the seeds."""
        return {name: value for name, value in self.resolved().items() if OPTIONS[name].compared}

    def resumed(self, changes: Mapping[str, Any]) -> "TrainOptions":
        """Return the options of a resumed run.

        Args:
            changes: values by option; None keeps the stored one.

        Raises:
            ValueError: an option that a resumed run may not change, or an impossible value.
        """
        given = {name: value for name, value in changes.items() if value is not None}
        for name in given:
            if name not in OPTIONS or not OPTIONS[name].resumable:
                free = ", ".join(option.name for option in OPTIONS.values() if option.resumable)
                raise ValueError(f"{name} cannot change when a run goes on; only {free} can")
        return replace(self, **given)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainOptions":
        """Build from `to_dict`'s values; missing options get their defaults.

        Raises:
            ValueError: an unknown or impossible value.
        """
        if unknown := set(values) - set(OPTIONS):
            names = ", ".join(sorted(map(repr, unknown)))
            raise ValueError(f"not options of a training run: {names} is unknown here; a newer version may have it")
        if not isinstance(values.get("cache"), str):
            raise ValueError(f"not options of a training run: cache is {values.get('cache')!r}")
        return cls(**values)

    def command(self) -> str:
        """Return the command that trains once more with these options, in a new folder; defaults are written out."""
        words = ["python", "cli.py", "train"]
        for name, value in (self.to_dict() | {"lr": self.learning_rate, "name": None}).items():
            flag = OPTIONS[name].flag
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag.removeprefix('--')}")
            elif value is not None:
                for one in value if isinstance(value, list) else [value]:
                    words += [flag, str(one)]
        return shlex.join(words)


def _typed(name: str, values: tuple[Any, ...]) -> str:
    """Return an option and its values as they are typed: "--opt sgd or rmsprop"."""
    flag = OPTIONS[name].flag
    return flag if values in ((True,), ()) else f"{flag} {' or '.join(values)}"


OPTIONS: dict[str, Option] = {
    f.name: replace(f.metadata["option"], name=f.name, types=get_args(f.type) or (f.type,), default=f.default)
    for f in fields(TrainOptions)
}
TrainOptions.__doc__ = f"{TrainOptions.__doc__}\n    Attributes:\n" + "".join(
    f"        {option.name}: {option.help}\n" for option in OPTIONS.values()
)

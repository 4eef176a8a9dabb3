"""The values that a run has for the options of training, checked."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, cast, get_args

from modelnet.options.code import EXAMPLE, check_code, is_own
from modelnet.options.declaration import Option, plain
from modelnet.options.groups import (
    AUGMENTATIONS,
    GROUPS,
    MIXTURES,
    Augmentation,
    Data,
    Device,
    Network,
    Optimization,
    Output,
)
from pipeline.text import command_line

LR_PER_IMAGE, LR_OTHERS = 0.001, 0.001  # SGD's is × batch size; the others scale the gradient themselves
DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,3})?")


@dataclass(frozen=True)
class TrainOptions(Output, Device, Augmentation, Optimization, Network, Data):  # fields come from the last one on
    """The options of `train`; the defaults are those of the command line.

    Raises:
        ValueError: a value that nothing could be trained with.
    """

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
            how = "give --zero-grad batch, or --amp-dtype bfloat16"
            raise ValueError(f"--amp-dtype float16 scales gradients anew for every step, so they cannot be kept: {how}")
        if self.preload and self.workers:
            raise ValueError("--preload leaves nothing to read for --workers: give one of the two")
        if self.val is not None and self.val_fraction is not None:
            raise ValueError("--val-fraction keeps images of the cache to validate on, and --val names another cache")
        if self.split is not None and (self.val is not None or self.val_fraction is not None):
            instead = "give --fold instead of --val and --val-fraction"
            raise ValueError(f"--split says which images are validated on: {instead}")

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
    def validates(self) -> bool:
        """Whether it names images to validate on."""
        return any(value is not None for value in (self.val, self.val_fraction, self.fold))

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
        found = [
            f"{option.flag} {value[0] if option.repeats else value} changes nothing without {_typed(*option.needs)}"
            for option in OPTIONS.values()
            if option.needs and self._is_idle(option) and (value := getattr(self, option.name)) != option.default
        ]
        if self.data_seed != OPTIONS["data_seed"].default and not self.uses_data_seed:
            found.append(f"--data-seed {self.data_seed} changes nothing without --shuffle or --augment")
        return found

    @property
    def uses_data_seed(self) -> bool:
        """Whether anything is drawn with the data seed."""
        return self.shuffle or bool(self.augmentations) or self.augment_code is not None

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
        words = [*command_line().split(), "train"]
        for name, value in (self.to_dict() | {"lr": self.learning_rate, "name": None}).items():
            flag = OPTIONS[name].flag
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag.removeprefix('--')}")
            elif value is not None:
                for one in value if isinstance(value, list) else [value]:
                    words += [flag, str(one)]
        words += ["--no-split"] if self.split is None else []  # one may lie beside the cache by then
        return shlex.join(words)


def _typed(name: str, values: tuple[Any, ...]) -> str:
    """Return an option and its values as they are typed: "--opt sgd or rmsprop"."""
    flag = OPTIONS[name].flag
    return flag if values in ((True,), ()) else f"{flag} {' or '.join(values)}"


OPTIONS: dict[str, Option] = {
    f.name: replace(
        f.metadata["option"],
        name=f.name,
        types=get_args(f.type) or (f.type,),
        default=f.default,
        heading=group.__name__,
    )
    for group in GROUPS
    for f in fields(group)
}
TrainOptions.__doc__ = f"{TrainOptions.__doc__}\n    Attributes:\n" + "".join(
    f"        {option.name}: {option.help}\n" for option in OPTIONS.values()
)

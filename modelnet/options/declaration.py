"""What an option is: its help, its range and its scope, as metadata of a dataclass field."""

import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from types import NoneType
from typing import Any

from pipeline.text import show_size


class Scope(Enum):
    """Where an option may differ, and whether results depend on it."""

    NETWORK = auto()  # each network of one pass over the data may have its own
    PASS = auto()  # another value needs another pass over the data
    GROUP = auto()  # all networks that are trained together share it
    MACHINE = auto()  # decides where and how fast; it does not count as a difference between runs
    RECORD = auto()  # decides what is written, not what is computed
    IMAGES = auto()  # a path; the fingerprint of the cache is compared instead


@dataclass(frozen=True)
class Option:
    """The declaration of an option.

    Attributes:
        help: a sentence for `--help`.
        scope: where it may differ.
        flags: other spellings, such as "-b".
        least, most: limits of a number; `least` alone makes a number without an upper limit.
        open: the limits themselves are not allowed.
        choices: the allowed texts.
        parse: turns what was given into the value, or raises ValueError; the types of the field are only for readers.
        form: what `parse` takes, for messages.
        metavar: what `--help` shows for the value.
        default_text: what `--help` shows for a default that is None.
        needs: an option and its values without which this one changes nothing; no values mean that it is given at all.
        seed: a seed, or the fold; runs that differ in these alone have the same options.
        opens: open caches depend on it: which images, with which labels, in which memory.
        resumable: `--resume` may change it.
        finder: `lr-find` uses it.
        name, types, default: of the field.
        heading: the group of options that `--help` shows it in.
    """

    help: str
    scope: Scope
    flags: tuple[str, ...] = ()
    least: float | None = None
    most: float = math.inf
    open: bool = False
    choices: tuple[str, ...] = ()
    parse: Callable[[Any], Any] | None = None
    form: str = "a size, such as 224 or 192x256"
    metavar: str | None = None
    default_text: str = ""
    needs: tuple[str, tuple[Any, ...]] | None = None
    seed: bool = False
    opens: bool = False
    resumable: bool = False
    finder: bool = True
    name: str = ""
    types: tuple[Any, ...] = ()
    default: Any = None
    heading: str = ""

    @property
    def flag(self) -> str:
        """The option as it is typed: "--weight-decay"."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def repeats(self) -> bool:
        """Whether it may be given several times."""
        return Ellipsis in self.types

    @property
    def sweepable(self) -> bool:
        """Whether `--sweep` may vary it."""
        return self.scope in (Scope.NETWORK, Scope.PASS) and not self.seed

    @property
    def compared(self) -> bool:
        """Whether runs that differ in it have different options."""
        return self.scope in (Scope.NETWORK, Scope.PASS, Scope.GROUP) and not self.seed

    @property
    def recorded_only(self) -> bool:
        """Whether it only names the images, or only affects the output."""
        return self.scope in (Scope.RECORD, Scope.IMAGES)

    def checked(self, value: Any) -> Any:
        """Return a value in the type of the field.

        Raises:
            ValueError: another type, or a value beyond the limits; names the option.
        """
        kind = self.types[0]
        if value is None and NoneType in self.types:
            return None
        if self.repeats:
            if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
                raise ValueError(f"{self.name} is a list of texts, not {value!r}")
            return tuple(value)
        if self.parse is not None:
            try:
                return self.parse(value)
            except ValueError as error:
                raise ValueError(f"{self.name} is {self.form}, not {value!r}: {error}") from error
        if kind is Path and isinstance(value, str | os.PathLike):
            return self._path(value)
        if kind is float and type(value) in (int, float) and self._has(value):
            return float(value)
        if type(value) is not kind or not self._has(value):
            raise ValueError(f"{self.name} is {self._expected()}, not {value!r}")
        return value

    def _path(self, value: str | os.PathLike[str]) -> Path:
        if os.fspath(value) == "":
            raise ValueError(f"{self.name} is a path, and '' is none")
        try:
            if b"\0" not in os.fsencode(value):
                return Path(value)
        except UnicodeEncodeError:  # half of a pair of JSON's \\u escapes
            pass
        raise ValueError(f"{self.name} is a path, and {os.fspath(value)!r} is a name that no file can have")

    def _has(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.least is None:
            return True
        most = min(self.most, sys.float_info.max if self.types[0] is float else 2 ** (63 if self.seed else 31) - 1)
        return bool(self.least < value < most if self.open else self.least <= value <= most)  # False for NaN

    def _expected(self) -> str:
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        kind = self.types[0]
        if kind is int:
            most = f"2**{63 if self.seed else 31} - 1" if self.most == math.inf else f"{self.most:.0f}"
            return f"a whole number from {self.least} to {most}"
        if kind is float and self.open:
            return "greater than 0" if self.most == math.inf else f"between {self.least:g} and {self.most:g}"
        if kind is float:
            return "0 or greater" if self.most == math.inf else f"a number from {self.least:g} to {self.most:g}"
        return {bool: "True or False", str: "a text", Path: "a path"}[kind]


def declare(scope: Scope, default: Any, help: str, **more: Any) -> Any:
    """Declare a field of `TrainOptions` with its default."""
    return field(default=default, metadata={"option": Option(help, scope, **more)})


def plain(value: Any) -> Any:
    """Return a value of an option as JSON has it; of a size one number where it is that of squares."""
    if isinstance(value, tuple) and not all(isinstance(one, str) for one in value):
        return value[0] if value[0] == value[1] else show_size(value)
    if isinstance(value, tuple):
        return list(value)
    return os.fspath(value) if isinstance(value, Path) else value


def as_text(value: Any) -> str:
    """Return a value of an option as it is typed; those of one that may be given again with spaces between them."""
    value = plain(value)
    return " ".join(value) if isinstance(value, list) else str(value)

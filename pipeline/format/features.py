"""Describe the rows of a cache of features: what a frozen network computes from each image."""

import string
from dataclasses import asdict, dataclass, fields
from typing import Any

_CHOICES = {"precision": ("float32", "bfloat16"), "memory_format": ("contiguous", "channels_last")}
_WITHOUT_KEY = {name: values[0] for name, values in _CHOICES.items()}  # the meaning of features without the key


@dataclass(frozen=True)
class Features:
    """How images became features. Equal descriptions of equal images give equal numbers, up to rounding.

    Attributes:
        model: name of the network.
        layer: the layer whose output the numbers are, pooled; "" for the input of the network's last layer.
        length: D, the number of features of an image.
        weights: SHA-256 of the file of weights, 64 hexadecimal digits.
        images: fingerprint of the cache of images.
        precision: the numbers that the network computed with: "float32", or "bfloat16" where that is safe.
        memory_format: the order of the values of an image between its layers: "contiguous" or "channels_last".

    Raises:
        ValueError: a value that no features could have.
    """

    model: str
    layer: str
    length: int
    weights: str
    images: str
    precision: str = "float32"
    memory_format: str = "contiguous"

    def __post_init__(self) -> None:
        if type(self.length) is not int or not 1 <= self.length < 2**31:
            raise ValueError(f"length is a number of numbers, not {self.length!r}")
        if not self.model or not all(isinstance(name, str) for name in (self.model, self.layer)):
            raise ValueError(f"model and layer are names, not {self.model!r} and {self.layer!r}")
        for name, values in _CHOICES.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} is {' or '.join(values)}, not {getattr(self, name)!r}")
        for digits in (self.weights, self.images):
            if not isinstance(digits, str) or len(digits) != 64 or not set(digits) <= set(string.hexdigits.lower()):
                raise ValueError(f"{digits!r} is no digest")

    @property
    def network(self) -> tuple[str, str, int, str, str]:
        """The values that two caches of features must share to be used together; memory formats differ by rounding."""
        return self.model, self.layer, self.length, self.weights, self.precision

    def __str__(self) -> str:
        """Name them: "512 numbers an image: resnet18 after layer4, weights 1a2b3c4d"."""
        where = f"after {self.layer}" if self.layer else "before its last layer"
        how = "" if self.precision == "float32" else f", in {self.precision}"
        return f"{self.length} numbers an image: {self.model} {where}, weights {self.weights[:8]}{how}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, without the keys that an earlier version lacked where they have its meaning."""
        return {name: value for name, value in asdict(self).items() if value != _WITHOUT_KEY.get(name)}

    @classmethod
    def from_dict(cls, values: Any) -> "Features":
        """Build from `to_dict`'s values.

        Raises:
            ValueError: a missing, unknown or impossible value.
        """
        if not isinstance(values, dict) or {*values, *_WITHOUT_KEY} != {field.name for field in fields(cls)}:
            raise ValueError(f"features have {', '.join(f.name for f in fields(cls))}, not {values!r}")
        return cls(**values)

    def differences(self, other: "Features") -> list[str]:
        """List the values that differ in `other`, one phrase each."""
        found = [
            f"{name} {getattr(self, name) or '(the last)'} → {getattr(other, name) or '(the last)'}"
            for name in ("model", "layer", "length", "precision", "memory_format")
            if getattr(self, name) != getattr(other, name)
        ]
        if self.weights != other.weights and self.model == other.model:
            found.append(f"weights {self.weights[:8]} → {other.weights[:8]}")
        if self.images != other.images:
            found.append("the cache of images has changed")
        return found

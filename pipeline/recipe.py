"""Define the recipe: how an image becomes a row. It is stored in caches and checkpoints."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

RGB = tuple[float, float, float]
StoredType = Literal["float32", "uint8"]

MAX_SIZE = 4096
WITHOUT_KEY: dict[str, Any] = {"scaled_decode": False}  # what a stored recipe means that lacks a key


@dataclass(frozen=True)
class Recipe:
    """The recipe by which an image becomes a tensor. Equal recipes give equal tensors for equal images.

    Attributes:
        size: S, the side of the square image in pixels; aspect ratio is not kept.
        mean: per channel, on the 0..1 scale; subtracted.
        std: per channel, on the 0..1 scale, > 0; divided by.
        dtype: of the stored row: "float32" for the normalized tensor, "uint8" for the pixels before normalization.
        exif_rotate: turn the image upright as its EXIF orientation says (torchvision's ImageFolder does not).
        max_megapixels: larger images are refused before any pixel is allocated.
        scaled_decode: let the JPEG decoder reduce large images to 1/2, 1/4 or 1/8 of their size, but at least 2 S.
            Twice as fast for photographs of a camera; pixels differ by one level or less on average.

    Raises:
        ValueError: a value is impossible.
    """

    size: int = 224
    mean: RGB = (0.5, 0.5, 0.5)
    std: RGB = (0.5, 0.5, 0.5)
    dtype: StoredType = "float32"
    exif_rotate: bool = False
    max_megapixels: int = 64
    scaled_decode: bool = False

    def __post_init__(self) -> None:
        if type(self.size) is not int or not 1 <= self.size <= MAX_SIZE:
            raise ValueError(f"size is a whole number of pixels from 1 to {MAX_SIZE}, not {self.size!r}")
        for name in ("mean", "std"):
            values = tuple(map(float, getattr(self, name)))
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} is three numbers (R, G, B), not {getattr(self, name)!r}")
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise ValueError(f"std is greater than 0 in every channel, not {self.std!r}")
        if self.dtype not in get_args(StoredType):
            raise ValueError(f"dtype is one of {', '.join(get_args(StoredType))}, not {self.dtype!r}")
        for name in ("exif_rotate", "scaled_decode"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is True or False, not {getattr(self, name)!r}")
        if type(self.max_megapixels) is not int or self.max_megapixels < 1:
            raise ValueError(f"max_megapixels is a whole number from 1, not {self.max_megapixels!r}")
        with np.errstate(all="ignore"):
            if not np.isfinite(normalization_table(self)).all():
                raise ValueError(f"mean {self.mean} and std {self.std} give numbers beyond float32")

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """(3, S, S)."""
        return (3, self.size, self.size)

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return 3 * self.size * self.size * np.dtype(self.dtype).itemsize

    @property
    def pixels(self) -> "Recipe":
        """The recipe with default mean, std and dtype: caches that share it can be derived from each other."""
        return replace(self, mean=Recipe.mean, std=Recipe.std, dtype=Recipe.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; `scaled_decode` is among them only where it is on."""
        values = asdict(self) | {"mean": list(self.mean), "std": list(self.std)}
        return values if values.pop("scaled_decode") is False else values | {"scaled_decode": True}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Build from `to_dict`'s values, of this version or an earlier one.

        Raises:
            ValueError: a missing, unknown or impossible value.
        """
        if not isinstance(values, dict) or {*values, *WITHOUT_KEY} != {field.name for field in fields(cls)}:
            raise ValueError(f"a recipe has {', '.join(f.name for f in fields(cls))}, not {values!r}")
        values = WITHOUT_KEY | values
        try:
            mean, std = tuple(values["mean"]), tuple(values["std"])
            return cls(**(values | {"mean": mean, "std": std}))
        except TypeError as error:
            raise ValueError(f"not a recipe: {error}") from error

    @property
    def unusual(self) -> list[str]:
        """Name the values that are not the defaults, one phrase a value: "size 64"."""
        values = ((field.name, getattr(self, field.name), field.default) for field in fields(self))
        return [f"{name} {_plain(value)}" for name, value, default in values if value != default]

    def differences(self, other: "Recipe") -> list[str]:
        """List the values that differ in `other`, one phrase each: "size 224 → 256"."""
        return [
            f"{field.name} {_plain(getattr(self, field.name))} → {_plain(getattr(other, field.name))}"
            for field in fields(self)
            if getattr(self, field.name) != getattr(other, field.name)
        ]


def _plain(value: object) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def normalization_table(recipe: Recipe) -> NDArray[np.float32]:
    """Tabulate normalization: entry [c, v] of the (3, 256) float32 table is what value v becomes in channel c."""
    values_C1V = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
    return _normalize(values_C1V, recipe)[:, 0]


def _normalize(pixels_CHW: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
    """Normalize in three separate float32 steps, as torchvision's `ToTensor` and `Normalize` do: the same bits."""
    mean_C11, std_C11 = (np.array(v, np.float32)[:, None, None] for v in (recipe.mean, recipe.std))
    row_CHW = pixels_CHW.astype(np.float32)
    row_CHW /= np.float32(255)
    row_CHW -= mean_C11
    row_CHW /= std_C11
    return row_CHW


def pixels_to_row(pixels_HWC: NDArray[np.uint8], recipe: Recipe) -> NDArray[Any]:
    """Turn (S, S, 3) uint8 pixels into the stored row: (3, S, S) of the recipe's dtype, contiguous."""
    pixels_CHW = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
    if recipe.dtype == "uint8":
        return pixels_CHW
    return _normalize(pixels_CHW, recipe)


def row_to_pixels(row_CHW: NDArray[Any], recipe: Recipe) -> NDArray[np.uint8] | None:
    """Invert `pixels_to_row`: (S, S, 3) uint8; None if float32 has too few digits to tell the pixels."""
    if recipe.dtype == "uint8":
        return np.ascontiguousarray(row_CHW.transpose(1, 2, 0))
    table = normalization_table(recipe)
    if not (np.diff(table, axis=1) > 0).all():
        return None
    mean_C11, std_C11 = (np.array(v, np.float32)[:, None, None] for v in (recipe.mean, recipe.std))
    pixels_CHW = np.rint((row_CHW * std_C11 + mean_C11) * 255).clip(0, 255).astype(np.uint8)
    if not all(np.array_equal(table[c][pixels_CHW[c]], row_CHW[c]) for c in range(3)):
        return None
    return np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))

"""Define the recipe: how an image becomes a row. It is stored in caches and checkpoints."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from pipeline.text import MAX_SIZE, checked_size, show_size

if TYPE_CHECKING:  # functions import NumPy: the help of the command line names recipes, and makes none
    import numpy as np
    from numpy.typing import NDArray

RGB = tuple[float, float, float]
StoredType = Literal["float32", "uint8"]
Fit = Literal["squash", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic", "lanczos", "box", "nearest"]
Color = tuple[int, int, int]

WITHOUT_KEY: dict[str, Any] = {  # the meaning of a key that a recipe of an earlier version lacks
    "fit": "squash",
    "resize_to": None,
    "interpolation": "bilinear",
    "pad_color": None,
    "background": None,
    "scaled_decode": False,
}


class RecipeOptions(TypedDict, total=False):
    """The options of a build that shape its rows, as `Recipe` has them; None stands for one that was not given."""

    size: int | tuple[int, int] | None
    fit: Fit | None
    resize_to: int | None
    interpolation: Interpolation | None
    pad_color: Color | Literal["edge"] | None
    background: Color | None
    mean: RGB | None
    std: RGB | None
    dtype: StoredType | None
    exif_rotate: bool | None
    max_megapixels: int | None
    scaled_decode: bool | None


class _Size:
    """The field `Recipe.size`: takes (height, width), or one number for a square; gives (height, width)."""

    def __get__(self, recipe: "Recipe | None", owner: type) -> tuple[int, int]:
        sides: tuple[int, int] = (224, 224) if recipe is None else vars(recipe)["size"]
        return sides

    def __set__(self, recipe: "Recipe", size: int | tuple[int, int]) -> None:
        vars(recipe)["size"] = checked_size(size)


@dataclass(frozen=True)
class Recipe:
    """The recipe by which an image becomes a tensor. Equal recipes give equal tensors for equal images.

    Attributes:
        size: (height, width) of the row, in pixels; one number stands for a square.
        fit: how an image gets this shape. "squash" resizes it to the size, whatever its aspect ratio. "crop" resizes
            its shorter side to `resize_to` and keeps the center. "pad" resizes it to fit inside and fills the rest.
        resize_to: what "crop" resizes the shorter side to, in pixels; by default 8/7 of the longer side of `size`.
            None with the other fits.
        interpolation: the filter of Pillow's that resizes, with antialiasing ("nearest" has none).
        pad_color: what "pad" fills with: a color (R, G, B) of 0..255, or "edge" for the image's border pixels; by
            default the mean. None with the other fits.
        background: the color (R, G, B) that transparent images are laid over; None drops their alpha channel, as
            Pillow's `convert("RGB")` does.
        mean: per channel, on the 0..1 scale; subtracted.
        std: per channel, on the 0..1 scale, > 0; divided by.
        dtype: of the stored row: "float32" for the normalized tensor, "uint8" for the pixels before normalization.
        exif_rotate: turn the image upright as its EXIF orientation says (torchvision's ImageFolder does not).
        max_megapixels: larger images are refused before a pixel is allocated.
        scaled_decode: let the JPEG decoder give large images at 1/2, 1/4 or 1/8 of their size, at least twice as large
            as needed: faster for photographs of a camera. Pixels differ by a level or less on average.

    Raises:
        ValueError: a value that no image could be prepared with, or values that exclude each other.
    """

    size: _Size = _Size()
    fit: Fit = "squash"
    resize_to: int | None = None
    interpolation: Interpolation = "bilinear"
    pad_color: "Color | Literal['edge'] | None" = None
    background: "Color | None" = None
    mean: RGB = (0.5, 0.5, 0.5)
    std: RGB = (0.5, 0.5, 0.5)
    dtype: StoredType = "float32"
    exif_rotate: bool = False
    max_megapixels: int = 64
    scaled_decode: bool = False

    def __post_init__(self) -> None:
        for name, choices in (("fit", Fit), ("interpolation", Interpolation), ("dtype", StoredType)):
            if getattr(self, name) not in get_args(choices):
                raise ValueError(f"{name} is one of {', '.join(get_args(choices))}, not {getattr(self, name)!r}")
        for name in ("mean", "std"):
            values = tuple(map(float, getattr(self, name)))
            if len(values) != 3 or not all(map(math.isfinite, values)):
                raise ValueError(f"{name} is three numbers (R, G, B), not {getattr(self, name)!r}")
            object.__setattr__(self, name, values)
        if min(self.std) <= 0:
            raise ValueError(f"std is greater than 0 in every channel, not {self.std!r}")
        for name in ("exif_rotate", "scaled_decode"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} is True or False, not {getattr(self, name)!r}")
        if type(self.max_megapixels) is not int or self.max_megapixels < 1:
            raise ValueError(f"max_megapixels is a whole number from 1, not {self.max_megapixels!r}")
        import numpy as np

        with np.errstate(all="ignore"):
            if not np.isfinite(normalization_table(self)).all():
                raise ValueError(f"mean {self.mean} and std {self.std} give numbers beyond float32")
        self._settle_crop()
        self._settle_colors()

    def _settle_crop(self) -> None:
        longer = max(self.size)
        if self.fit != "crop":
            if self.resize_to is not None:
                raise ValueError(f"resize_to belongs to fit crop, not to {self.fit}")
        elif self.resize_to is None:
            object.__setattr__(self, "resize_to", int(longer / 0.875))
        elif type(self.resize_to) is not int or not longer <= self.resize_to <= 2 * MAX_SIZE:
            raise ValueError(
                f"resize_to is a whole number of pixels from the longer side of size, {longer}, "
                f"to {2 * MAX_SIZE}, not {self.resize_to!r}"
            )

    def _settle_colors(self) -> None:
        if self.fit != "pad":
            if self.pad_color is not None:
                raise ValueError(f"pad_color belongs to fit pad, not to {self.fit}")
        elif self.pad_color is None:
            object.__setattr__(self, "pad_color", self.mean_color)
        elif self.pad_color != "edge":
            object.__setattr__(self, "pad_color", _checked_color("pad_color", self.pad_color))
        if self.background is not None:
            object.__setattr__(self, "background", _checked_color("background", self.background))

    @property
    def row_shape(self) -> tuple[int, int, int]:
        """(3, H, W)."""
        return (3, *self.size)

    @property
    def mean_color(self) -> Color:
        """The mean as the nearest color (R, G, B), 0..255 each."""
        red, green, blue = (min(255, max(0, round(255 * value))) for value in self.mean)
        return red, green, blue

    @property
    def row_bytes(self) -> int:
        """Bytes of one stored row."""
        return math.prod(self.row_shape) * (1 if self.dtype == "uint8" else 4)

    @property
    def pixels(self) -> "Recipe":
        """The recipe with default mean, std and dtype: caches that share it can be derived from each other."""
        return replace(self, mean=Recipe.mean, std=Recipe.std, dtype=Recipe.dtype)

    def to_dict(self) -> dict[str, Any]:
        """Return every key with a plain JSON value."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def to_earlier_dict(self) -> dict[str, Any]:
        """Return the keys and values that earlier versions stored; their fingerprints depend on them."""
        values = {k: v for k, v in self.to_dict().items() if k not in WITHOUT_KEY or v != WITHOUT_KEY[k]}
        return values | ({"size": self.size[0]} if self.size[0] == self.size[1] else {})

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Build from `to_dict`'s values, of this version or an earlier one: fewer keys, one number as size.

        Raises:
            ValueError: a missing, unknown or impossible value.
        """
        if not isinstance(values, dict) or {*values, *WITHOUT_KEY} != {field.name for field in fields(cls)}:
            raise ValueError(f"a recipe has {', '.join(f.name for f in fields(cls))}, not {values!r}")
        values = WITHOUT_KEY | values
        try:
            plain: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
            return cls(**plain)
        except TypeError as error:
            raise ValueError(f"not a recipe: {error}") from error

    def changed(self, **options: Any) -> "Recipe":
        """Return a recipe with other values; values that depend on them get their defaults again, unless given.

        Raises:
            ValueError: an impossible value.
        """
        fit = options.get("fit", self.fit)
        values: dict[str, Any] = {}
        if fit != self.fit or "size" in options:
            values["resize_to"] = None
        if fit != self.fit or ("mean" in options and self.pad_color == self.mean_color):
            values["pad_color"] = None
        return replace(self, **values | options)

    @property
    def unusual(self) -> list[str]:
        """Name the values that are not the defaults, one phrase a value: "size 64"."""
        usual = Recipe(size=self.size, fit=self.fit, mean=self.mean, std=self.std)
        defaults = {field.name: getattr(Recipe, field.name) for field in fields(self)}
        defaults |= {"resize_to": usual.resize_to, "pad_color": usual.pad_color}
        values = ((name, getattr(self, name), default) for name, default in defaults.items())
        return [f"{name} {_plain(value, name)}" for name, value, default in values if value != default]

    def differences(self, other: "Recipe") -> list[str]:
        """List the values that differ in `other`, one phrase each: "size 224 → 256"."""
        return [
            f"{field.name} {_plain(one, field.name)} → {_plain(two, field.name)}"
            for field in fields(self)
            if (one := getattr(self, field.name)) != (two := getattr(other, field.name))
        ]


def _plain(value: Any, name: str) -> str:
    if name == "size":
        return show_size(value)
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def _checked_color(name: str, color: object) -> Color:
    if isinstance(color, tuple) and len(color) == 3 and all(type(v) is int and 0 <= v <= 255 for v in color):
        return color
    raise ValueError(f"{name} is three whole numbers (R, G, B) from 0 to 255, not {color!r}")


def normalization_table(recipe: Recipe) -> "NDArray[np.float32]":
    """Tabulate normalization: entry [c, v] of the (3, 256) float32 table is what value v becomes in channel c."""
    import numpy as np

    values_C1V = np.broadcast_to(np.arange(256, dtype=np.uint8), (3, 1, 256))
    return _normalize(values_C1V, recipe)[:, 0]


def _normalize(pixels_CHW: "NDArray[np.uint8]", recipe: Recipe) -> "NDArray[np.float32]":
    """Normalize in three separate float32 steps, as torchvision's `ToTensor` and `Normalize` do: the same bits."""
    import numpy as np

    mean_C11, std_C11 = (np.array(v, np.float32)[:, None, None] for v in (recipe.mean, recipe.std))
    row_CHW = pixels_CHW.astype(np.float32)
    row_CHW /= np.float32(255)
    row_CHW -= mean_C11
    row_CHW /= std_C11
    return row_CHW


def pixels_to_row(pixels_HWC: "NDArray[np.uint8]", recipe: Recipe) -> "NDArray[Any]":
    """Turn (H, W, 3) uint8 pixels into the stored row: (3, H, W) of the recipe's dtype, contiguous."""
    import numpy as np

    pixels_CHW = np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1))
    if recipe.dtype == "uint8":
        return pixels_CHW
    return _normalize(pixels_CHW, recipe)


def denormalize(images: "NDArray[np.float32]", recipe: Recipe) -> "NDArray[np.uint8]":
    """Return the 8-bit pixels, (..., 3, H, W), that normalized images of this shape were made of."""
    import numpy as np

    mean_C11, std_C11 = (np.array(v, np.float32)[:, None, None] for v in (recipe.mean, recipe.std))
    pixels = images * std_C11
    pixels += mean_C11
    pixels *= np.float32(255)
    np.rint(pixels, out=pixels)
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)


def row_to_pixels(row_CHW: "NDArray[Any]", recipe: Recipe) -> "NDArray[np.uint8] | None":
    """Invert `pixels_to_row`: (H, W, 3) uint8, or None where the row does not tell (float32 ran out of digits)."""
    import numpy as np

    if recipe.dtype == "uint8":
        return np.ascontiguousarray(row_CHW.transpose(1, 2, 0))
    table = normalization_table(recipe)
    if not (np.diff(table, axis=1) > 0).all():
        return None
    pixels_CHW = denormalize(row_CHW, recipe)
    if not all(np.array_equal(table[c][pixels_CHW[c]], row_CHW[c]) for c in range(3)):
        return None
    return np.ascontiguousarray(pixels_CHW.transpose(1, 2, 0))

"""Resize with Pillow's filters: the same bits, by `_resize.c` where it was compiled and proves to give them."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.recipe import Interpolation
from pipeline.system.native import compiled

_LEAST_SIDE = 6  # pixels: 16 values are computed at once, a pixel has three
_LONGEST_SIDE = 65_535  # pixels: sums fit into 32 bits
_SLIMMEST = 50  # ratio of height to width: above it, Pillow may resize in two calls

_KERNELS = ("box", "bilinear", "bicubic", "lanczos")  # as `_resize.c` numbers them; "nearest" is left to Pillow

_Order = Callable[[int, int, int, int], bool]  # height, width, new height, new width: are the columns done first?


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def resize(
    image: "Image.Image | NDArray[np.uint8]",
    size: tuple[int, int],
    interpolation: Interpolation = "bilinear",
    kept: Box | None = None,
) -> NDArray[np.uint8]:
    """Resize as Pillow's `resize` does, with antialiasing, and cut a box out of the result.

    Only the pixels of the box are computed where the compiled part does the work.

    Args:
        image: RGB; an array is (H, W, 3) uint8.
        size: new height and width, in pixels.
        interpolation: the filter.
        kept: the box of the resized image that is returned; None for all of it.

    Returns:
        (kept.height, kept.width, 3) uint8, maybe read-only.

    Raises:
        MemoryError: there is not enough.
    """
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    kept = kept or Box(0, 0, *size)
    narrow = min(width, kept.width) < _LEAST_SIDE
    if not narrow and max(width, height, *size) <= _LONGEST_SIDE and height <= _SLIMMEST * width:
        order = _order_of_pillow(interpolation)
        if order is not None:
            first = order(height, width, *size)
            resized_HWC = _compiled_resize(np.ascontiguousarray(image), size, interpolation, kept, first)
            if resized_HWC is not None:
                return resized_HWC
    return _pillow_resize(image, size, interpolation, kept)


def _pillow_resize(
    image: "Image.Image | NDArray[np.uint8]", size: tuple[int, int], interpolation: Interpolation, kept: Box
) -> NDArray[np.uint8]:
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    resized_HWC = np.asarray(whole.resize(size[::-1], Image.Resampling[interpolation.upper()]))
    return resized_HWC[kept.top : kept.top + kept.height, kept.left : kept.left + kept.width]


def _compiled_resize(
    pixels_HWC: NDArray[np.uint8], size: tuple[int, int], interpolation: str, kept: Box, columns_first: bool
) -> NDArray[np.uint8] | None:
    function = _function()
    if function is None:
        return None
    height, width, _ = pixels_HWC.shape
    out_HWC = np.empty((kept.height, kept.width, 3), np.uint8)
    kernel = _KERNELS.index(interpolation)
    done = function(pixels_HWC.ctypes.data, height, width, *size, *kept, kernel, columns_first, out_HWC.ctypes.data)
    return out_HWC if done else None


def resizes_in_c() -> bool:
    """Say whether the compiled code resizes: it is there and gives Pillow's bits."""
    return _function() is not None and _order_of_pillow("bilinear") is not None


@cache
def _function() -> "Callable[..., int] | None":
    library = compiled("_resize")
    if library is None:
        return None
    address, number = ctypes.c_void_p, ctypes.c_int64
    library.resize.argtypes = [address, *[number] * 8, ctypes.c_int, ctypes.c_int, address]
    library.resize.restype = ctypes.c_int
    return library.resize


def _rows_first(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Never begin with the columns, as Pillow before 13."""
    return False


def _whichever_shrinks_more(height: int, width: int, new_height: int, new_width: int) -> bool:
    """Begin with the columns if the height loses over twice as many pixels as the width, as Pillow from 13 on."""
    return height > new_height and height - new_height > 2 * (width - new_width)


@cache
def _order_of_pillow(interpolation: Interpolation) -> _Order | None:
    """Find out in which order this Pillow resizes; None where `_resize.c` gives other bits than it, or is not there.

    The order decides bits, since pixels are rounded in between. A Pillow that resizes in another way, or rounds
    otherwise as it was compiled, is found here, once a process and filter, and does the work itself.
    """
    if interpolation not in _KERNELS:
        return None
    rng = np.random.default_rng(0)
    shapes = ((61, 83), (150, 40), (60, 40), (61, 40), (21, 12), (20, 12), (13, 17), (20, 31), (90, 20))
    probes = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for height, width in shapes]
    for order in (_whichever_shrinks_more, _rows_first):
        if all(_same_bits(probe, size, interpolation, order) for probe in probes for size in ((20, 20), (17, 26))):
            return order
    return None


def _same_bits(
    probe_HWC: NDArray[np.uint8], size: tuple[int, int], interpolation: Interpolation, order: _Order
) -> bool:
    height, width, _ = probe_HWC.shape
    whole = Box(0, 0, *size)
    resized_HWC = _compiled_resize(probe_HWC, size, interpolation, whole, order(height, width, *size))
    return resized_HWC is not None and np.array_equal(
        resized_HWC, _pillow_resize(probe_HWC, size, interpolation, whole)
    )

"""Resize with a bilinear, antialiased filter: with `_resize.c` where it gives Pillow's bits, else with Pillow."""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.system.native import compiled

_LEAST_SIDE = 6  # pixels: 16 values are mixed at once, a pixel has three
_LONGEST_SIDE = 65_535  # pixels: sums of 32 bits are sure to hold
_SLIMMEST = 50  # times as high as wide: such a one Pillow may resize in two calls

_Order = Callable[[int, int, int], bool]  # of height, width and size: are the columns done first?


def resize(image: "Image.Image | NDArray[np.uint8]", size: int) -> NDArray[np.uint8]:
    """Resize to a square as Pillow's `resize` with `BILINEAR` does.

    Args:
        image: RGB; an array is (H, W, 3) uint8.
        size: of a side, in pixels.

    Returns:
        (size, size, 3) uint8, maybe read-only.

    Raises:
        MemoryError: there is not enough.
    """
    width, height = image.size if isinstance(image, Image.Image) else image.shape[1::-1]
    order = _order_of_pillow()
    common = min(width, size) >= _LEAST_SIDE and max(width, height) <= _LONGEST_SIDE and height <= _SLIMMEST * width
    if order is not None and common:
        resized_HWC = _compiled_resize(np.ascontiguousarray(image), size, order(height, width, size))
        if resized_HWC is not None:
            return resized_HWC
    return _pillow_resize(image, size)


def _pillow_resize(image: "Image.Image | NDArray[np.uint8]", size: int) -> NDArray[np.uint8]:
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return np.asarray(whole.resize((size, size), Image.Resampling.BILINEAR))


def _compiled_resize(pixels_HWC: NDArray[np.uint8], size: int, columns_first: bool) -> NDArray[np.uint8] | None:
    kernel = _kernel()
    if kernel is None:
        return None
    height, width, _ = pixels_HWC.shape
    out_HWC = np.empty((size, size, 3), np.uint8)
    done = kernel(pixels_HWC.ctypes.data, height, width, size, columns_first, out_HWC.ctypes.data)
    return out_HWC if done else None


@cache
def _kernel() -> "Callable[..., int] | None":
    library = compiled("_resize")
    if library is None:
        return None
    address, number = ctypes.c_void_p, ctypes.c_int64
    library.resize.argtypes = [address, number, number, number, ctypes.c_int, address]
    library.resize.restype = ctypes.c_int
    return library.resize


def _rows_first(height: int, width: int, size: int) -> bool:
    """Never begin with the columns, as Pillow before 13."""
    return False


def _whichever_shrinks_more(height: int, width: int, size: int) -> bool:
    """Begin with the columns if the height shrinks by more than twice as much as the width, as Pillow from 13 on."""
    return height > size and height - size > 2 * (width - size)


@cache
def _order_of_pillow() -> _Order | None:
    """Find the order in which this Pillow resizes; None if `_resize.c` is missing or gives other bits.

    The order decides bits, since pixels are rounded in between. A Pillow that resizes or rounds in another way is
    detected here, once a process, and does the work itself.
    """
    rng = np.random.default_rng(0)
    size = 20
    probes = [  # reducing and enlarging, and both sides of the border between the orders
        rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        for height, width in ((61, 83), (150, 40), (60, 40), (61, 40), (21, 12), (20, 12), (13, 17), (20, 31), (90, 20))
    ]
    for order in (_whichever_shrinks_more, _rows_first):
        if all(_same_bits(probe, size, order(len(probe), probe.shape[1], size)) for probe in probes):
            return order
    return None


def _same_bits(probe_HWC: NDArray[np.uint8], size: int, columns_first: bool) -> bool:
    resized_HWC = _compiled_resize(probe_HWC, size, columns_first)
    return resized_HWC is not None and np.array_equal(resized_HWC, _pillow_resize(probe_HWC, size))

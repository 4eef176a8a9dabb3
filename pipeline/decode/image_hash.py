"""Compute the perceptual hash of an image."""

import ctypes
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.system.native import compiled


def image_hash(image: "Image.Image | NDArray[np.uint8]") -> int:
    """Return the perceptual hash of an image: 64 bits, "is each cell brighter than its right neighbour" on 9 × 8 cells.

    A re-encoded, slightly brightened or rescaled copy keeps nearly all bits (the "difference hash").

    Args:
        image: RGB; an array is (H, W, 3) uint8.
    """
    cells = np.asarray(_grey(image).resize((9, 8), Image.Resampling.BOX))
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")


def _grey(image: "Image.Image | NDArray[np.uint8]") -> Image.Image:
    """Convert to Pillow's mode L: an array by `_resize.c`, if that proves to have Pillow's bits."""
    if isinstance(image, Image.Image):
        return image.convert("L")
    grey_HW = _compiled_grey(image) if _has_pillows_bits() else None
    return Image.fromarray(image).convert("L") if grey_HW is None else Image.fromarray(grey_HW)


def _compiled_grey(pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    function = _function()
    if function is None:
        return None
    pixels_HWC = np.ascontiguousarray(pixels_HWC)
    grey_HW = np.empty(pixels_HWC.shape[:2], np.uint8)
    return grey_HW if function(pixels_HWC.ctypes.data, grey_HW.size, grey_HW.ctypes.data) else None


@cache
def _function() -> "Callable[..., int] | None":
    library = compiled("_resize")
    if library is None:
        return None
    library.grey.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    library.grey.restype = ctypes.c_int
    return library.grey


@cache
def _has_pillows_bits() -> bool:
    probe_HWC = np.random.default_rng(0).integers(0, 256, (64, 67, 3), dtype=np.uint8)
    grey_HW = _compiled_grey(probe_HWC)
    return grey_HW is not None and np.array_equal(grey_HW, np.asarray(Image.fromarray(probe_HWC).convert("L")))

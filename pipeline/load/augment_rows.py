"""Rows of a memory map changed on their way into a batch, on the CPU: cut or cropped, flipped, colors changed.

In one pass over memory where `_batch.c` was compiled, else in PyTorch's steps, image by image: the same bits.
"""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.load.augment_images import Places, change_colors, take_pixels
from pipeline.load.normalize import normalize_rows
from pipeline.load.threads import team_for
from pipeline.recipe import Recipe
from pipeline.system.native import compiled

_LANES = 8  # pixels that `_batch.c` makes at a time


def augment_rows(
    images_NCHW: Tensor,
    rows_B: Tensor,
    recipe: Recipe,
    places: Places,
    factors_B3: Tensor | None,
    out_BCHW: Tensor,
) -> None:
    """Gather rows of a memory map, normalize and change them.

    Args:
        images_NCHW: (N, 3, H, W) uint8, or float32 and normalized; contiguous, on the CPU.
        rows_B: (B,) int64 of 0..N-1; whoever calls has checked them.
        recipe: gives size, mean and std.
        places: of the pixels, inside of the images.
        factors_B3: float32, of brightness, contrast and saturation; None leaves the colors.
        out_BCHW: (B, 3, h, w) float32, contiguous; is overwritten.
    """
    kernel = compiled_kernel()
    if kernel is None:
        _in_steps(images_NCHW, rows_B, recipe, places, factors_B3, out_BCHW)
        return
    (height, width), (out_height, out_width) = recipe.size, out_BCHW.shape[2:]
    address, threads = team_for(out_BCHW.nbytes)
    memory = np.empty((threads, 2 * (out_width + _LANES) + width + 2 * _LANES + 2), np.float32)
    arrays: list[NDArray[np.generic] | None] = [
        rows_B.contiguous().numpy(),
        np.array(recipe.mean, np.float32),
        np.array(recipe.std, np.float32),
        np.ascontiguousarray(places.y, np.int32),
        np.ascontiguousarray(_padded(places.x), np.int32),
        places.y_part,
        None if places.x_part is None else _padded(places.x_part),
        None if factors_B3 is None else factors_B3.contiguous().numpy(),
        places.step,
        memory,
    ]
    rows, mean, std, *others = (None if array is None else array.ctypes.data for array in arrays)
    job = _Job(
        *(images_NCHW.data_ptr(), rows, len(rows_B), 0, 0, out_BCHW.data_ptr(), mean, std),
        *(images_NCHW.dtype == torch.float32, height, width, out_height, out_width),
        *others,
        memory.shape[1],
    )
    kernel(ctypes.byref(job), address, threads)


def _padded(values: NDArray[Any]) -> NDArray[Any]:
    """Repeat the last column until a line has whole groups of pixels."""
    missing = -values.shape[1] % _LANES
    return np.pad(values, ((0, 0), (0, missing)), "edge") if missing else values


def _in_steps(
    images_NCHW: Tensor,
    rows_B: Tensor,
    recipe: Recipe,
    places: Places,
    factors_B3: Tensor | None,
    out_BCHW: Tensor,
) -> None:
    image_1CHW = torch.empty((1, *recipe.row_shape), dtype=torch.float32, device="cpu")
    for i in range(len(rows_B)):  # an empty tensor is split into one part, not into none
        row, out_1CHW = rows_B[i : i + 1], out_BCHW[i : i + 1]
        if images_NCHW.dtype == torch.uint8:
            normalize_rows(images_NCHW, row, recipe, image_1CHW)
        else:
            torch.index_select(images_NCHW, 0, row, out=image_1CHW)
        own = Places(*(None if values is None else values[i : i + 1] for values in places))  # type: ignore[arg-type]
        out_1CHW.copy_(take_pixels(image_1CHW, own))
        if factors_B3 is not None:
            change_colors(out_1CHW, factors_B3[i : i + 1], recipe.mean, recipe.std)


class _Job(ctypes.Structure):
    """`augmented` of `_batch.c`."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("images", "rows")),
        *((name, ctypes.c_int64) for name in ("count", "row_bytes", "next")),
        *((name, ctypes.c_void_p) for name in ("out", "mean", "std")),
        *((name, ctypes.c_int64) for name in ("is_float", "height", "width", "out_height", "out_width")),
        *((name, ctypes.c_void_p) for name in ("y", "x", "y_part", "x_part", "factors", "step", "memory")),
        *((name, ctypes.c_int64) for name in ("thread_floats", "memories_taken")),
    )


@cache
def compiled_kernel() -> Callable[..., None] | None:
    """Return `augment_rows` of `_batch.c`, or None where it was not compiled."""
    library = compiled("_batch")
    if library is None:
        return None
    library.augment_rows.argtypes = [ctypes.POINTER(_Job), ctypes.c_void_p, ctypes.c_uint]
    library.augment_rows.restype = None
    return library.augment_rows

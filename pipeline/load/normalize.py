"""Normalization: 8-bit pixels to what the network sees, with the bits of torchvision's ToTensor + Normalize.

On the CPU in one pass over memory where `_batch.c` was compiled, else in torchvision's own steps; on other devices
from a table computed on the CPU, since another device's division may differ in the last bit.
"""

import ctypes
import math
from collections.abc import Callable, Iterable
from functools import cache, lru_cache

import numpy as np
import torch
from torch import Tensor

from pipeline.load.threads import team_for
from pipeline.recipe import Recipe, denormalize, normalization_table
from pipeline.system.native import compiled

_BLOCK_BYTES = 600_000  # float32 numbers that stay in a core's cache during all steps


def normalize(pixels_NCHW: Tensor, recipe: Recipe) -> Tensor:
    """Scale 8-bit pixels to what the network sees, bit for bit as torchvision does.

    Args:
        pixels_NCHW: (N, 3, H, W) uint8, 0..255.
        recipe: gives mean and std.

    Returns:
        (N, 3, H, W) float32 on the same device.

    Raises:
        ValueError: another shape or dtype; float input has most likely been normalized already.
    """
    if pixels_NCHW.dtype != torch.uint8 or pixels_NCHW.shape[1:] != recipe.row_shape:
        needed = f"(N, 3, {recipe.size[0]}, {recipe.size[1]}) uint8"
        raise ValueError(f"pixels are {needed}, not {tuple(pixels_NCHW.shape)} {pixels_NCHW.dtype}")
    if pixels_NCHW.device.type != "cpu":
        return _look_up(pixels_NCHW, *_table_on(pixels_NCHW.device, recipe))
    out_NCHW = torch.empty(pixels_NCHW.shape, dtype=torch.float32, device="cpu")
    normalize_rows(pixels_NCHW.contiguous(), torch.arange(len(pixels_NCHW), device="cpu"), recipe, out_NCHW)
    return out_NCHW


def pixels_of(images_NCHW: Tensor, recipe: Recipe) -> Tensor:
    """Return the (N, 3, H, W) uint8 pixels that normalized images, (N, 3, H, W) float32 on the CPU, were made of."""
    return torch.from_numpy(denormalize(images_NCHW.detach().numpy(), recipe))


@lru_cache(maxsize=8)
def _table_on(device: torch.device, recipe: Recipe) -> tuple[Tensor, Tensor]:
    """Return the table of all channels one after another, (768,) float32, and where each begins, (3, 1, 1) int64."""
    table = torch.from_numpy(normalization_table(recipe)).flatten()
    return table.to(device), torch.arange(0, len(table), 256, device=device).view(3, 1, 1)


def _look_up(pixels_NCHW: Tensor, table: Tensor, begin_C11: Tensor) -> Tensor:
    return table[pixels_NCHW + begin_C11]


def normalize_rows(images_NCHW: Tensor, rows: Tensor, recipe: Recipe, out_BCHW: Tensor) -> None:
    """Gather rows and normalize them, on the CPU.

    Args:
        images_NCHW: (N, 3, H, W) uint8, contiguous.
        rows: (B,) int64 of 0..N-1; whoever calls has checked them.
        recipe: gives mean and std.
        out_BCHW: (B, 3, H, W) float32, contiguous; is overwritten.
    """
    kernel = compiled_kernel()
    if kernel is None:
        _in_steps(images_NCHW, rows, recipe, out_BCHW)
        return
    rows = rows.contiguous()
    mean, std = (np.array(values, np.float32) for values in (recipe.mean, recipe.std))
    kernel(
        *(images_NCHW.data_ptr(), rows.data_ptr(), len(rows), math.prod(recipe.row_shape), out_BCHW.data_ptr()),
        *team_for(out_BCHW.nbytes),
        *(mean.ctypes.data, std.ctypes.data),
    )


def _in_steps(images_NCHW: Tensor, rows: Tensor, recipe: Recipe, out_BCHW: Tensor) -> None:
    """Normalize blocks of images, each small enough to stay in the core's cache for all the steps."""
    mean_C11, std_C11 = (
        torch.tensor(values, dtype=torch.float32, device="cpu").view(3, 1, 1) for values in (recipe.mean, recipe.std)
    )
    block = max(1, _BLOCK_BYTES // (4 * math.prod(recipe.row_shape)))
    if not len(rows):  # a rank has no image of the last batch
        return
    if block == 1:  # a view spares a copy
        pixels: Iterable[Tensor] = (images_NCHW[row : row + 1] for row in rows.tolist())
    else:
        pixels = (images_NCHW.index_select(0, numbers) for numbers in rows.split(block))
    for out, pixels_NCHW in zip(out_BCHW.split(block), pixels, strict=True):
        out.copy_(pixels_NCHW).div_(255).sub_(mean_C11).div_(std_C11)


@cache
def compiled_kernel() -> Callable[..., None] | None:
    """Return `normalize_rows` of `_batch.c`, or None where it was not compiled."""
    library = compiled("_batch")
    if library is None:
        return None
    address, number = ctypes.c_void_p, ctypes.c_int64
    library.normalize_rows.argtypes = [
        address,
        address,
        number,
        number,
        address,
        address,
        ctypes.c_uint,
        address,
        address,
    ]
    library.normalize_rows.restype = None
    return library.normalize_rows

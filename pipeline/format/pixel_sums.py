"""Add up the pixels of rows, for their mean and standard deviation per channel."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.recipe import RGB


class PixelSums:
    """Sums of values and of squares per channel. Those of 8-bit pixels are exact: their order does not matter."""

    def __init__(self) -> None:
        self.count = 0
        self.sums: list[Any] = [0, 0, 0]
        self.squares: list[Any] = [0, 0, 0]

    def add(self, row_CHW: NDArray[Any], box: tuple[int, ...] | None = None) -> None:
        """Add a row, (3, H, W) uint8 or float32, or a box of it: top, left, height, width."""
        if box is not None:
            top, left, height, width = box
            row_CHW = row_CHW[:, top : top + height, left : left + width]
        values_CN = row_CHW.reshape(3, -1).astype(np.int64 if row_CHW.dtype == np.uint8 else np.float64)
        self.count += values_CN.shape[1]
        for channel in range(3):
            self.sums[channel] += values_CN[channel].sum().item()
            self.squares[channel] += np.dot(values_CN[channel], values_CN[channel]).item()

    def mean_std(self, unit: int = 1) -> tuple[RGB, RGB]:
        """Return the mean and the standard deviation of each channel.

        Args:
            unit: the value that counts as 1; 255 for pixels on the 0..1 scale.

        Raises:
            ValueError: nothing was added.
        """
        if not self.count:
            raise ValueError("there are no pixels")
        mean_R, mean_G, mean_B = (total / (self.count * unit) for total in self.sums)
        variances = [
            max(0, self.count * squares - total * total) / (self.count * unit) ** 2
            for total, squares in zip(self.sums, self.squares, strict=True)
        ]
        std_R, std_G, std_B = map(math.sqrt, variances)
        return (mean_R, mean_G, mean_B), (std_R, std_G, std_B)

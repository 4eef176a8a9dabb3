"""Describe the image files of a cache, and the pixels of its rows."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.format.pixel_sums import PixelSums
from pipeline.format.sharded import Reader, ShardedReader
from pipeline.recipe import RGB

Size = tuple[int, int]


@dataclass
class Sources:
    """The image files of a cache, as they are before they are turned and fitted.

    Attributes:
        formats: number of images of each format, the most frequent first.
        smallest, median, largest: (height, width) of images, ordered by their number of pixels.
        narrowest, median_ratio, widest: aspect ratios, width / height.
    """

    formats: dict[str, int]
    smallest: Size
    median: Size
    largest: Size
    narrowest: float
    median_ratio: float
    widest: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {name}" for name, count in self.formats.items())
        sizes = (f"{width} × {height}" for height, width in (self.smallest, self.median, self.largest))
        smallest, median, largest = sizes
        return (
            f"{counts}; {smallest} to {largest} pixels, median {median}; "
            f"width / height {_ratio(self.narrowest)} to {_ratio(self.widest)}, median {_ratio(self.median_ratio)}"
        )


def _ratio(value: float) -> str:
    """Write an aspect ratio with two decimals, a tiny one with two digits: "1.50", "0.00005"."""
    return f"{value:.2f}" if value >= 0.1 else np.format_float_positional(value, 2, fractional=False)


def describe_sources(reader: Reader) -> Sources | None:
    """Describe the image files of a cache; None for one without images, or whose version did not store it."""
    sizes = reader.table("source_size").astype(np.int64)
    if not len(sizes) or not sizes.all():
        return None
    formats = reader.table("source_format")
    counts = Counter({name: int(np.count_nonzero(formats == name.encode())) for name in reader.decoder})
    ratios = sizes[:, 1] / sizes[:, 0]
    return Sources(
        formats={name: count for name, count in counts.most_common() if count},
        smallest=_by_pixels(sizes, 0),
        median=_by_pixels(sizes, (len(sizes) - 1) // 2),
        largest=_by_pixels(sizes, len(sizes) - 1),
        narrowest=float(ratios.min()),
        median_ratio=float(np.median(ratios)),
        widest=float(ratios.max()),
    )


def _by_pixels(sizes: NDArray[np.int64], place: int) -> Size:
    """Return the size at a place in the order of pixels, then width; without sorting a million of them."""
    areas = sizes[:, 0] * sizes[:, 1]
    area = int(np.partition(areas, place)[place])
    widths = np.sort(sizes[areas == area, 1])
    width = int(widths[place - np.count_nonzero(areas < area)])
    return area // width, width


def pixel_statistics(reader: Reader) -> tuple[RGB, RGB] | None:
    """Read every row, and return mean and standard deviation of the stored pixels per channel, on the 0..1 scale.

    Args:
        reader: of a cache of images, at least one.

    Returns:
        None where a row is damaged; `verify` says which.
    """
    sums, recipe = PixelSums(), reader.recipe
    for file in reader.shards if isinstance(reader, ShardedReader) else [reader]:
        for row in range(file.num_images):
            if not file.row_is_good(row):
                return None
            sums.add(file.images[row])
    if recipe.dtype == "uint8":
        return sums.mean_std(255)
    means, deviations = sums.mean_std()
    r, g, b = (m + s * value for m, s, value in zip(recipe.mean, recipe.std, means, strict=True))
    dr, dg, db = (s * value for s, value in zip(recipe.std, deviations, strict=True))
    return (r, g, b), (dr, dg, db)

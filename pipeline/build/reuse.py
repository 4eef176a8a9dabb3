"""Copy rows from the cache that is being replaced."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.format.reader import CacheReader
from pipeline.recipe import Recipe, pixels_to_row, row_to_pixels


class Donor:
    """An old cache whose rows are copied; they are found by the content of the image file."""

    def __init__(self, path: Path) -> None:
        self.cache = CacheReader(path)
        self.recipe = self.cache.header.recipe
        keys = np.ascontiguousarray(self.cache.table("source_sha256")[:, :8]).view(np.uint64).reshape(-1)
        self.order = np.argsort(keys, kind="stable")
        self.keys = keys[self.order]  # eight bytes of each digest find it, all 32 decide
        self.notes: dict[int, tuple[str, ...]] = {}
        for row, note in self.cache.notes:
            self.notes[row] = (*self.notes.get(row, ()), note)

    def find(self, sha256: bytes, recipe: Recipe) -> tuple[NDArray[Any] | None, int, tuple[str, ...]]:
        """Return (row as `recipe` stores it, image hash, notes). The row is None if there is none, or it is damaged."""
        key = np.frombuffer(sha256, np.uint64)[0]
        first, end = (int(np.searchsorted(self.keys, key, side)) for side in ("left", "right"))
        for row in self.order[first:end].tolist():
            if self.cache.table("source_sha256")[row].tobytes() == sha256 and self.cache.row_is_good(row):
                stored = self._derive(row, recipe)
                if stored is not None:
                    return stored, int(self.cache.table("image_hash")[row]), self.notes.get(row, ())
        return None, 0, ()

    def _derive(self, row: int, recipe: Recipe) -> NDArray[Any] | None:
        stored: NDArray[Any] = self.cache.images[row]
        if recipe == self.recipe:
            return stored
        pixels_HWC = row_to_pixels(stored, self.recipe)
        return None if pixels_HWC is None else pixels_to_row(pixels_HWC, recipe)


@lru_cache(maxsize=1)
def _donor(path: Path, fingerprint: str) -> Donor:
    """Open a donor once a process. The fingerprint tells it from a later cache at the same path."""
    return Donor(path)

"""Compute the perceptual hash of an image."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def image_hash(image: "Image.Image | NDArray[np.uint8]") -> int:
    """Return the perceptual hash of an image: 64 bits, "is each cell brighter than its right neighbour" on 9 × 8 cells.

    A re-encoded, slightly brightened or rescaled copy keeps nearly all bits (the "difference hash").

    Args:
        image: RGB; an array is (H, W, 3) uint8.
    """
    whole = image if isinstance(image, Image.Image) else Image.fromarray(image)
    grey = whole.convert("L").resize((9, 8), Image.Resampling.BOX)
    cells = np.asarray(grey)
    return int.from_bytes(np.packbits(cells[:, :-1] > cells[:, 1:]).tobytes(), "big")

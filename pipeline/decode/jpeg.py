"""Decode JPEGs with simplejpeg, faster than Pillow, if it is installed and gives Pillow's bits."""

import io
from collections.abc import Callable
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.decode.formats import JPEG

_Decoder = Callable[[bytes], NDArray[np.uint8]]


def decode_jpeg(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """Decode a JPEG to the pixels of Pillow's `convert("RGB")`.

    Args:
        data: a whole file.
        image: the same file, as `Image.open` returns it.

    Returns:
        (H, W, 3) uint8. None where Pillow has to decode: another format or color space, or any damage, so that one
        decoder alone decides what still is an image.
    """
    if image.format not in ("JPEG", "MPO") or image.mode not in ("RGB", "L"):
        return None
    decoder = _decoder()
    if decoder is None:
        return None
    try:
        pixels_HWC = decoder(data)
    except ValueError:
        return None
    return pixels_HWC if pixels_HWC.shape == (image.height, image.width, 3) else None


def has_simplejpeg() -> bool:
    """Say whether simplejpeg decodes: it is installed and gives Pillow's bits."""
    return _decoder() is not None


@cache
def _decoder() -> _Decoder | None:
    """Return simplejpeg's decoder; None if it is not installed or gives other bits than Pillow."""
    try:
        import simplejpeg
    except ImportError:
        return None

    def decoder(data: bytes) -> NDArray[np.uint8]:
        pixels_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
        return pixels_HWC

    for probe in files("pipeline.decode").joinpath("probes").iterdir():
        if not probe.name.endswith(JPEG.suffixes):
            continue
        data = probe.read_bytes()
        image = Image.open(io.BytesIO(data))
        if image.mode in ("RGB", "L"):
            try:
                pixels_HWC = decoder(data)
            except ValueError:
                return None
            if not np.array_equal(pixels_HWC, np.asarray(image.convert("RGB"))):
                return None
    return decoder

"""JPEGs by libjpeg-turbo with no Pillow in between: faster, where simplejpeg is there and proves to give its bits."""

import io
from collections.abc import Callable
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_Decoder = Callable[[bytes], NDArray[np.uint8]]


def decode_jpeg(data: bytes, image: Image.Image) -> NDArray[np.uint8] | None:
    """Decode what Pillow's `convert("RGB")` would give.

    Args:
        data: a whole file.
        image: the same, as `Image.open` returns it.

    Returns:
        (H, W, 3) uint8, or None where that is for Pillow to do: another format or color space, and whatever is damaged
        in the least, so that one decoder alone decides what still is an image.
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


@cache
def _decoder() -> _Decoder | None:
    """Return simplejpeg's decoder, or None where it is not installed or has another libjpeg's bits than Pillow."""
    try:
        import simplejpeg
    except ImportError:
        return None

    def decoder(data: bytes) -> NDArray[np.uint8]:
        pixels_HWC: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
        return pixels_HWC

    for probe in files("pipeline.decode").joinpath("probes").iterdir():
        data = probe.read_bytes()
        image = Image.open(io.BytesIO(data))
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            try:
                pixels_HWC = decoder(data)
            except ValueError:
                return None
            if not np.array_equal(pixels_HWC, np.asarray(image.convert("RGB"))):
                return None
    return decoder

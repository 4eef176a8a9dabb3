"""Files of every image format, and what their own libraries make of them."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image

from tests.support.photos import textured
from tests.support.tiffs import tiff

PICTURE = textured(61, 45, 5)
PIXELS = np.asarray(PICTURE)
GREY = PICTURE.convert("L")
ALPHA = Image.merge("RGBA", [*PICTURE.split(), textured(61, 45, 8).split()[0]])


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    if form == "HEIC":
        primary, others = image, options.pop("append_images", [])
        container = pillow_heif.from_pillow(primary)
        for other in others:
            container.add_from_pillow(other)
        container.save(file, **options)
    else:
        image.save(file, form, **options)
    return file.getvalue()


def turning_heic(image: Image.Image, exif: Image.Exif) -> bytes:
    """Write a HEIC that is to be turned by its box irot; its EXIF says the same."""
    file = io.BytesIO()
    pillow_heif.from_bytes(image.mode, image.size, image.tobytes()).save(file, exif=exif.tobytes())
    return file.getvalue()


def opened(data: bytes) -> Image.Image:
    """The oracle: the image as its library opens it, whatever this project does."""
    of_heic = data[8:12] in (b"heic", b"heix")
    open_heic: Any = pillow_heif.HeifImageFile
    image: Image.Image = (open_heic if of_heic else Image.open)(io.BytesIO(data))
    return image


def resized(image: Image.Image, size: int = 20) -> NDArray[np.uint8]:
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))


SAME: dict[str, tuple[Image.Image, Callable[[], bytes]]] = {  # what convert("RGB") has to give, and files of it
    "PNG": (PICTURE, lambda: encoded(PICTURE, "PNG")),
    "WebP": (PICTURE, lambda: encoded(PICTURE, "WEBP", lossless=True)),
    "WebP, alpha": (ALPHA, lambda: encoded(ALPHA, "WEBP", lossless=True, exact=True)),
    "BMP": (PICTURE, lambda: encoded(PICTURE, "BMP")),
    "BMP, grey": (GREY, lambda: encoded(GREY, "BMP")),
    "BMP, 1 bit": (GREY.convert("1"), lambda: encoded(GREY.convert("1"), "BMP")),
    "BMP, palette": (PICTURE.quantize(17), lambda: encoded(PICTURE.quantize(17), "BMP")),
    "GIF": (PICTURE.quantize(99), lambda: encoded(PICTURE.quantize(99), "GIF")),
    "GIF, grey": (GREY, lambda: encoded(GREY, "GIF")),
    "GIF, transparent": (PICTURE.quantize(9), lambda: encoded(PICTURE.quantize(9), "GIF", transparency=3)),
    "TIFF, raw": (PICTURE, lambda: encoded(PICTURE, "TIFF")),
    "TIFF, LZW": (PICTURE, lambda: encoded(PICTURE, "TIFF", compression="tiff_lzw")),
    "TIFF, deflate": (PICTURE, lambda: encoded(PICTURE, "TIFF", compression="tiff_adobe_deflate")),
    "TIFF, packbits": (PICTURE, lambda: encoded(PICTURE, "TIFF", compression="packbits")),
    "TIFF, alpha": (ALPHA, lambda: encoded(ALPHA, "TIFF")),
    "TIFF, grey and alpha": (ALPHA.convert("LA"), lambda: encoded(ALPHA.convert("LA"), "TIFF")),
    "TIFF, palette": (PICTURE.quantize(17), lambda: encoded(PICTURE.quantize(17), "TIFF", compression="tiff_lzw")),
    "TIFF, grey": (GREY, lambda: encoded(GREY, "TIFF", compression="tiff_lzw")),
    "TIFF, 1 bit": (GREY.convert("1"), lambda: encoded(GREY.convert("1"), "TIFF", compression="group4")),
    "TIFF, strips": (PICTURE, lambda: tiff(PIXELS, deflate=True)),
    "TIFF, tiles": (PICTURE, lambda: tiff(PIXELS, tile=16)),
    "TIFF, packed tiles": (PICTURE, lambda: tiff(PIXELS, tile=32, deflate=True)),
    "TIFF, big": (PICTURE, lambda: tiff(PIXELS, big=True)),
    "AVIF": (PICTURE, lambda: encoded(PICTURE, "AVIF", quality=70)),
    "AVIF, alpha": (ALPHA, lambda: encoded(ALPHA, "AVIF")),
    "HEIC": (PICTURE, lambda: encoded(PICTURE, "HEIC", quality=70)),
    "HEIC, alpha": (ALPHA, lambda: encoded(ALPHA, "HEIC")),
    "HEIC, grid": (textured(300, 200, 1), lambda: encoded(textured(300, 200, 1), "HEIC", tile_size=128)),
}

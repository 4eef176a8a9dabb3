"""Decode a JPEG or PNG to (H, W, 3) uint8 pixels, with the bits of torchvision's ImageFolder and Resize."""

import hashlib
import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from pipeline.decode.faults import JPEG, PNG, fault_of_header
from pipeline.decode.geometry import fit, resized_size
from pipeline.decode.image_hash import image_hash
from pipeline.decode.jpeg import decode_jpeg
from pipeline.recipe import Color, Recipe

TINY_SIDE = 32  # pixels; images with a shorter side show hardly anything
BLANK_RANGE = 8  # levels; JPEG noise on an empty page has a smaller range

_SCALED = 2  # a scaled decode keeps sides at least this many times the size needed, as Pillow's thumbnails do

_OTHER_FORMATS = {
    b"GIF8": "a GIF",
    b"BM": "a BMP",
    b"II*\0": "a TIFF",
    b"MM\0*": "a TIFF",
    b"8BPS": "a Photoshop file",
    b"\0\0\x01\0": "an icon",
    b"\0\0\0\x0cjP": "a JPEG 2000",
    b"%PDF": "a PDF",
}
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Undecodable(Exception):
    """The bytes give no image; the message is the reason, fit for a person."""


class Decoded(NamedTuple):
    """An image ready for the recipe.

    Attributes:
        pixels_HWC: (H, W, 3) uint8 RGB of the recipe's size.
        notes: what is remarkable about the image.
        image_hash: the perceptual hash of the whole image, squashed, whatever the fit.
    """

    pixels_HWC: NDArray[np.uint8]
    notes: tuple[str, ...]
    image_hash: int


def decode(data: bytes, recipe: Recipe) -> Decoded:
    """Decode one image as `Image.open(...).convert("RGB")` does, and give it the recipe's shape.

    With `scaled_decode` the decoder may reduce a JPEG itself, by Pillow's `Image.draft`.

    Args:
        data: a whole JPEG or PNG file; the content decides, never a file name.
        recipe: how the image becomes a row.

    Raises:
        Undecodable: not an image, truncated, another format, too large, 16 bits a channel, or damaged.
        MemoryError: the decoder ran out of memory.
    """
    _check_format(data)
    with _strict_pillow():
        image = _open(data, recipe)
        notes = []
        if min(image.size) < TINY_SIDE:
            notes.append(f"tiny: {image.width} × {image.height} pixels")
        if image.format == "PNG" and getattr(image, "is_animated", False):
            notes.append("animated: the first frame is used")
        orientation = _orientation(image, data) if recipe.exif_rotate else 1
        scaled = recipe.scaled_decode and _scale(image, recipe)
        if recipe.background is not None and image.has_transparency_data:
            image = _over(recipe.background, image, data)
        decoded_HWC = None if scaled or orientation in _ORIENTATIONS else decode_jpeg(data, image)
        whole = _rgb(image, orientation, data) if decoded_HWC is None else decoded_HWC
        pixels_HWC = fit(whole, recipe)
        looks = image_hash(pixels_HWC if recipe.fit == "squash" else whole)
    if _is_blank(pixels_HWC):
        notes.append("blank: nearly one color all over")
    return Decoded(pixels_HWC, tuple(notes), looks)


@cache
def decoder_identity() -> str:
    """Digest the pixels to which this installation decodes the sample images of the package.

    A new Pillow that gives the same pixels is the same decoder: no cache becomes out of date.

    Returns:
        32 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for probe in sorted(files("pipeline.decode").joinpath("probes").iterdir(), key=lambda entry: entry.name):
        data = probe.read_bytes()
        for recipe in (Recipe(size=16), Recipe(size=64), Recipe(size=5, scaled_decode=True)):  # smaller, larger, scaled
            digest.update(decode(data, recipe).pixels_HWC.tobytes())
    return digest.hexdigest()[:32]


def _is_blank(pixels_HWC: NDArray[np.uint8]) -> bool:
    """Tell whether every channel stays within `BLANK_RANGE`; for most images a few pixels already show that not."""
    few, every = pixels_HWC[::16, ::16], pixels_HWC
    return all(int(np.ptp(part, axis=(0, 1)).max()) <= BLANK_RANGE for part in (few, every))


def _check_format(data: bytes) -> None:
    if data.startswith(PNG):
        if data[24:25] == b"\x10":  # IHDR's bit depth
            raise Undecodable("a 16-bit PNG, which convert('RGB') clips; convert it to 8 bits a channel first")
        return
    if data.startswith(JPEG):
        return
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        raise Undecodable("a WebP, not a JPEG or PNG")
    if data[4:8] == b"ftyp":
        raise Undecodable("a HEIF, AVIF or video file, not a JPEG or PNG")
    for magic, name in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise Undecodable(f"{name}, not a JPEG or PNG")
    raise Undecodable("not an image")


def _open(data: bytes, recipe: Recipe) -> Image.Image:
    """Open an image by its header alone; Pillow allocates no pixels before `load`."""
    limit = recipe.max_megapixels
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "MPO"))
    except MemoryError:
        raise
    except ValueError as error:  # Pillow refuses the image, for example for texts that unpack to megabytes
        raise Undecodable(_why_not(error, data)) from error
    except Exception as error:  # a header may make it raise nearly any type
        raise Undecodable(fault_of_header(data) or "not an image") from error
    if image.mode.startswith(("I", "F")):  # a PNG whose header is in the wrong position
        raise Undecodable(f"more than 8 bits a channel (Pillow's mode {image.mode})")
    if image.width * image.height > limit * 1_000_000:
        raise Undecodable(f"too large: {image.width} × {image.height} pixels, over {limit} megapixels")
    return image


def _orientation(image: Image.Image, data: bytes) -> int:
    if image.format == "PNG":  # its EXIF may follow the pixels: `getexif` decodes them; a failure must be reported
        _rgb(image, 1, data)
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF is common and does not affect the pixels
        return 1


def _scale(image: Image.Image, recipe: Recipe) -> bool:
    """Tell the decoder of a JPEG that it may reduce the image; return whether it will."""
    before = image.size
    height, width = resized_size(image.height, image.width, recipe)
    image.draft(None, (_SCALED * width, _SCALED * height))
    return image.size != before


def _over(background: Color, image: Image.Image, data: bytes) -> Image.Image:
    """Lay a transparent image over a color."""
    try:
        whole = Image.new("RGBA", image.size, (*background, 255))
        whole.alpha_composite(image.convert("RGBA"))
    except MemoryError:
        raise
    except Exception as error:  # as in `_rgb`
        raise Undecodable(_why_not(error, data)) from error
    return whole


def _rgb(image: Image.Image, orientation: int, data: bytes) -> Image.Image:
    """Decode the pixels with Pillow, and turn them by the number of EXIF's orientation."""
    try:
        rgb = image.convert("RGB")
    except MemoryError:
        raise
    except Exception as error:  # a decoder fed with damaged bytes raises nearly any type
        raise Undecodable(_why_not(error, data)) from error
    return rgb.transpose(_ORIENTATIONS[orientation]) if orientation in _ORIENTATIONS else rgb


def _why_not(error: Exception, data: bytes) -> str:
    text = str(error)
    if "truncated" in text or "Truncated" in text or isinstance(error, EOFError):
        return "truncated"
    return fault_of_header(data) or f"damaged: {text or type(error).__name__}"


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Set Pillow's process-wide switches as the recipe needs them, whatever other imports have set.

    Pillow's check for bombs only warns where ours refuses. It also warns of palettes with transparency, which
    `convert("RGB")` handles as documented. If several threads decode, the first sets the switches and the last
    restores them.
    """
    global _decoding
    with _switching:
        if _decoding == 0:
            _switches.enter_context(_switched())
        _decoding += 1
    try:
        yield
    finally:
        with _switching:
            _decoding -= 1
            if _decoding == 0:
                _switches.close()


_switching = threading.Lock()
_switches = ExitStack()
_decoding = 0


@contextmanager
def _switched() -> Iterator[None]:
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before

"""Decode an image to (H, W, 3) uint8 pixels, with the bits of torchvision's ImageFolder and Resize."""

import hashlib
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

from pipeline.decode.faults import Undecodable, undecodable
from pipeline.decode.formats import FORMATS, JPEG, NAMES, PNG, Format, recognize
from pipeline.decode.geometry import fit, image_box, resized_size
from pipeline.decode.image_hash import image_hash
from pipeline.decode.jpeg import decode_jpeg
from pipeline.decode.opening import note_on_frames, open_image
from pipeline.decode.resize import Box
from pipeline.recipe import Color, Recipe

TINY_SIDE = 32  # pixels; images with a shorter side show hardly anything
BLANK_RANGE = 8  # levels; JPEG noise on an empty page has a smaller range

_SCALED = 2  # a scaled decode keeps sides at least this many times the size needed, as Pillow's thumbnails do

_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = range(5, 9)  # orientations whose turn swaps height and width


class Decoded(NamedTuple):
    """An image ready for the recipe.

    Attributes:
        pixels_HWC: (H, W, 3) uint8 RGB of the recipe's size.
        notes: what is remarkable about the image.
        image_hash: the perceptual hash of the whole image, squashed, whatever the fit.
        format: what people call the format of the file, as "JPEG"; a camera's MPO is a JPEG.
        source_size: (height, width) in pixels that the file declares, before EXIF turning and fitting.
        box: the part of the row that the image fills; the rest is padded.
    """

    pixels_HWC: NDArray[np.uint8]
    notes: tuple[str, ...]
    image_hash: int
    format: str
    source_size: tuple[int, int]
    box: Box


def decode(data: bytes, recipe: Recipe) -> Decoded:
    """Decode one image as `Image.open(...).convert("RGB")` does, and give it the recipe's shape.

    With `scaled_decode` the decoder may reduce a JPEG itself, by Pillow's `Image.draft`.

    Args:
        data: a whole file of one of `pipeline.decode.formats`; the content decides, never a file name.
        recipe: how the image becomes a row.

    Raises:
        Undecodable: not an image, truncated, damaged, of another format, too large, or one that has no right 8-bit RGB
            here: 16 bits a channel, a CMYK TIFF.
        MemoryError: the decoder ran out of memory.
    """
    form = _format_of(data)
    try:
        with _strict_pillow():
            return _decode(data, form, recipe)
    except Undecodable as error:
        error.format = form.name
        raise


def read_kind(data: bytes, recipe: Recipe) -> tuple[str, tuple[int, int]]:
    """Return `format` and `source_size` of `Decoded` by the header of a file alone; no pixel is decoded.

    Raises:
        Undecodable: as `decode`, as far as the header shows it.
    """
    form = _format_of(data)
    with _strict_pillow():
        image = open_image(data, form, recipe.max_megapixels)
    return form.name, (image.height, image.width)


def _format_of(data: bytes) -> Format:
    form = recognize(data)
    if not isinstance(form, Format):
        raise Undecodable(f"{form}; only {NAMES} are read" if form else "not an image")
    return form


def _decode(data: bytes, form: Format, recipe: Recipe) -> Decoded:
    image = open_image(data, form, recipe.max_megapixels)
    source_size = image.height, image.width
    notes = []
    if min(image.size) < TINY_SIDE:
        notes.append(f"tiny: {image.width} × {image.height} pixels")
    if note := note_on_frames(image, form, data):
        notes.append(note)
    orientation = _orientation(image, form, data) if recipe.exif_rotate else 1
    scaled = recipe.scaled_decode and form == JPEG and _scale(image, recipe, orientation)
    if recipe.background is not None and image.has_transparency_data:
        image = _over(recipe.background, image, data)
    decoded_HWC = None if scaled or orientation in _ORIENTATIONS else decode_jpeg(data, image)
    whole = _rgb(image, orientation, data) if decoded_HWC is None else decoded_HWC
    pixels_HWC = fit(whole, recipe)
    looks = image_hash(pixels_HWC if recipe.fit == "squash" else whole)
    if _is_blank(pixels_HWC):
        notes.append("blank: nearly one color all over")
    height, width = whole.size[::-1] if isinstance(whole, Image.Image) else whole.shape[:2]
    box = image_box(height, width, recipe)
    return Decoded(pixels_HWC, tuple(notes), looks, form.name, source_size, box)


@cache
def decoder_identity(format: str) -> str:
    """Digest the pixels to which this installation decodes the sample images of a format in the package.

    A new Pillow that gives the same pixels is the same decoder: no cache becomes out of date. Where a format cannot be
    read here, as HEIC without its extra, the identity is empty: another one than any that reads it. So a file that
    failed for this reason is tried again as soon as the decoder is there, like all files whose decoder changed.

    Args:
        format: the name of a format, as in `Decoded`; empty for `earlier_decoder_identity`.

    Returns:
        32 hexadecimal digits, or nothing.
    """
    if not format:
        return earlier_decoder_identity()
    try:
        return _identity(next(form for form in FORMATS if form.name == format))
    except Undecodable:
        return ""


@cache
def earlier_decoder_identity() -> str:
    """Return the identity of the decoders of JPEG and PNG together, as earlier versions stored it in caches."""
    return _identity(JPEG, PNG)


def _identity(*formats: Format) -> str:
    suffixes = tuple(suffix for form in formats for suffix in form.suffixes)
    digest = hashlib.sha256()
    for probe in sorted(files("pipeline.decode").joinpath("probes").iterdir(), key=lambda entry: entry.name):
        if probe.name.endswith(suffixes):
            data = probe.read_bytes()
            for recipe in (Recipe(size=16), Recipe(size=64), Recipe(size=5, scaled_decode=True)):
                digest.update(decode(data, recipe).pixels_HWC.tobytes())
    return digest.hexdigest()[:32]


def _is_blank(pixels_HWC: NDArray[np.uint8]) -> bool:
    """Tell whether every channel stays within `BLANK_RANGE`; for most images a few pixels already show that not."""
    few, every = pixels_HWC[::16, ::16], pixels_HWC
    return all(int(np.ptp(part, axis=(0, 1)).max()) <= BLANK_RANGE for part in (few, every))


def _orientation(image: Image.Image, form: Format, data: bytes) -> int:
    """Return the orientation that is still to be applied: TIFFs and HEICs are upright once they are decoded."""
    if form != JPEG:  # a PNG's EXIF may follow its pixels: `getexif` decodes them; a failure must be reported
        _rgb(image, 1, data)
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # broken EXIF is common and does not affect the pixels
        return 1


def _scale(image: Image.Image, recipe: Recipe, orientation: int) -> bool:
    """Tell the decoder of a JPEG that it may reduce the image, before it is turned; return whether it will."""
    before = image.size
    if orientation in _ON_ITS_SIDE:
        width, height = resized_size(image.width, image.height, recipe)
    else:
        height, width = resized_size(image.height, image.width, recipe)
    image.draft(None, (_SCALED * width, _SCALED * height))
    return image.size != before


def _over(background: Color, image: Image.Image, data: bytes) -> Image.Image:
    """Lay a transparent image over a color."""
    transparent = _converted(image, "RGBA", data)
    whole = Image.new("RGBA", transparent.size, (*background, 255))
    whole.alpha_composite(transparent)
    return whole


def _rgb(image: Image.Image, orientation: int, data: bytes) -> Image.Image:
    """Decode the pixels with Pillow, and turn them by the number of EXIF's orientation."""
    rgb = _converted(image, "RGB", data)
    return rgb.transpose(_ORIENTATIONS[orientation]) if orientation in _ORIENTATIONS else rgb


def _converted(image: Image.Image, mode: str, data: bytes) -> Image.Image:
    try:
        return image.convert(mode)
    except Exception as error:
        raise undecodable(error, data) from error


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

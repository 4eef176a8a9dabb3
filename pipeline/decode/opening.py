"""Open images by their header alone, each with the decoder of its format; refuse those that would give wrong pixels."""

import ctypes
import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from PIL import Image

from pipeline.decode.faults import Undecodable, fault_of_header, undecodable
from pipeline.decode.formats import AVIF, GIF, HEIC, JPEG, PNG, TIFF, WEBP, Format

_SETTINGS: dict[Format, tuple[str, dict[str, Any]]] = {  # a module, and values of it while a file is opened
    AVIF: ("PIL.AvifImagePlugin", {"DEFAULT_MAX_THREADS": 1}),
    HEIC: (
        "pillow_heif.options",
        {"DECODE_THREADS": 0, "THUMBNAILS": False, "DEPTH_IMAGES": False, "AUX_IMAGES": False},
    ),
}
_WEBP_BYTES = 22  # a pixel, with two canvases that are allocated at the opening; measured
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else Python prints its errors, which are raised too
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL, _SAMPLE_FORMAT = 258, 277, 339  # tags of a TIFF


def open_image(data: bytes, form: Format, max_megapixels: int) -> Image.Image:
    """Open an image by its header; its pixels are decoded when they are first asked for.

    Args:
        data: a whole file.
        form: its format.
        max_megapixels: a larger image is refused.

    Raises:
        Undecodable: no such image, too large, or one whose pixels Pillow would clip, or convert without its profile.
        MemoryError: there is not enough.
    """
    if form == WEBP:
        width, height = _canvas(data)
        _check_size(width, height, max_megapixels)
        np.empty(_WEBP_BYTES * width * height, np.uint8)  # without memory, its decoder would call the file damaged
    if form == HEIC and (fault := fault_of_header(data)):  # its decoder leaves missing tiles grey
        raise Undecodable(fault)
    try:
        image = _opened(data, form)
    except (MemoryError, ValueError) as error:  # refused, for example for texts that unpack to megabytes
        raise undecodable(error, data) from error
    except Undecodable:
        raise
    except Exception as error:  # a header may make it raise nearly any type
        if "unknown pixel mode" in str(error):
            why = f"{form.with_article} of channels that are not read; convert it to RGB first"
            raise Undecodable(fault_of_header(data) or why) from error
        if form in (JPEG, PNG):
            raise Undecodable(fault_of_header(data) or "not an image") from error
        raise undecodable(error, data) from error
    if reason := _reason_against(image, form, data):
        raise Undecodable(reason)
    _check_size(*image.size, max_megapixels)
    return image


def note_on_frames(image: Image.Image, form: Format, data: bytes) -> str:
    """Return a note on frames or pages that are not used; empty for a single image, and for a camera's MPO.

    Args:
        image: as `open_image` returns it.
        form: its format.
        data: the whole file.
    """
    if form == JPEG:
        return ""
    if form == TIFF:
        return "pages: the first of several is used" if image.tag_v2.next else ""  # type: ignore[attr-defined]
    if not (_another_frame(data) if form == GIF else getattr(image, "is_animated", False)):
        return ""
    return "pages: the primary one of several is used" if form == HEIC else "animated: the first frame is used"


def _opened(data: bytes, form: Format) -> Image.Image:
    """Open a file by the class of its format. `Image.open` would import the decoders of all formats, and try them."""
    try:
        module = import_module(form.module)
    except ImportError as error:
        raise Undecodable(f"{form.with_article}; pip install pillow-heif (extra heic) reads it") from error
    if not getattr(module, "SUPPORTED", True):
        raise Undecodable(f"{form.with_article}; this Pillow is built without it, those of pip read it")
    if form == TIFF:
        _silence_libtiff()
    with _set(*_SETTINGS.get(form, ("", {}))):
        image: Image.Image = getattr(module, f"{form.plugin}ImageFile")(io.BytesIO(data))
    return image


@cache
def _silence_libtiff() -> None:
    """Keep libtiff from printing its errors to stderr; Pillow raises them."""
    from PIL import _imaging

    with suppress(AttributeError):  # a Pillow that hides its libtiff
        ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler(None)


@contextmanager
def _set(module: str, values: dict[str, Any]) -> Iterator[None]:
    """Set values of a module that are read while an image is opened.

    A worker has no use for a decoder's threads: every core has a worker already.
    """
    if not module:
        yield
        return
    target = import_module(module)
    with _setting:
        before = {name: getattr(target, name) for name in values}
        try:
            vars(target).update(values)
            yield
        finally:
            vars(target).update(before)


_setting = threading.Lock()


def _another_frame(data: bytes) -> bool:
    """Look for a second frame with another decoder, so that the first one's pixels are out of question."""
    try:
        return bool(_opened(data, GIF).is_animated)  # type: ignore[attr-defined]
    except MemoryError:
        raise
    except Exception:  # whatever follows the first frame is damaged, and not used
        return False


def _check_size(width: int, height: int, max_megapixels: int) -> None:
    if width * height > max_megapixels * 1_000_000:
        raise Undecodable(f"too large: {width} × {height} pixels, over {max_megapixels} megapixels")


def _canvas(data: bytes) -> tuple[int, int]:
    """Return the (width, height) that a WebP declares; (0, 0) where it is too damaged to be opened."""
    if data[12:16] == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _reason_against(image: Image.Image, form: Format, data: bytes) -> str:
    """Say why the pixels of an image would come out wrong as 8-bit RGB; empty where they do not."""
    if form == PNG and data[24:25] == b"\x10":  # IHDR's bit depth
        return "a 16-bit PNG, which convert('RGB') clips; convert it to 8 bits a channel first"
    if image.mode.startswith(("I", "F")):
        return f"more than 8 bits a channel (Pillow's mode {image.mode}); convert it to 8 bits a channel first"
    if form == TIFF:
        tags = image.tag_v2  # type: ignore[attr-defined]
        if max(tags.get(_BITS_PER_SAMPLE) or (1,)) > 8:
            return "a TIFF with more than 8 bits a channel; convert it to 8 bits a channel first"
        if set(tags.get(_SAMPLE_FORMAT) or (1,)) != {1}:
            return "a TIFF of signed numbers or fractions; convert it to 8 bits a channel first"
        if image.mode in ("CMYK", "LAB"):
            return f"a {image.mode} TIFF; convert it to RGB first"
        if (channels := tags.get(_SAMPLES_PER_PIXEL, 1)) > 4:
            return f"a TIFF of {channels} channels"
    return ""

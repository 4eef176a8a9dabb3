"""Recognize image formats by their first bytes, and name what cannot become a right row of 8-bit RGB."""

import struct
from typing import NamedTuple

from PIL import Image


class Format(NamedTuple):
    """A format that is read.

    Attributes:
        name: what people call it, as "WebP"; also how a cache says which formats it holds.
        readers: Pillow's names of the decoders that may open it; no other is tried.
    """

    name: str
    readers: tuple[str, ...]


JPEG = Format("JPEG", ("JPEG", "MPO"))
PNG = Format("PNG", ("PNG",))
GIF = Format("GIF", ("GIF",))
BMP = Format("BMP", ("BMP",))
TIFF = Format("TIFF", ("TIFF",))
WEBP = Format("WebP", ("WEBP",))
AVIF = Format("AVIF", ("AVIF",))
HEIC = Format("HEIC", ("HEIF",))
FORMATS = (JPEG, PNG, GIF, BMP, TIFF, WEBP, AVIF, HEIC)
SUFFIXES = {
    JPEG: (".jpg", ".jpeg", ".jpe", ".jfif"),
    PNG: (".png",),
    GIF: (".gif",),
    BMP: (".bmp", ".dib"),
    TIFF: (".tif", ".tiff"),
    WEBP: (".webp",),
    AVIF: (".avif",),
    HEIC: (".heic", ".heif"),
}

_MAGIC = {
    b"\xff\xd8\xff": JPEG,
    b"\x89PNG\r\n\x1a\n": PNG,
    b"GIF87a": GIF,
    b"GIF89a": GIF,
    b"BM": BMP,
    b"II*\0": TIFF,
    b"MM\0*": TIFF,
    b"II+\0": TIFF,
    b"MM\0+": TIFF,
}
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), AVIF),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), HEIC),
}
_OTHERS = {
    b"8BPS": "a Photoshop file",
    b"\0\0\x01\0": "an icon",
    b"\0\0\0\x0cjP": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000",
    b"\0\0\0\x0cJXL ": "a JPEG XL",
    b"\xff\x0a": "a JPEG XL",
    b"%PDF": "a PDF",
}
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # tags of a TIFF


def recognize(data: bytes) -> Format | str:
    """Return the format of a file by its content, or what else it is, for people: "a PDF", "not an image"."""
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    return next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "not an image")


def _of_brands(data: bytes) -> Format | str:
    """Read the brands of an ISO media file: the major one, then those it is compatible with."""
    (length,) = struct.unpack(">I", data[:4])
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, min(length, 256), 4))]
    kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return AVIF if AVIF in kinds else kinds[0] if kinds else "a video or another ISO media file"


def reason_against(image: Image.Image, data: bytes) -> str | None:
    """Say why the pixels of an opened image would come out wrong as 8-bit RGB; None where they do not.

    Pillow clips or cuts deeper pixels without a word, and converts CMYK without the profile that it needs.

    Args:
        image: as `Image.open` returns it, not yet loaded.
        data: the whole file.
    """
    if image.format == "PNG" and data[24:25] == b"\x10":  # the bit depth of IHDR
        return "a 16-bit PNG, which convert('RGB') clips; convert it to 8 bits a channel first"
    if image.mode.startswith(("I", "F")):
        return f"more than 8 bits a channel (Pillow's mode {image.mode}); convert it to 8 bits a channel first"
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        if max(tags.get(_BITS_PER_SAMPLE) or (1,)) > 8:
            return "a TIFF with more than 8 bits a channel; convert it to 8 bits a channel first"
        if image.mode in ("CMYK", "LAB"):
            return f"a {image.mode} TIFF; convert it to RGB first"
    return None


def has_more_frames(image: Image.Image) -> bool:
    """Say whether an opened image is the first of several frames or pages. It must not be decoded afterwards."""
    if image.format == "TIFF":
        return bool(image.tag_v2.next)  # type: ignore[attr-defined]
    return image.format != "MPO" and bool(getattr(image, "is_animated", False))

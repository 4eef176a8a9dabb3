"""Declare the image formats that are read: names, suffixes, first bytes, and the class that opens them."""

import struct
from typing import NamedTuple


class Format(NamedTuple):
    """A format of image files, and the class that opens them.

    Attributes:
        name: what people call it, as "WebP".
        suffixes: of its files, in lower case, with the dot.
        plugin: of Pillow, as "WebP" for `PIL.WebPImagePlugin.WebPImageFile`.
        package: that has the class; empty for the module of Pillow.
    """

    name: str
    suffixes: tuple[str, ...]
    plugin: str
    package: str = ""

    @property
    def with_article(self) -> str:
        """The name with its article: "a TIFF", "an AVIF"."""
        return f"{'an' if self.name == 'AVIF' else 'a'} {self.name}"

    @property
    def module(self) -> str:
        """The module that has the class; it is imported when the first file comes."""
        return self.package or f"PIL.{self.plugin}ImagePlugin"

    @property
    def pillow_name(self) -> str:
        """What Pillow calls the format, as "WEBP"."""
        return self.plugin.upper()


JPEG = Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), "Jpeg")  # also the MPO of cameras
PNG = Format("PNG", (".png",), "Png")
GIF = Format("GIF", (".gif",), "Gif")
BMP = Format("BMP", (".bmp", ".dib"), "Bmp")
TIFF = Format("TIFF", (".tif", ".tiff"), "Tiff")
WEBP = Format("WebP", (".webp",), "WebP")
AVIF = Format("AVIF", (".avif",), "Avif")
HEIC = Format("HEIC", (".heic", ".heif", ".hif"), "Heif", "pillow_heif")
FORMATS = (JPEG, PNG, GIF, BMP, TIFF, WEBP, AVIF, HEIC)
NAMES = f"{', '.join(form.name for form in FORMATS[:-1])} and {FORMATS[-1].name}"

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
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"), HEIC),
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


def recognize(data: bytes) -> Format | str:
    """Return the format of a file by its content, or what else it is, for people: "a PDF"; empty if not known."""
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WEBP
    if data[4:8] == b"ftyp":
        return _of_brands(data)
    return next((name for magic, name in _OTHERS.items() if data.startswith(magic)), "")


def _of_brands(data: bytes) -> Format | str:
    """Read the brands of an ISO media file: the major one, then those it is compatible with."""
    (length,) = struct.unpack(">I", data[:4])
    brands = [data[8:12], *(data[i : i + 4] for i in range(16, min(length, 256), 4))]
    kinds = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
    return AVIF if AVIF in kinds else kinds[0] if kinds else "a video or another ISO media file"

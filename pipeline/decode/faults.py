"""Say why a decoder does not open or decode an image, from its error and from the image's own header."""

import re
import struct
import zlib

from pipeline.decode.formats import AVIF, HEIC, JPEG, PNG, TIFF, WEBP, recognize

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG's frame header
_TIFF_BYTES = {3: 2, 4: 4, 5: 8, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}  # by type, else 1
_TIFF_NUMBERS = {3: "H", 4: "I", 16: "Q"}  # unsigned types
_TIFF_PIXELS = ((273, 279), (324, 325))  # tags of strips and of tiles: offset, bytes
_PNG_CHUNKS = 8  # byte of the first one
_READ = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # those that libjpeg decodes


class Undecodable(Exception):
    """The bytes give no image; the message is the reason, fit for a person.

    Attributes:
        format: the name of the format as in `Decoded`; empty where the bytes are of none.
    """

    def __init__(self, reason: str, format: str = "") -> None:
        super().__init__(reason)
        self.format = format


def undecodable(error: Exception, data: bytes) -> Undecodable:
    """Return the reason for a decoder's error. A decoder fed with damaged bytes raises nearly any type.

    Args:
        error: of Pillow, or of a decoder in it.
        data: the whole file.

    Raises:
        MemoryError: the error says that memory is short, which is no fault of the image.
    """
    text = str(error).strip()
    if isinstance(error, MemoryError) or _NO_MEMORY.search(text):
        raise error if isinstance(error, MemoryError) else MemoryError(text) from error
    read_beyond = isinstance(error, EOFError) or isinstance(error.__cause__, (EOFError, IndexError, struct.error))
    if read_beyond or _ENDS_EARLY.search(text):
        return Undecodable("truncated")
    if text == "not identified by this driver":  # Pillow's words
        text = "a side of 0 pixels, or no channels"
    return Undecodable(fault_of_header(data) or f"damaged: {text or type(error).__name__}")


_NO_MEMORY = re.compile("out of memory|memory allocation error: (?!security|invalid)", re.IGNORECASE)  # AVIF, HEIC
_ENDS_EARLY = re.compile("truncated|unexpected end of file", re.IGNORECASE)  # Pillow and libavif, libheif


def fault_of_header(data: bytes) -> str:
    """Name the fault in the header of an image; empty if it has no visible one. A cut header of a JPEG or PNG is none.

    Args:
        data: a whole file.
    """
    form = recognize(data)
    if form == PNG:
        return _fault_of_png(data)
    if form == JPEG:
        return _fault_of_jpeg(data)
    if form == TIFF:
        return _fault_of_tiff(data)
    if form == WEBP:
        return "truncated" if int.from_bytes(data[4:8], "little") + 8 > len(data) else ""
    return _fault_of_boxes(data) if form in (AVIF, HEIC) else ""


def _fault_of_boxes(data: bytes) -> str:
    """Follow the boxes of an AVIF or HEIC to the one with the pixels. Some cameras append what is no box."""
    place = 0
    while len(head := data[place : place + 16]) >= 8:
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:], "big")
        if kind in (b"meta", b"mdat") and place + length > len(data):
            return "truncated"
        if length < 8:  # 0: to the end of the file
            return ""
        place += length
    return ""


def _fault_of_tiff(data: bytes) -> str:
    """Look for what a TIFF declares beyond its end: its directory, a value in it, pixels."""
    order = "<" if data.startswith(b"II") else ">"
    start, offset, count = (8, "Q", "Q") if b"+" in data[2:4] else (4, "I", "H")
    values: dict[int, tuple[int, ...]] = {}
    try:
        (place,) = struct.unpack_from(order + offset, data, start)
        (entries,) = struct.unpack_from(order + count, data, place)
        place += struct.calcsize(order + count)
        for _ in range(entries):
            tag, kind, number = struct.unpack_from(f"{order}HH{offset}", data, place)
            value = place + struct.calcsize(f"{order}HH{offset}")
            place = value + struct.calcsize(order + offset)
            if number * _TIFF_BYTES.get(kind, 1) > place - value:
                (value,) = struct.unpack_from(order + offset, data, value)
            if value + number * _TIFF_BYTES.get(kind, 1) > len(data):
                return "truncated"
            if kind in _TIFF_NUMBERS:
                values[tag] = struct.unpack_from(f"{order}{number}{_TIFF_NUMBERS[kind]}", data, value)
    except (struct.error, OverflowError):  # a place of a BigTIFF may have 64 bits
        return "truncated"
    pixels = [zip(values.get(a, ()), values.get(b, ()), strict=False) for a, b in _TIFF_PIXELS]
    return "truncated" if any(place + length > len(data) for parts in pixels for place, length in parts) else ""


def _fault_of_png(data: bytes) -> str:
    place = _PNG_CHUNKS
    while len(head := data[place : place + 8]) == 8:
        length, kind = struct.unpack(">I4s", head)
        chunk, check = data[place + 4 : place + 8 + length], data[place + 8 + length : place + 12 + length]
        if len(check) < 4 or kind == b"IDAT":
            break
        if zlib.crc32(chunk) != int.from_bytes(check, "big"):
            return f"damaged: wrong checksum of its chunk {kind.decode('ascii', 'backslashreplace')}"
        if kind == b"IHDR" and length == 13:
            width, height = struct.unpack(">II", chunk[4:12])
            if not width or not height:
                return f"damaged: its header says {width} × {height} pixels"
        place += 12 + length
    return ""


def _fault_of_jpeg(data: bytes) -> str:
    place = 2
    while len(data) >= place + 4 and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # a filler before a marker
            place += 1
            continue
        if marker in _FRAMES and len(data) >= place + 10:
            return _fault_of_frame(marker, data[place + 4 : place + 10])
        place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return ""


def _fault_of_frame(marker: int, frame: bytes) -> str:
    bits, height, width, channels = struct.unpack(">BHHB", frame)
    if bits != 8:
        return f"a JPEG of {bits} bits a channel; convert it to 8 bits first"
    if not width or not height:
        return f"damaged: its header says {width} × {height} pixels"
    if marker not in _READ:
        return "a lossless or hierarchical JPEG, which no decoder here reads"
    return "" if channels in (1, 3, 4) else f"a JPEG of {channels} channels"

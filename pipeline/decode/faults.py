"""Say why Pillow does not open or decode an image, from the image's own header."""

import struct
import zlib

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff"

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers of a JPEG's frame header
_READ = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # those that libjpeg decodes


def fault_of_header(data: bytes) -> str:
    """Name the fault in the header of a JPEG or PNG; empty if it ends early or has no visible fault.

    Args:
        data: a whole file.
    """
    return _fault_of_png(data) if data.startswith(PNG) else _fault_of_jpeg(data)


def _fault_of_png(data: bytes) -> str:
    place = len(PNG)
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

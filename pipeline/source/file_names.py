"""Tell images, archives, tables and a system's own folders by their names."""

import os

from pipeline.decode.formats import FORMATS
from pipeline.text import show_path

SUFFIXES = tuple(os.fsencode(suffix) for form in FORMATS for suffix in form.suffixes)
ARCHIVE_SUFFIXES = (b".tar", b".zip")
SIDECAR_SUFFIXES = (b".cls", b".json", b".txt")  # files beside an image that may hold its label or caption
TABLE_SUFFIXES = (b".csv", b".tsv", b".json", b".jsonl", b".ndjson", b".parquet")
NAME_FILES = (b"classes.csv", b"LOC_synset_mapping.txt")
SOLUTION = b"LOC_val_solution.csv"  # the classes of ImageNet's validation images
KNOWN_TABLES = (*NAME_FILES, SOLUTION)

_SYSTEM_FOLDERS = {
    b"@eadir",
    b"network trash folder",
    b"temporary items",
    b"@recycle",
    b"@recently-snapshot",
    b"#recycle",
    b"#snapshot",
    b"$recycle.bin",
    b"recycler",
    b"system volume information",
    b"lost+found",
}  # made by network storage, Windows and file systems: thumbnails, deleted files, fragments
_OTHER_FORMATS = {
    "JPEG XL": ".jxl",
    "JPEG 2000": ".jp2",
    "Photoshop": ".psd",
    "SVG": ".svg",
    "PPM": ".ppm",
    "PGM": ".pgm",
    "raw": ".dng .cr2 .nef .arw",
}


def hidden_folder(name: bytes) -> str:
    """Return why a folder's name says that nobody put images there; empty where it does not."""
    if name.startswith(b".") or name == b"__MACOSX":
        return "hidden folder"
    return f"system folder {show_path(name)}" if name.lower() in _SYSTEM_FOLDERS else ""


def not_an_image_name(name: bytes) -> str:
    """Return why a file's name is not that of an image; empty where it is."""
    if name.startswith(b"."):
        return "hidden file"
    suffix = suffix_of(name)
    if suffix in SUFFIXES:
        return ""
    return f"suffix {show_path(suffix)}" if suffix else "no suffix"


def suffix_of(name: bytes) -> bytes:
    """Return a file name's suffix in lower case, with the dot; empty without one."""
    return os.path.splitext(name)[1].lower()


def other_formats(left_out: "dict[str, int]") -> dict[str, int]:
    """Count the images in formats that are not read, by format, of files left out by reason."""
    counts = {
        name: sum(left_out.get(f"suffix {suffix}", 0) for suffix in suffixes.split())
        for name, suffixes in _OTHER_FORMATS.items()
    }
    return {name: count for name, count in counts.items() if count}

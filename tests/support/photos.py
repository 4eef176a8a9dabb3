"""Draw small real JPEGs and write them into class folders."""

import time
from pathlib import Path

import numpy as np
from PIL import Image

PHOTOS = {
    "1": {
        "n03874293_7.JPEG": (64, 48),
        "n03874293_43.JPEG": (40, 97),
        "n03874293_775.JPEG": (120, 80),
        "n03874293_1030.JPEG": (53, 53),
    },
    "2": {
        "n01740131_12.JPEG": (101, 45),
        "n01740131_300.JPEG": (77, 119),
        "n01740131_4405.JPEG": (48, 64),
        "n03874293_775.JPEG": (90, 110),  # a name that class 1 has too
    },
}


SIZE = 64


def textured(width: int, height: int, seed: int) -> Image.Image:
    """Draw a picture with structure at every scale, as photographs have; another seed, another picture."""
    rng = np.random.default_rng(seed)
    levels = [
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for side in (2, 5, 13, 31)
    ]
    weights = np.array([0.45, 0.3, 0.15, 0.1])[:, None, None, None]
    return Image.fromarray((weights * np.stack([np.asarray(level) for level in levels])).sum(0).astype(np.uint8))


def save_jpeg(path: Path, width: int, height: int, seed: int, quality: int = 85) -> None:
    """Write such a picture as a JPEG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    textured(width, height, seed).save(path, "JPEG", quality=quality)


def make_photos(folder: Path) -> Path:
    """Write `PHOTOS` into a folder, 4 pictures a class, each another; the same bytes every time."""
    images = [(class_id, name, size) for class_id, names in PHOTOS.items() for name, size in names.items()]
    for seed, (class_id, name, (width, height)) in enumerate(images):
        save_jpeg(folder / class_id / name, width, height, seed)
    return folder


def settle(photos: Path) -> None:
    """Wait until files are old enough for their stat data to be trusted; the time of last change cannot be set."""
    newest = max(path.stat().st_ctime for path in photos.rglob("*"))
    time.sleep(max(0.0, newest + 2.05 - time.time()))


def picture(path: Path, seed: int = 0) -> Path:
    save_jpeg(path, 40, 40, seed)
    return path


HOSTILE_NAMES = (
    "\"><img src='http:x' onerror=alert(1)>.jpg",
    "\u202egpj.exe.jpg",  # would turn the text after it around
    "שלום.jpg",
    "long" * 50 + ".jpg",
    "tab\t\x1b[2J\x7f.jpg",
    "{{ 7*7 }} & 'quoted' %s.jpg",
)
HOSTILE_CLASSES = ("<script>alert(1)<", "\u202e‮\"' onload=alert(1) " + "x" * 90)


def make_hostile_photos(folder: Path) -> Path:
    """Write photos whose names and classes would do harm on a page that believes them."""
    for seed, (class_id, name) in enumerate((c, n) for c in HOSTILE_CLASSES for n in HOSTILE_NAMES):
        save_jpeg(folder / class_id / name, 60 + seed, 60, seed)
    (folder / HOSTILE_CLASSES[0] / "<b>broken</b\x1b>.jpg".replace("/", "")).write_bytes(b"no image")
    return folder

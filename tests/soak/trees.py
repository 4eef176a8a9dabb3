"""Small trees of photographs for the soak suites, and what stands beside a cache of one."""

import io
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.format.reader import CacheReader
from pipeline.recipe import Recipe

MAY_STAY = ("", ".lock", ".stat")
RECIPE = Recipe(size=16)


def jpeg(seed: int, side: int = 16) -> bytes:
    """Return a small JPEG; another seed, another picture."""
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(cells).resize((side + seed % 5, side), Image.Resampling.BICUBIC).save(file, "JPEG")
    return file.getvalue()


def plant(root: Path, images: int, side: int = 16) -> Path:
    """Make a source of three classes with `images` photographs and, among them, one that does not decode.

    The broken one comes early, so that publishing has to move the rows behind it.
    """
    for number in range(images):
        place = root / str(1 + number % 3) / f"{number:04d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(jpeg(number, side))
    (root / "1" / "0001-broken.jpg").write_bytes(jpeg(1, side)[:-60])
    return root


def plant_changed(root: Path, before: Path) -> Path:
    """Copy a source of `plant` and change it: one photograph each added, changed, removed, renamed and moved."""
    shutil.copytree(before, root)
    files = sorted((root / "2").iterdir())
    files[0].write_bytes(jpeg(1000))
    files[1].rename(files[1].with_name("renamed.jpg"))
    files[2].rename(root / "3" / files[2].name)
    sorted((root / "1").iterdir())[-1].unlink()
    (root / "1" / "0000-added.jpg").write_bytes(jpeg(1001))
    return root


def content(path: Path) -> bytes | None:
    """Return a file's bytes, None where there is no file."""
    return path.read_bytes() if path.exists() else None


def left_over(cache: Path) -> list[str]:
    """List what stands beside a cache and should not."""
    allowed = {cache.name + suffix for suffix in MAY_STAY}
    return sorted(entry.name for entry in cache.parent.iterdir() if entry.name not in allowed)


def photograph(seed: int) -> bytes:
    """Return a small JPEG of one of several kinds: baseline, progressive, grey, with restarts, 4:4:4."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8))
    picture = cells.resize((33 + seed % 20, 40 + seed % 13), Image.Resampling.BICUBIC)
    kinds: list[dict[str, int | bool]] = [{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}]
    file = io.BytesIO()
    (picture.convert("L") if seed % 5 == 4 else picture).save(file, "JPEG", **kinds[seed % 4])
    return file.getvalue()


def rows_of(path: Path) -> dict[str, bytes]:
    reader = CacheReader(path)
    return {name.decode(): reader.images[row].tobytes() for row, name in enumerate(reader.table("filenames").tolist())}

"""What --scaled-decode gains on photographs as large as a camera's, and how far its pixels are from the exact ones."""

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.dataset import Workplace
from benchmarks.tables import Table, compare
from benchmarks.timing import interleave, seconds
from pipeline import TensorCache, build_cache

SIZE = (3000, 2250)
IMAGES = 64
EXACT, SCALED = "ours, exact", "ours, --scaled-decode"


def measure(work: Workplace) -> list[Table]:
    """Compare builds and pixels."""
    photos = enlarge(work.source, work.folder / "large", work.scaled(IMAGES, 8))
    paths = {EXACT: work.folder / "exact.h5", SCALED: work.folder / "scaled.h5"}
    work.say("scaled decoding")
    measures = {name: partial(rate, photos, path, name == SCALED) for name, path in paths.items()}
    measured = interleave(measures, work.rounds)
    title = f"Building from JPEGs of {SIZE[0]} × {SIZE[1]} pixels, images/s"
    return [compare(title, {"built": measured}, {"× exact": (EXACT,)}), differences(*paths.values())]


def enlarge(source: Path, target: Path, count: int) -> Path:
    """Write some images of a source as large JPEGs, a class a folder."""
    images = [path for path in sorted(source.glob("*/*")) if path.suffix.lower() in (".jpg", ".jpeg")]
    for path in images[:: max(1, len(images) // count)][:count]:
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            large = image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC)
        large.save(target / path.parent.name / path.name, "JPEG", quality=90)
    return target


def rate(photos: Path, path: Path, scaled: bool) -> float:
    """Build once more, and return images/s."""
    build = partial(build_cache, photos, path, dtype="uint8", scaled_decode=scaled, rebuild=True)
    spent = seconds(build)
    return TensorCache(path).num_images / spent


def differences(exact: Path, scaled: Path) -> Table:
    """Compare the pixels of two caches of the same images."""
    levels = [TensorCache(path).images.numpy().astype(np.int16) for path in (exact, scaled)]
    distance = np.abs(levels[0] - levels[1])
    table = Table("Difference of the pixels, in levels of 255", ("mean", "99 % are at most", "largest"))
    table.add(SCALED, f"{distance.mean():.2f}", f"{np.quantile(distance, 0.99):.0f}", str(distance.max()))
    return table

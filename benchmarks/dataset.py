"""What is measured on: a source replicated to a number of images, its caches, and caches whose rows are drawn."""

import os
from collections.abc import Callable
from functools import cached_property
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from benchmarks.peers import Images
from pipeline import build_cache
from pipeline.build.image_table import DONE, ImageTable
from pipeline.build.partial import PartialBuild
from pipeline.build.stat_cache import write_stats
from pipeline.format.header import IMAGES_OFFSET
from pipeline.format.reader import CacheReader, row_hash
from pipeline.recipe import Fit, Recipe, StoredType
from pipeline.source.manifest import Manifest
from pipeline.source.packed import PackedNames
from pipeline.source.reader import Stat
from pipeline.source.scan import scan_source
from pipeline.system import files

FULL = 9216  # images of a full measurement; what has a size of its own shrinks with --images below it


class Workplace:
    """A folder of everything that is measured, made when it is first asked for.

    Args:
        folder: where it is made; the caller deletes it.
        source: a folder of photographs, a class a folder.
        images: to how many it is replicated.
        rounds: how often everything is measured.
        say: hears what is being made.
        weights: a file of weights of a pretrained network, or None.
    """

    def __init__(
        self,
        folder: Path,
        source: Path,
        images: int,
        rounds: int,
        say: Callable[[str], None],
        weights: Path | None = None,
    ) -> None:
        self.folder = folder
        self.source = source
        self.images = images
        self.rounds = rounds
        self.say = say
        self.weights = weights

    def scaled(self, count: int, least: int = 1) -> int:
        """Shrink a size as `images` is smaller than a full measurement."""
        return max(least, round(count * min(1.0, self.images / FULL)))

    @cached_property
    def photos(self) -> Path:
        """The source, replicated by links."""
        return replicate(self.source, self.folder / "photos", self.images)

    @cached_property
    def float32(self) -> Path:
        """Its cache."""
        return self._cache("float32")

    @cached_property
    def uint8(self) -> Path:
        """The same, 8-bit."""
        return self._cache("uint8")

    def _cache(self, dtype: StoredType) -> Path:
        self.say(f"building the {dtype} cache of {self.images:,} images")
        path = self.folder / f"{dtype}.h5"
        build_cache(self.photos, path, dtype=dtype)
        return path


def replicate(source: Path, target: Path, images: int) -> Path:
    """Link the images of a source, round and round, until there are `images` of them."""
    manifest = scan_source(source)
    order = np.random.default_rng(0).permutation(len(manifest.names)).tolist()  # any number of them has every class
    for place, candidate in enumerate(islice(cycle(order), images)):
        found = Path(os.fsdecode(manifest.path(candidate))).absolute()
        link = target / os.fsdecode(manifest.class_folders[manifest.labels[candidate]]) / f"{place:07d}{found.suffix}"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(found)
    return target


class Photographs(Images):
    """Index -> ((S, S, 3) uint8, label), decoded as anybody does it: Pillow, RGB, bilinear.

    Args:
        source: a folder of photographs, a class a folder.
        size: S.
        fit: how they become squares, as `build_cache` has it.
    """

    def __init__(self, source: Path, size: int = 224, fit: Fit = "squash") -> None:
        manifest = scan_source(source)
        self.paths = [manifest.path(candidate) for candidate in range(len(manifest.names))]
        self.labels = manifest.labels.tolist()
        self.size = size
        self.fit = fit

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        with Image.open(os.fsdecode(self.paths[index])) as image:
            resized = self._fitted(image.convert("RGB"))
        return np.asarray(resized), self.labels[index]

    def _fitted(self, image: Image.Image) -> Image.Image:
        if self.fit == "pad":
            return ImageOps.pad(image, (self.size, self.size), Image.Resampling.BILINEAR, (128, 128, 128))
        if self.fit == "squash":
            return image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        shorter, side = min(image.size), int(self.size / 0.875)
        image = image.resize((side * image.width // shorter, side * image.height // shorter), Image.Resampling.BILINEAR)
        left, top = ((whole - self.size) // 2 for whole in image.size)
        return image.crop((left, top, left + self.size, top + self.size))


class StoredPixels(Images):
    """The same pixels out of a uint8 cache, where only reading is measured and decoding them again would take long."""

    def __init__(self, cache: Path) -> None:
        self.reader = CacheReader(cache)
        self.labels = self.reader.table("labels").tolist()

    def __len__(self) -> int:
        return self.reader.num_images

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return np.ascontiguousarray(self.reader.images[index].transpose(1, 2, 0)), self.labels[index]

    def __reduce__(self) -> tuple[type["StoredPixels"], tuple[Path]]:
        return StoredPixels, (self.reader.path,)


def invented_manifest(rows: int, classes: int = 2) -> Manifest:
    """Name images that do not exist, as many a class."""
    counts = np.bincount(np.arange(rows) % classes, minlength=classes)
    return Manifest(
        Path("drawn"),
        class_ids=list(range(classes)),
        class_folders=[b"%d" % label for label in range(classes)],
        class_names=[""] * classes,
        labels=np.repeat(np.arange(classes, dtype=np.int32), counts),
        names=PackedNames(
            b"n%08d_%07d.JPEG" % (label, i) for label, count in enumerate(counts.tolist()) for i in range(count)
        ),
        stats=np.full((rows, len(Stat._fields)), -1, np.int64),
    )


def draw_cache(
    path: Path, manifest: Manifest, recipe: Recipe, sha256: bytes | None = None, empty: bool = False
) -> Path:
    """Write a cache whose rows are drawn instead of decoded, through the project's own writer.

    Args:
        path: the cache.
        manifest: gives names, classes and stat data.
        recipe: gives size and dtype.
        sha256: of every source file; by default each has another.
        empty: leave every row a hole of zeros: the file has its full size, and the disk next to nothing to do.
    """
    images = ImageTable(manifest)
    rows = len(manifest.names)
    random = np.random.default_rng(1)
    unfinished = PartialBuild(path, recipe)
    unfinished.fd = files.create(unfinished.building)
    unfinished.rows = np.arange(rows)
    try:
        if empty:
            images.row_hash[:] = row_hash(np.zeros(recipe.row_shape, recipe.dtype))
        else:
            _draw_rows(unfinished.fd, images, recipe)
        images.source_sha256[:] = np.frombuffer(sha256 or random.bytes(32 * rows), np.uint8).reshape(-1, 32)
        images.source_size[:], images.source_format[:] = (375, 500), b"JPEG"
        images.image_hash[:] = random.integers(0, 2**64, rows, np.uint64)
        images.state[:] = DONE
        header = unfinished.publish(images)
    finally:
        unfinished.close()
    write_stats(path, header, manifest.stats)
    return path


def _draw_rows(fd: int, images: ImageTable, recipe: Recipe, block: int = 2048) -> None:
    """Fill the rows with noise, each marked by its number in its first 8 bytes."""
    width = recipe.row_bytes
    noise = np.random.default_rng(0).random((block, width // np.dtype(recipe.dtype).itemsize), np.float32)
    drawn = (noise * 255).astype(np.uint8) if recipe.dtype == "uint8" else noise
    block_bytes = drawn.view(np.uint8).reshape(block, width)
    rows = len(images.state)
    for first in range(0, rows, block):
        count = min(block, rows - first)
        numbers = np.arange(first, first + count, dtype="<u8")[:, None].view(np.uint8)
        block_bytes[:count, : min(8, width)] = numbers[:, : min(8, width)]
        images.row_hash[first : first + count] = [row_hash(row) for row in block_bytes[:count]]
        files.write_all(fd, block_bytes[:count].reshape(-1).data, IMAGES_OFFSET + first * width)

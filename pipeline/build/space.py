"""Compute the disk space that a build needs."""

from pipeline.build.image_table import ImageTable
from pipeline.format.duplicates import MOST_PAIRS
from pipeline.format.header import IMAGES_OFFSET
from pipeline.recipe import Recipe

_BYTES_A_TABLE_ROW = 8 + 8 + 32 + 8 + 5 + 8 + 64  # labels, row_hash, tables of the source, image_hash, perhaps a remark


_BYTES_A_JOURNAL_LINE = 420  # without the name


_BYTES_OF_OBJECTS = 64 * 1024


def bytes_needed(images: ImageTable, recipe: Recipe, rows: int) -> int:
    """Estimate the size of a cache with so many rows, a little on the high side."""
    manifest = images.manifest
    names = max(1, manifest.names.longest())
    classes = max([1, *map(len, manifest.class_folders)]) + max(
        [1, *(len(name.encode()) for name in manifest.class_names)]
    )
    failed = (len(manifest.names) - rows + len(manifest.failed)) * (names + 256)
    alike = 16 * min(MOST_PAIRS, rows)
    tables = (
        rows * (names + _BYTES_A_TABLE_ROW) + alike + len(manifest.class_folders) * classes + failed + _BYTES_OF_OBJECTS
    )
    return IMAGES_OFFSET + rows * recipe.row_bytes + tables


def room_needed(images: ImageTable, recipe: Recipe, rows: int) -> int:
    """Estimate the disk space that a build needs: for the file and its journal."""
    names = max(1, images.manifest.names.longest())
    return bytes_needed(images, recipe, rows) + rows * (names + _BYTES_A_JOURNAL_LINE)

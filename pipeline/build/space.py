"""Compute the disk space that a build needs, and refuse a disk that does not have it."""

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pipeline.build.image_table import ImageTable
from pipeline.errors import OutputError
from pipeline.format.duplicates import MOST_PAIRS
from pipeline.format.header import IMAGES_OFFSET
from pipeline.recipe import Recipe
from pipeline.text import show_bytes

_BYTES_A_TABLE_ROW = 8 + 8 + 32 + 8 + 5 + 8 + 64  # labels, row_hash, tables of the source, image_hash, perhaps a remark
_BYTES_A_JOURNAL_LINE = 420  # without the name
_BYTES_OF_OBJECTS = 64 * 1024


class Room(NamedTuple):
    """Bytes of the disk that a build needs, and bytes that are free for it."""

    needed: int
    free: int

    def __str__(self) -> str:
        return f"needs {show_bytes(self.needed)}, {show_bytes(self.free)} free"

    @property
    def is_enough(self) -> bool:
        """True where the disk has what is needed."""
        return self.needed <= self.free

    def refuse_less(self, path: Path) -> None:
        """Refuse a disk that is too small.

        Args:
            path: of the cache, for the error.

        Raises:
            OutputError: says both numbers.
        """
        if not self.is_enough:
            raise _too_small(path, str(self))


@contextmanager
def refusing_full_disk(path: Path, needed: int) -> Iterator[None]:
    """Refuse a disk that turns out to be too small while the file of a cache is made: a quota, a limit of its size.

    Args:
        path: of the cache, for the error.
        needed: bytes of the file.

    Raises:
        OutputError: says how many bytes, and what the system says.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise _too_small(path, f"needs {show_bytes(needed)}: {error.strerror}") from error


def _too_small(path: Path, why: str) -> OutputError:
    return OutputError("the cache cannot be created", path, why, "Free some space, or give another --out")


def room_at(needed: int, caches: Sequence[Path]) -> Room:
    """Ask the disk of some caches, at least one, how much is free; what their unfinished builds have counts as free."""
    folder = next(folder for folder in caches[0].absolute().parents if folder.exists())
    return Room(needed, shutil.disk_usage(folder).free + sum(map(reserved, caches)))


def reserved(cache: Path) -> int:
    """Return the bytes of the disk that the unfinished build of a cache has; 0 without one."""
    try:
        return cache.with_name(cache.name + ".building").stat().st_blocks * 512
    except (FileNotFoundError, NotADirectoryError):
        return 0


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

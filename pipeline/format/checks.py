"""Open a cache file, and check its header before anything of it is believed.

Reading never calls the HDF5 library; `docs/format.md` says why.
"""

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xxhash

from pipeline.errors import AccessDenied, CacheDamaged, CacheError, CacheMissing, CacheUnsafe, StorageError, WorkerDied
from pipeline.format.features import Features
from pipeline.format.header import (
    IMAGES_OFFSET,
    LATER_TABLES,
    MAGIC,
    PREFIX,
    TABLES,
    USER_BLOCK,
    VERSION,
    Extent,
    Header,
    Shard,
    check_digits,
)
from pipeline.recipe import Recipe
from pipeline.system import files

_CHECKSUM_BYTES = 16
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Turn an OSError of opening, mapping or reading a cache into the error that tells what to do.

    Raises:
        AccessDenied: no permission.
        WorkerDied: a limit of the system.
        StorageError: the disk failed, or its file system cannot map files.
    """
    what = "the cache cannot be read"
    try:
        yield
    except PermissionError as error:
        raise AccessDenied(what, path, "permission denied") from error
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.EMFILE, errno.ENFILE):  # a map holds its file open once more
            raise WorkerDied(what, path, why, "Raise the limit (ulimit -n)") from error
        if error.errno == errno.ENOMEM:  # a map takes addresses, not memory: only a limit can refuse them
            raise WorkerDied(what, path, why, "Raise the limits of memory (ulimit -v, ulimit -d)") from error
        if error.errno == errno.ENODEV:
            why, advice = "its file system cannot map files into memory", "Copy the cache to another one"
            raise StorageError(what, path, why, advice) from error
        raise StorageError(what, path, why) from error


def open_cache(path: Path) -> int:
    """Open a cache for reading.

    Raises:
        CacheMissing: there is no file, or only an unfinished build.
        CacheUnsafe: not a regular file.
        AccessDenied, StorageError, WorkerDied: as the system says.
    """
    with reading_errors(path):
        try:
            fd = files.open_for_reading(path)
        except (FileNotFoundError, NotADirectoryError):
            if os.access(path.with_name(path.name + ".building"), os.F_OK):
                goes_on = os.access(path.with_name(path.name + ".journal"), os.F_OK)  # one of features begins anew
                advice = "Run build-cache again to resume it" if goes_on else "Run its build again"
                raise CacheMissing("no cache yet", path, "an unfinished build exists", advice) from None
            raise CacheMissing("no cache", path, "there is no such file", "Build it: build-cache SOURCE") from None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise CacheUnsafe("not a cache", path, "not a regular file", "Give the .h5 file that build-cache made")
    return fd


def read_header(fd: int, path: Path) -> Header:
    """Read and check the header: magic, version, checksum, sizes, extents; not yet the tables' digest.

    Raises:
        CacheUnsafe: not a cache of ours, or extents that reach outside the file or into each other.
        CacheError: written by a newer version.
        CacheDamaged: truncated, or bytes that are not those that were written.
        StorageError: the disk failed.
    """
    with reading_errors(path):
        size = os.fstat(fd).st_size
        start = files.read_at(fd, USER_BLOCK, 0)
    text = _checked_text(start, size, path)
    try:
        header = _parse(json.loads(text))
        reencoded = header.encode()
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise CacheUnsafe(
            "not a cache that can be read", path, f"its header makes no sense ({error})", _REBUILD
        ) from error
    if reencoded != start[: len(reencoded)]:
        raise CacheUnsafe("not a cache that can be read", path, "its header has another form than ours", _REBUILD)
    if header.file_size != size:
        why = f"{size} bytes, {header.file_size} expected"
        raise CacheDamaged("the cache is damaged", path, why, f"Run {header.command} again")
    _check_extents(header, path)
    return header


_REBUILD = "Build it again"  # the header, which says by which command, cannot be believed


def _checked_text(start: bytes, size: int, path: Path) -> bytes:
    if len(start) < PREFIX.size or not start.startswith(MAGIC):
        if start.startswith(_HDF5_MAGIC):
            why = "an HDF5 file, but not one that build-cache made"
        elif size == 0:
            why = "the file is empty"
        else:
            why = "its first bytes are not a cache's"
        raise CacheUnsafe(
            "not a cache", path, f"{why}; a tensor cache of format {VERSION} is read", "Build one: build-cache SOURCE"
        )
    _, version, length = PREFIX.unpack_from(start)
    if version != VERSION:
        raise CacheError(
            "the cache cannot be read",
            path,
            f"it has format {version}; this version reads format {VERSION}",
            "Update modelnet-cache, or build the cache again",
        )
    end = PREFIX.size + length
    if end + _CHECKSUM_BYTES > len(start) or xxhash.xxh3_128_digest(start[:end]) != start[end : end + _CHECKSUM_BYTES]:
        raise CacheDamaged("the cache is damaged", path, "its header does not match its checksum", _REBUILD)
    return start[PREFIX.size : end]


def _parse(values: Any) -> Header:
    extents = {}
    if type(values["file_size"]) is not int:
        raise ValueError("its size is none")
    for entry in values["datasets"]:
        count, *row_shape = entry["shape"]
        for number in (count, entry["offset"], *row_shape):
            if type(number) is not int or not 0 <= number < 2**63:
                raise ValueError(f"{number!r} is no size")
        extents[entry["name"]] = Extent(
            name=str(entry["name"]),
            dtype=str(entry["dtype"]),
            row_shape=tuple(row_shape),
            count=count,
            offset=entry["offset"],
        )
    recipe, decoder = Recipe.from_dict(values["recipe"]), values["decoder"]
    if not isinstance(decoder, str | dict):
        raise ValueError(f"{decoder!r} is no decoder")
    earlier = isinstance(decoder, str) or values["recipe"].keys() < recipe.to_dict().keys()
    header = Header(
        recipe=recipe,
        decoder={"": decoder} if isinstance(decoder, str) else {name: str(digits) for name, digits in decoder.items()},
        fingerprint=str(values["fingerprint"]),
        content=str(values["content"]),
        shard=None if values["shard"] is None else Shard.from_dict(values["shard"]),
        extents=extents,
        file_size=values["file_size"],
        digest=str(values["digest"]),
        features=Features.from_dict(values["features"]) if "features" in values else None,
        earlier={"recipe": values["recipe"], "decoder": decoder} if earlier else None,
    )
    decoders = [(digits, 32) for digits in header.decoder.values() if digits]
    for digits, length in (*decoders, (header.fingerprint, 64), (header.digest, 32)):
        check_digits(digits, length)
    if header.content != ("images" if header.features is None else "features"):
        raise ValueError(f"content {header.content!r} is not known")
    _check_shapes(header)
    return header


def _check_shapes(header: Header) -> None:
    missing = () if LATER_TABLES[0] in header.extents or header.earlier is None else LATER_TABLES
    tables = [table for table in TABLES if table[0] not in missing]
    if list(header.extents) != ["images", *(name for name, *_ in tables)]:
        raise ValueError(f"datasets {', '.join(header.extents)}")
    images = header.extents["images"]
    least = 1 if header.shard is None else 0  # a shard of a small set may have no image
    if images.count < least or images.row_shape != header.row_shape or images.dtype != header.row_dtype:
        raise ValueError("images do not fit the recipe")
    counts = {name: header.extents[name].count for name in ("images", "classes", "failed", "remarks", "alike")}
    if counts["classes"] < 1:
        raise ValueError("no classes")
    for name, dtype, shape, of in tables:
        extent = header.extents[name]
        fits = extent.dtype == dtype if dtype else _is_bytes(extent.dtype)
        if not fits or extent.row_shape != shape or extent.count != counts[of]:
            raise ValueError(f"table {name} has dtype {extent.dtype}, shape {extent.count, *extent.row_shape}")


def _is_bytes(dtype: str) -> bool:
    width = dtype.removeprefix("|S")
    return dtype.startswith("|S") and width.isascii() and width.isdigit() and 0 < int(width) <= 2**20


def _check_extents(header: Header, path: Path) -> None:
    """Refuse extents that leave the file or overlap, and images that do not begin at their byte."""
    advice = f"Run {header.command} again"
    if header.extents["images"].offset != IMAGES_OFFSET:
        raise CacheUnsafe("not a cache that can be read", path, "its images begin at a wrong byte", advice)
    end = USER_BLOCK
    for extent in sorted(header.extents.values(), key=lambda extent: extent.offset):
        if extent.offset < end or extent.end > header.file_size:
            why = f"its dataset {extent.name} reaches outside its range"
            raise CacheUnsafe("not a cache that can be read", path, why, advice)
        end = extent.end

"""Name the files of a sharded cache, and find the files that a person means.

The 64 shards of `name.h5` are the files `name-00000-of-00064.h5` to `name-00063-of-00064.h5`.
"""

import os
import re
from contextlib import suppress
from glob import glob, has_magic
from pathlib import Path

from pipeline.format.header import SIDE_FILES

_NAME = re.compile(r"(?P<name>.+)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.[^.]*)?", re.DOTALL)


def shard_path(path: Path, index: int, count: int) -> Path:
    """Return the file of a shard of `path`: `name-00003-of-00064.h5`."""
    return path.with_name(f"{path.stem}-{index:05d}-of-{count:05d}{path.suffix}")


def shard_paths(path: Path, count: int) -> list[Path]:
    """Return the files of all shards of `path`, by index."""
    return [shard_path(path, index, count) for index in range(count)]


def base_path(path: Path) -> Path:
    """Return the name of the cache that a shard belongs to: `name.h5`. Any other path is returned as it is."""
    found = _NAME.fullmatch(path.name)
    return path.with_name(found["name"] + (found["suffix"] or "")) if found else path


def shards_pattern(path: Path, count: int) -> Path:
    """Return the pattern of all shards of `path`: `name-*-of-00064.h5`."""
    return path.with_name(f"{path.stem}-*-of-{count:05d}{path.suffix}")


def shards_at(path: Path) -> dict[int, list[Path]]:
    """Find the shards of `path`: number of shards -> finished and unfinished files, in order."""
    found: dict[int, list[Path]] = {}
    names: list[str] = []
    with suppress(OSError):
        names = [entry.name for entry in path.parent.iterdir()]
    for name in names:
        base = name.removesuffix(".building")
        parts = _NAME.fullmatch(base)
        if parts and parts["name"] == path.stem and (parts["suffix"] or "") == path.suffix:
            found.setdefault(int(parts["count"]), []).append(path.with_name(name))
    return {count: sorted(files) for count, files in sorted(found.items())}


def cache_files(path: "str | os.PathLike[str]") -> list[Path]:
    """Find the files of `path`: a cache, the name of a sharded cache, or a pattern with `*`.

    Returns:
        The finished files; `path` alone if there are none.
    """
    path = Path(path)
    if os.path.lexists(path):
        return [path]
    if has_magic(os.fspath(path)):
        return sorted(map(Path, glob(os.fspath(path)))) or [path]  # noqa: PTH207 -- an absolute pattern
    named = path if path.suffix else path.with_name(path.name + ".h5")
    finished = [file for files in shards_at(named).values() for file in files if file.suffix != ".building"]
    return finished or [path]


def cache_exists(path: "str | os.PathLike[str]") -> bool:
    """Tell whether there is a cache, or any shard of one, at `path`."""
    return all(os.path.lexists(file) for file in cache_files(path))


def cache_name(path: "str | os.PathLike[str]") -> str:
    """Return the name of a cache without folder, number and suffix."""
    return base_path(cache_files(path)[0]).stem


def is_shard_of(name: bytes, cache: bytes) -> bool:
    """Tell whether a file name is that of a shard of `cache`, or of a file beside one."""
    text = os.fsdecode(name)
    for suffix in SIDE_FILES:
        text = text.removesuffix(suffix)
    found = _NAME.fullmatch(text)
    return found is not None and os.fsencode(found["name"] + (found["suffix"] or "")) == cache

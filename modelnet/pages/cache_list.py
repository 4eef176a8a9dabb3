"""List caches for people and scripts: what they hold, their size and age, and which runs used them."""

import os
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from modelnet.runs.kind import images_of
from modelnet.runs.reader import RunReader
from pipeline.errors import CacheMissing, PipelineError
from pipeline.format.paths import base_path, cache_files
from pipeline.format.sharded import open_reader
from pipeline.text import align, command_line, counted, shorten, show_age, show_bytes, show_path

RUNS_SHOWN = 3


@dataclass(frozen=True)
class ListedCache:
    """A cache as a line of a list.

    Attributes:
        cache: the file, or the name of a set of shards.
        images, classes: their numbers; 0 where it cannot be read.
        file_bytes: of all its files.
        modified: when it was published, in seconds since 1970.
        runs: names of the runs that trained or validated on it.
        problem: why it cannot be read.
    """

    cache: str
    images: int = 0
    classes: int = 0
    file_bytes: int = 0
    modified: float = 0.0
    runs: list[str] = field(default_factory=list)
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def list_caches(folders: Iterable[Path], runs: Path) -> list[ListedCache]:
    """List the caches of folders; one that cannot be read has a line that says why.

    Args:
        folders: that hold caches; one that is not there holds none.
        runs: the folder of the runs.

    Raises:
        CacheMissing: there are none.
    """
    folders = list(folders)
    paths = sorted({base_path(file) for folder in folders for file in folder.glob("*.h5")})
    if not paths:
        advice = f"Type: {command_line()} build-cache SOURCE"
        raise CacheMissing("no caches there", folders[0], "no .h5 file in it", advice)
    users = _users(runs)
    return [_listed(path, users) for path in paths]


def _listed(path: Path, users: dict[str, list[str]]) -> ListedCache:
    try:
        files = cache_files(path)
        stats = [file.stat() for file in files]
        size, newest = sum(stat.st_size for stat in stats), max(stat.st_mtime for stat in stats)
        reader = open_reader(path)
    except (PipelineError, OSError) as error:
        return ListedCache(os.fspath(path), problem=str(error))
    keys = {reader.fingerprint, reader.earlier_fingerprint}
    names = sorted({name for key in keys if key for name in users.get(key, [])})
    return ListedCache(os.fspath(path), reader.num_images, len(reader.class_ids), size, newest, names)


def _users(runs: Path) -> dict[str, list[str]]:
    """Return the names of the runs by the fingerprint of the images that they used."""
    users: dict[str, list[str]] = {}
    for path in sorted(runs.glob("*/config.json")):
        with suppress(PipelineError):  # `runs` names those that cannot be read
            config = RunReader(path.parent).read_config()
            for side in filter(None, (config["cache"], config["val"])):
                for key in {images_of(side), side["fingerprint"]}:
                    users.setdefault(key, []).append(path.parent.name)
    return users


def caches_table(caches: Sequence[ListedCache]) -> str:
    """Return a line for each cache, and the size of all."""
    rows = [["cache", "images", "classes", "size", "age", "runs", ""]]
    for cache in caches:
        if cache.problem:
            rows.append([show_path(cache.cache), "", "", "", "", "", "cannot be read"])
            continue
        numbers = [f"{cache.images:,}", f"{cache.classes:,}", show_bytes(cache.file_bytes)]
        names = shorten([show_path(name) for name in cache.runs], RUNS_SHOWN)
        age = show_age(time.time() - cache.modified)
        rows.append([show_path(cache.cache), *numbers, age, str(len(cache.runs)), names])
    total = show_bytes(sum(cache.file_bytes for cache in caches))
    problems = [f"warning: {cache.problem}" for cache in caches if cache.problem]
    return "\n".join([*align(rows, left=(0, 6)), f"{counted(len(caches), 'cache')}, {total}", *problems])

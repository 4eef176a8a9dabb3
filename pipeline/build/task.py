"""Describe the build of one file, a whole cache or a shard, here or in a remote worker; choose its recipe."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, Unpack

from pipeline.build.journal import begun_build
from pipeline.errors import PipelineError
from pipeline.format.checks import open_cache, read_header
from pipeline.format.header import VERSION, Shard
from pipeline.format.paths import base_path, shards_at
from pipeline.recipe import Recipe, RecipeOptions
from pipeline.source.manifest import Manifest
from pipeline.source.partition import Partition
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice

Progress = Callable[[int, int], None]


def choose_recipe(path: Path, rebuild: bool = False, **options: Unpack[RecipeOptions]) -> tuple[Recipe, str]:
    """Complete a recipe: an option that is None is that of the cache that is there, else the default.

    Where there is no cache yet, an unfinished build of it counts. A rebuild starts from the defaults.

    Args:
        path: a cache, or the name of a sharded one.
        rebuild: whether the build was asked to decode everything anew.
        options: of `Recipe`, by name.

    Returns:
        The recipe, and in one line what it takes from the cache; empty where that is the default anyway.

    Raises:
        ValueError: an impossible recipe.
    """
    typed: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    there = None if rebuild else _recipe_at(path)
    if there is None:
        return Recipe(**typed), ""
    kept = there.changed(**{name: getattr(Recipe, name) for name in typed}).unusual
    line = f"as the cache that is there: {', '.join(kept)} (--rebuild starts from the defaults)" if kept else ""
    return there.changed(**typed), line


def _recipe_at(path: Path) -> Recipe | None:
    files = [path, *(file for files in shards_at(path).values() for file in files)]
    for file in files:
        with suppress(PipelineError, OSError):  # the build reports a file that cannot be opened
            fd = open_cache(file)
            try:
                header = read_header(fd, file)
            finally:
                os.close(fd)
            return header.recipe if header.content == "images" else None
    for file in files:
        with suppress(OSError, ValueError, KeyError):
            journal = file.with_name(file.name.removesuffix(".building") + ".journal")
            return Recipe.from_dict(begun_build(journal)["recipe"])
    return None


@dataclass(frozen=True)
class Task:
    """All that the build of one file needs; it can be pickled.

    Attributes:
        source: the folder or archive of all images.
        choice: of classes and images.
        manifest: the images of the file.
        path: the file.
        recipe: of the build.
        before: `identity` of the file, from before the scan.
        shard: number of the shard; None for a whole cache. The caller checks whether the shards that are there hold
            other photographs: a single shard is too small to tell.
        rebuild: decode everything anew, and replace any cache that is there.
        workers: processes that decode; None for one a core.
        format: version of the format that the sender writes.
        options: the options that the recipe was chosen by; None for a recipe that must not change.
        inherited: the options that the recipe takes from the old cache, in one line.
        decoder: by format, the identity of the sender's decoders; a remote worker must have the same.
        own_mean_std: the recipe gets the mean and std of the pixels, as `PartialBuild` has it.
        donor: a cache of the same images, whose rows are derived instead of those of `path`; None for that.
    """

    source: Path
    choice: Choice | None
    manifest: Manifest
    path: Path
    recipe: Recipe
    before: tuple[int, int] | None
    shard: Shard | None = None
    rebuild: bool = False
    workers: int | None = None
    format: int = VERSION
    options: RecipeOptions | None = None
    inherited: str = ""
    decoder: dict[str, str] | None = None
    own_mean_std: bool = False
    donor: Path | None = None

    @property
    def anew(self) -> bool:
        """True where no row of an old cache is copied: a rebuild, or a sum of pixels, which needs to know the pads."""
        return self.donor is None and (self.rebuild or self.own_mean_std)

    def again(self) -> Self:
        """Return the task anew: another build has made the file since `before`, perhaps from a newer source."""
        recipe, inherited = self.recipe, self.inherited
        if self.options is not None:
            recipe, inherited = choose_recipe(self.path, self.rebuild, **self.options)
        manifest = scan_source(self.source, base_path(self.path) if self.shard else self.path, self.choice)
        if self.shard is not None:
            manifest = Partition(manifest, self.shard.count).shard(self.shard.index)
        return replace(self, manifest=manifest, recipe=recipe, inherited=inherited)

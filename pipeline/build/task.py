"""What a build of one file is told: a whole cache, or a shard of a set, here or in a worker that is far away."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.format.header import VERSION, Shard
from pipeline.format.paths import base_path
from pipeline.recipe import Recipe
from pipeline.source.manifest import Manifest
from pipeline.source.partition import Partition
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Task:
    """All that building one file needs, to be sent anywhere.

    Attributes:
        source: the folder or archive of all images.
        choice: of classes and images.
        manifest: the candidates that belong into the file.
        path: the file.
        recipe, decoder: of the build.
        before: `identity` of the file, from before the scan.
        shard: which part of a set it is. Whether the set holds other photographs is then for the caller to find out:
            one shard is too small a part to tell.
        rebuild: decode everything anew, and replace whatever cache is there.
        workers: processes that decode; None for one a core.
        format: of the caches that the sender knows.
    """

    source: Path
    choice: Choice | None
    manifest: Manifest
    path: Path
    recipe: Recipe
    decoder: str
    before: tuple[int, int, int] | None
    shard: Shard | None = None
    rebuild: bool = False
    workers: int | None = None
    format: int = VERSION

    def rescan(self) -> Manifest:
        """Look at the source again: another build has made the file since `before`, perhaps from a newer source."""
        manifest = scan_source(self.source, base_path(self.path) if self.shard else self.path, self.choice)
        return manifest if self.shard is None else Partition(manifest, self.shard.count).shard(self.shard.index)

"""From a folder of photographs to a cache of tensors, and from the cache to batches.

A name is imported when it is first used: building a cache needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pipeline.errors import (
    AccessDenied,
    ArchiveDamaged,
    CacheBusy,
    CacheDamaged,
    CacheError,
    CacheMissing,
    CacheStale,
    CacheUnsafe,
    CheckpointDamaged,
    CheckpointError,
    CheckpointUnsafe,
    CodeError,
    DeviceError,
    OptionsError,
    OutOfMemory,
    OutputError,
    PipelineError,
    RankFailed,
    RunBusy,
    RunDamaged,
    RunError,
    SourceError,
    StorageError,
    TableDamaged,
    TrainingDiverged,
    WorkerDied,
)

if TYPE_CHECKING:
    from pipeline.build.build import build_cache
    from pipeline.build.report import BuildReport
    from pipeline.inspect.info import describe_cache
    from pipeline.inspect.verify import verify_cache
    from pipeline.load.cache import TensorCache
    from pipeline.load.dataset import CacheDataset, collate
    from pipeline.load.loader import make_loader
    from pipeline.load.normalize import normalize
    from pipeline.recipe import Recipe
    from pipeline.shards.build import build_shards
    from pipeline.source.selection import Choice

_HOMES = {
    "BuildReport": "build.report",
    "CacheDataset": "load.dataset",
    "Choice": "source.selection",
    "Recipe": "recipe",
    "TensorCache": "load.cache",
    "build_cache": "build.build",
    "build_shards": "shards.build",
    "collate": "load.dataset",
    "describe_cache": "inspect.info",
    "make_loader": "load.loader",
    "normalize": "load.normalize",
    "verify_cache": "inspect.verify",
}

__all__ = [
    "AccessDenied",
    "ArchiveDamaged",
    "BuildReport",
    "CacheBusy",
    "CacheDamaged",
    "CacheDataset",
    "CacheError",
    "CacheMissing",
    "CacheStale",
    "CacheUnsafe",
    "CheckpointDamaged",
    "CheckpointError",
    "CheckpointUnsafe",
    "Choice",
    "CodeError",
    "DeviceError",
    "OptionsError",
    "OutOfMemory",
    "OutputError",
    "PipelineError",
    "RankFailed",
    "Recipe",
    "RunBusy",
    "RunDamaged",
    "RunError",
    "SourceError",
    "StorageError",
    "TableDamaged",
    "TensorCache",
    "TrainingDiverged",
    "WorkerDied",
    "build_cache",
    "build_shards",
    "collate",
    "describe_cache",
    "make_loader",
    "normalize",
    "verify_cache",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

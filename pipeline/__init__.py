"""From a folder of photographs to a cache of tensors, and from the cache to batches.

What is imported here is imported when it is asked for: building needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.build.build import build_cache
    from pipeline.build.report import BuildReport
    from pipeline.inspect.verify import verify_cache
    from pipeline.load.cache import TensorCache
    from pipeline.load.loader import make_loader
    from pipeline.recipe import Recipe
    from pipeline.shards.build import build_shards
    from pipeline.source.selection import Choice

_HOMES = {
    "BuildReport": "build.report",
    "Choice": "source.selection",
    "Recipe": "recipe",
    "TensorCache": "load.cache",
    "build_cache": "build.build",
    "build_shards": "shards.build",
    "make_loader": "load.loader",
    "verify_cache": "inspect.verify",
}

__all__ = [
    "BuildReport",
    "Choice",
    "Recipe",
    "TensorCache",
    "build_cache",
    "build_shards",
    "make_loader",
    "verify_cache",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

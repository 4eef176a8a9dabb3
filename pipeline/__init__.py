"""From a folder of photographs to a cache of tensors, and from the cache to batches.

What is imported here is imported when it is asked for: building needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.build import build_cache
    from pipeline.build_set import build_shards
    from pipeline.cache import TensorCache
    from pipeline.classes import Choice
    from pipeline.loader import make_loader
    from pipeline.recipe import Recipe
    from pipeline.report import BuildReport
    from pipeline.verify import verify_cache

_HOMES = {
    "BuildReport": "report",
    "Choice": "classes",
    "Recipe": "recipe",
    "TensorCache": "cache",
    "build_cache": "build",
    "build_shards": "build_set",
    "make_loader": "loader",
    "verify_cache": "verify",
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

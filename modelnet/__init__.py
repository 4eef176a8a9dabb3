"""From a cache of tensors to trained networks: options, training, evaluation, comparison, report.

A name is imported when it is first used: naming the options needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelnet.compare.compare import compare_groups, compare_runs
    from modelnet.compare.result import Comparison
    from modelnet.eval.export import export
    from modelnet.eval.features import build_features
    from modelnet.eval.predict import predict
    from modelnet.eval.trained import Trained
    from modelnet.nets.modelnet import ModelNet
    from modelnet.options import TrainOptions
    from modelnet.pages.batch_page import show_batch
    from modelnet.pages.cache_page import show_cache
    from modelnet.pages.page import report
    from modelnet.pages.run_page import show_run
    from modelnet.progress import Progress, ProgressBar
    from modelnet.sweep.train import resume_many, train_many
    from modelnet.training.loop import TrainResult
    from modelnet.training.lr_finder import find_learning_rate
    from modelnet.training.train import resume, train

_HOMES = {
    "Comparison": "compare.result",
    "ModelNet": "nets.modelnet",
    "Progress": "progress",
    "ProgressBar": "progress",
    "TrainOptions": "options",
    "TrainResult": "training.loop",
    "Trained": "eval.trained",
    "build_features": "eval.features",
    "compare_groups": "compare.compare",
    "compare_runs": "compare.compare",
    "export": "eval.export",
    "find_learning_rate": "training.lr_finder",
    "predict": "eval.predict",
    "report": "pages.page",
    "resume": "training.train",
    "resume_many": "sweep.train",
    "show_batch": "pages.batch_page",
    "show_cache": "pages.cache_page",
    "show_run": "pages.run_page",
    "train": "training.train",
    "train_many": "sweep.train",
}

__all__ = [
    "Comparison",
    "ModelNet",
    "Progress",
    "ProgressBar",
    "TrainOptions",
    "TrainResult",
    "Trained",
    "build_features",
    "compare_groups",
    "compare_runs",
    "export",
    "find_learning_rate",
    "predict",
    "report",
    "resume",
    "resume_many",
    "show_batch",
    "show_cache",
    "show_run",
    "train",
    "train_many",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    except ImportError as error:
        pipeline = import_module("pipeline")
        if hasattr(pipeline, "__path__"):
            raise
        raise ImportError(
            f"{pipeline.__file__} hides the package pipeline of modelnet-cache: rename that file"
        ) from error


def __dir__() -> list[str]:
    return __all__

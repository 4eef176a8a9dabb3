"""From a cache of tensors to a trained network: options, network, training, run folder, evaluation.

What is imported here is imported when it is asked for: naming the options needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelnet.compare.compare import compare_groups, compare_runs
    from modelnet.compare.result import Comparison
    from modelnet.eval.predict import predict
    from modelnet.eval.trained import Trained
    from modelnet.nets.modelnet import ModelNet
    from modelnet.options import TrainOptions
    from modelnet.sweep.train import train_many
    from modelnet.training.loop import TrainResult
    from modelnet.training.train import resume, train

_HOMES = {
    "Comparison": "compare.result",
    "ModelNet": "nets.modelnet",
    "TrainOptions": "options",
    "TrainResult": "training.loop",
    "Trained": "eval.trained",
    "compare_groups": "compare.compare",
    "compare_runs": "compare.compare",
    "predict": "eval.predict",
    "resume": "training.train",
    "train": "training.train",
    "train_many": "sweep.train",
}

__all__ = [
    "Comparison",
    "ModelNet",
    "TrainOptions",
    "TrainResult",
    "Trained",
    "compare_groups",
    "compare_runs",
    "predict",
    "resume",
    "train",
    "train_many",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

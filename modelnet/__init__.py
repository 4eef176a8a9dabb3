"""From a cache of tensors to a trained network: options, network, training, run folder, evaluation.

What is imported here is imported when it is asked for: naming the options needs no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelnet.comparing import compare_groups, compare_runs
    from modelnet.comparison import Comparison
    from modelnet.many import train_many
    from modelnet.network import ModelNet
    from modelnet.options import TrainOptions
    from modelnet.starting import resume, train
    from modelnet.trained import Trained, predict
    from modelnet.training import TrainResult

_HOMES = {
    "Comparison": "comparison",
    "ModelNet": "network",
    "TrainOptions": "options",
    "TrainResult": "training",
    "Trained": "trained",
    "compare_groups": "comparing",
    "compare_runs": "comparing",
    "predict": "trained",
    "resume": "starting",
    "train": "starting",
    "train_many": "many",
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

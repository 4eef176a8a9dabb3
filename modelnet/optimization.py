"""What a gradient does to the weights: the loss it comes from, the optimizer, the learning rate of every step."""

import inspect
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from modelnet.batches import Batches
from modelnet.caches import class_counts
from modelnet.options import TrainOptions

_OPTIMIZERS: dict[str, Any] = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "rmsprop": torch.optim.RMSprop,
}
_WITH_MOMENTUM = ("sgd", "rmsprop")


def build_optimizer(network: nn.Module, options: TrainOptions) -> torch.optim.Optimizer:
    """Make torch's optimizer of the name that was asked for; those that have no momentum take none."""
    settings: dict[str, Any] = {"lr": options.learning_rate, "weight_decay": options.weight_decay}
    if options.opt in _WITH_MOMENTUM:
        settings["momentum"] = options.momentum
    if options.opt == "sgd" and not options.scales_gradients:  # torch's fused step, if left out, spoils the momentum
        settings["fused"] = True  # all weights in one pass: a twentieth less time a step at batch size 8
    optimizer: torch.optim.Optimizer = _without_compiler(_OPTIMIZERS[options.opt])(network.parameters(), **settings)
    return optimizer


def _without_compiler(optimizer: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """Return a torch optimizer that does not import torch's compiler when it is made, which takes over a second.

    Torch wraps these methods to tell a compiler to leave them alone; what they wrap is the same code.
    """
    names = ("add_param_group", "zero_grad", "step", "state_dict", "load_state_dict")
    inner = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    return type(optimizer.__name__, (optimizer,), inner | {"step": torch.no_grad()(inner["step"])})


def build_loss(options: TrainOptions, batches: Batches) -> nn.CrossEntropyLoss:
    """Make the loss of a batch: cross-entropy, with label smoothing and class weights where asked for."""
    weights_C = None
    if options.class_weights == "balanced":
        weights_C = balanced_weights(class_counts(batches.cache, batches.subset)).to(batches.device)
    if batches.ranks.size > 1:
        return PartOfLoss(batches, weights_C, options.smoothing)
    return MixedCrossEntropy(weight=weights_C, label_smoothing=options.smoothing)


class MixedCrossEntropy(nn.CrossEntropyLoss):
    """torch's cross-entropy, whose labels may also be mixed, (B, C) float32: each class counts by its part.

    With class weights, torch divides by the sum of the weights for labels (B,), and by B for mixed ones, so that the
    same labels would give two losses. Here it is the sum of the weights for both.
    """

    def forward(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        if self.weight is None or not labels.is_floating_point():
            loss: Tensor = super().forward(logits_BC, labels)
            return loss
        total = cross_entropy(logits_BC, labels, self.weight, reduction="sum", label_smoothing=self.label_smoothing)
        return total / sum_of_weights(self.weight, labels)


def sum_of_weights(weights_C: Tensor, labels: Tensor) -> Tensor:
    """Return the weights of a batch's classes added up, of labels (B,) int64 or mixed ones (B, C) float32."""
    labels = labels.to(weights_C.device)
    return ((labels @ weights_C) if labels.is_floating_point() else weights_C[labels]).sum()


class PartOfLoss(nn.CrossEntropyLoss):
    """A rank's part of the mean loss of a batch: the parts of all ranks add up to it, and their gradients to its.

    Args:
        batches: which tell of what whole batch this rank has a part.
        weights_C, smoothing: as `nn.CrossEntropyLoss` has them.
    """

    def __init__(self, batches: Batches, weights_C: Tensor | None, smoothing: float) -> None:
        super().__init__(weight=weights_C, label_smoothing=smoothing)
        self._batches = batches

    def forward(self, logits_BC: Tensor, labels_B: Tensor) -> Tensor:
        """Map (B, C) logits and (B,) or mixed labels of this rank's images, perhaps none, to a scalar."""
        total = cross_entropy(logits_BC, labels_B, self.weight, reduction="sum", label_smoothing=self.label_smoothing)
        if self.weight is None:
            return total / len(self._batches.whole)
        return total / sum_of_weights(self.weight, self._batches.whole_labels())


def balanced_weights(counts_C: Tensor) -> Tensor:
    """Weigh classes so that each counts as much as any other, however many images it has.

    Args:
        counts_C: (C,) int64, images of each class.

    Returns:
        (C,) float32: images / (classes × images of the class), as scikit-learn's "balanced"; 0 for a class without.
    """
    present = counts_C > 0
    return torch.where(present, counts_C.sum() / (present.sum() * counts_C.clamp(min=1)), 0.0).float()


def running_mean_of_weights(network: nn.Module, decay: float) -> AveragedModel:
    """Copy a network into one whose weights are a running mean of those after each step; the first replace it.

    Args:
        network: in training.
        decay: the part of the mean that a step keeps.
    """
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


class Schedule:
    """The learning rate of every step: a pure function of its number.

    A linear warm-up over `warmup_epochs`, then, by `sched`: none, the rate itself; cosine, half a cosine down to 0 at
    the end of the run; step, × `decay_rate` every `decay_epochs` from the beginning of the run; plateau, × `decay_rate`
    after each `plateau_epochs` epochs without a better one.

    Args:
        options: of the run.
        steps: of an epoch.

    Attributes:
        plateau: epochs without a better one, after each of which the rate decays; None for never.
    """

    def __init__(self, options: TrainOptions, steps: int) -> None:
        self.options = options
        self.steps = steps
        self.warmup = options.warmup_epochs * steps
        self.plateau = options.plateau_epochs if options.sched == "plateau" else None

    def rate(self, step: int, decays: int = 0) -> float:
        """Return the learning rate of a step.

        Args:
            step: from 0, over all epochs.
            decays: times that a plateau was met before it.
        """
        return self.options.learning_rate * self._factor(step, decays)

    def set(self, optimizer: torch.optim.Optimizer, step: int, decays: int) -> None:
        """Give the optimizer the learning rate of a step."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate(step, decays)

    def _factor(self, step: int, decays: int) -> float:
        options = self.options
        if step < self.warmup:
            return (step + 1) / self.warmup
        match options.sched:
            case "cosine":
                done = (step - self.warmup) / (options.epochs * self.steps - self.warmup)
                return (1 + math.cos(math.pi * done)) / 2
            case "step":
                return options.decay_rate ** (step // self.steps // options.decay_epochs)
            case "plateau":
                return options.decay_rate**decays
        return 1.0

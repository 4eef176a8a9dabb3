"""The training loss: smoothing, class weights, mixed labels."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from modelnet.data.batches import Batches
from modelnet.data.caches import class_counts
from modelnet.options import TrainOptions


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

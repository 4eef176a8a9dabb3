"""Compute the training loss, its value for a network that guesses, and its lowest value.

It lies below `training`, so that hints, reports and the learning-rate finder ask the loss that is trained with.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from modelnet.data.mixup import CUTMIX, BetaTable
from modelnet.options import TrainOptions

_MIXED_LABELS = 4096  # random draws for the mean of the lowest loss
_LOG_0 = -1000.0  # of a probability: exp gives 0, and 0 times it is 0


class TrainingLoss:
    """Cross-entropy with label smoothing and class weights: the mean over the images of a batch.

    A label is smoothed first, then the image's loss is weighted by the image's class. So the best logits of an image
    have their maximum at its class. A mixed label is the sum of its classes, each by its share. The sum is divided by
    the number of images: so a weight means the same in any batch.

    Args:
        smoothing: 0..1, the share of a label that is spread evenly over all classes.
        weights_C: (C,) float32, of the classes; None for none.
    """

    def __init__(self, smoothing: float = 0.0, weights_C: Tensor | None = None) -> None:
        self.smoothing = smoothing
        self.weights_C = weights_C

    def __call__(self, logits_BC: Tensor, labels: Tensor, size: int | None = None) -> Tensor:
        """Return the mean loss of a batch, or this rank's part of it: the parts of all ranks add up to the mean.

        Args:
            logits_BC: (B, C), of this rank's images, perhaps none.
            labels: (B,) int64, or (B, C), the share of each class.
            size: images of the whole batch; None for B.
        """
        size = len(labels) if size is None else size
        if self.weights_C is not None:
            return self.of_images(logits_BC, labels).sum() / size
        if size == len(labels):
            return cross_entropy(logits_BC, labels, label_smoothing=self.smoothing)
        return cross_entropy(logits_BC, labels, reduction="sum", label_smoothing=self.smoothing) / size

    def of_images(self, logits_BC: Tensor, labels: Tensor) -> Tensor:
        """Return (B,), the loss of each image."""
        if self.weights_C is None:
            return cross_entropy(logits_BC, labels, reduction="none", label_smoothing=self.smoothing)
        weights_C = self.weights_C.to(logits_BC.dtype)
        if not labels.is_floating_point():
            return (
                cross_entropy(logits_BC, labels, reduction="none", label_smoothing=self.smoothing) * weights_C[labels]
            )
        shares_BC = labels * weights_C
        smoothed_BC = torch.lerp(shares_BC, shares_BC.mean(1, keepdim=True), self.smoothing)
        return cross_entropy(logits_BC, smoothed_BC, reduction="none")


def build_loss(options: TrainOptions, counts_C: Tensor, device: torch.device | None = None) -> TrainingLoss:
    """Make the loss of a run.

    Args:
        options: of the run.
        counts_C: (C,) int64, training images of each class.
        device: of the logits; None for the CPU.
    """
    weights_C = balanced_weights(counts_C).to(device) if options.class_weights == "balanced" else None
    return TrainingLoss(options.smoothing, weights_C)


def balanced_weights(counts_C: Tensor) -> Tensor:
    """Weigh classes so that each counts as much as any other, however many images it has.

    Args:
        counts_C: (C,) int64, images of each class.

    Returns:
        (C,) float32: images / (classes × images of the class), as scikit-learn's "balanced"; 0 for a class without.
    """
    present = counts_C > 0
    return torch.where(present, counts_C.sum() / (present.sum() * counts_C.clamp(min=1)), 0.0).float()


def blind_loss(loss: TrainingLoss, counts_C: Tensor) -> tuple[float, Tensor]:
    """Return the lowest mean loss of a network that answers the same to every image, and the answer.

    Args:
        loss: on the CPU.
        counts_C: (C,) int64, training images of each class.

    Returns:
        The loss; (C,) float64, the probabilities.
    """
    answer_C = _normalized(counts_C.double() @ _label_mass(loss, len(counts_C)))
    present = counts_C.nonzero().ravel()
    losses = loss.of_images(_log(answer_C).expand(len(present), -1), present)
    return float((losses * counts_C[present]).sum() / counts_C.sum()), answer_C


def lowest_loss(loss: TrainingLoss, counts_C: Tensor, options: TrainOptions) -> float:
    """Return the mean loss of the best answers: above 0 where labels are smoothed or mixed.

    Args:
        loss: on the CPU.
        counts_C: (C,) int64, training images of each class.
        options: whether and how labels are mixed.
    """
    mass_CC = _label_mass(loss, len(counts_C))
    if options.mixtures:
        labels_NC = _mixed_labels(counts_C, options)
        return float(loss.of_images(_log(_normalized(labels_NC @ mass_CC)), labels_NC).mean())
    present = counts_C.nonzero().ravel()
    losses = loss.of_images(_log(_normalized(mass_CC[present])), present)
    return float((losses * counts_C[present]).sum() / counts_C.sum())


def _label_mass(loss: TrainingLoss, classes: int) -> Tensor:
    """Return (C, C) float64: how much the loss of an image of class i asks for class j.

    The loss is -sum(mass × log probability). At equal logits, its gradient is sum(mass) / C - mass.
    """
    logits_CC = torch.zeros(classes, classes, dtype=torch.float64, requires_grad=True)
    losses_C = loss.of_images(logits_CC, torch.arange(classes))
    (gradient_CC,) = torch.autograd.grad(losses_C.sum(), logits_CC)
    return (losses_C.detach()[:, None] / math.log(classes) / classes - gradient_CC).clamp(min=0)


def _mixed_labels(counts_C: Tensor, options: TrainOptions) -> Tensor:
    """Draw (N, C) float64 labels of images that are mixed with others, always the same ones."""
    number = max(256, min(_MIXED_LABELS, 2**22 // len(counts_C)))
    classes_2N = counts_C.double().multinomial(2 * number, True, generator=torch.Generator().manual_seed(0)).view(2, -1)
    first, second = torch.nn.functional.one_hot(classes_2N, len(counts_C)).double()
    middles = (torch.arange(number) + 0.5) / number
    alphas = [options.cutmix_alpha if kind == CUTMIX else options.mixup_alpha for kind in options.mixtures]
    shares = torch.stack([BetaTable(alpha)(middles) for alpha in alphas])
    own_N1 = shares[torch.arange(number) % len(alphas), torch.arange(number)][:, None]
    return torch.lerp(second, first, own_N1)


def _normalized(mass: Tensor) -> Tensor:
    return mass / mass.sum(-1, keepdim=True)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.log().clamp(min=_LOG_0)

"""What a person should know who looks at the numbers of a run: that it learns nothing, or less than it seems."""

import math
from collections.abc import Sequence

from modelnet.options import TrainOptions
from modelnet.progress import EpochRow

GUESSING_AFTER = 20  # epochs; a ModelNet that converges has often hardly begun to after 10
_NEAR = 0.01  # of a loss: guessing well, and no more
FALLING = 0.002  # below what guessing gives: a network that learns slowly, and not one that guesses
_SEEMS_BETTER = 0.05  # of an accuracy


def guessing(rows: Sequence[EpochRow], counts: Sequence[int], options: TrainOptions) -> str:
    """Say that the loss stays where it is without looking at the images, or return "".

    A network that has begun to learn is below that loss, if only by little: of 32 starts of ModelNet at the default
    learning rate 3 are not after 20 epochs, of 32 at an eighth of it 27.

    Args:
        rows: epochs.
        counts: training images of each class.
        options: of the training.
    """
    shares = target_shares(counts, options)
    blind = entropy(shares)
    if any(abs(row.train_loss - blind) > _NEAR for row in rows) or rows[-1].train_loss < blind - FALLING:
        return ""
    present = [share for share in shares if share]
    balanced = max(present) - min(present) < 1e-9
    what = f"ln {len(present)}" if balanced else "what the sizes of the classes alone give"
    return (
        f"after {len(rows)} epochs the loss is still {blind:.3f} = {what}: the network is guessing. "
        f"Try a larger --lr than {rows[-1].lr:g}; lr-find suggests one"
    )


def target_shares(counts: Sequence[int], options: TrainOptions) -> list[float]:
    """Return what part of all that the loss asks for is of each class: the best answer of a network that does not look.

    Args:
        counts: training images of each class.
        options: balanced class weights make all classes alike, smoothing moves them towards that.
    """
    weights = [float(bool(count)) for count in counts] if options.class_weights == "balanced" else list(counts)
    return [(1 - options.smoothing) * weight / sum(weights) + options.smoothing / len(weights) for weight in weights]


def entropy(shares: Sequence[float]) -> float:
    """Return the loss of answering with these shares where they are the right ones, the lowest that there is."""
    return -sum(share * math.log(share) for share in shares if share)


def converged_below(counts: Sequence[int], options: TrainOptions) -> float:
    """Return the training loss half-way between guessing and the lowest that smoothed and mixed labels allow.

    Args:
        counts: training images of each class.
        options: of the training; the lowest is 0 where labels are neither smoothed nor mixed.
    """
    shares, wrong = target_shares(counts, options), options.smoothing / len(counts)
    least = entropy([1 - options.smoothing + wrong, *[wrong] * (len(counts) - 1)])
    if options.mixtures:
        least += (1 - sum((count / sum(counts)) ** 2 for count in counts)) * _of_mixing(options)
    return (entropy(shares) + least) / 2


def _of_mixing(options: TrainOptions) -> float:
    """Return the mean entropy of two parts of a label that Beta(alpha, alpha) divides."""
    from scipy.special import digamma

    alphas = {"mixup": options.mixup_alpha, "cutmix": options.cutmix_alpha}
    found = [digamma(2 * alphas[kind] + 1) - digamma(alphas[kind] + 1) for kind in options.mixtures]
    return float(sum(found) / len(found))


def unshuffled(row: EpochRow, accuracy: float) -> str:
    """Say that the running accuracy of an epoch class after class is better than the network is, or return "".

    After some images of one class the network says that class to all: right for those that follow, and wrong for the
    classes before, which the running mean has counted already.

    Args:
        row: the last epoch.
        accuracy: of the network after it, on the training images.
    """
    if row.train_acc - accuracy < _SEEMS_BETTER:
        return ""
    return (
        f"running loss {row.train_loss:.2f}, accuracy {row.train_acc:.0%}, but {1 - accuracy:.0%} of the "
        "training images are wrong now: the order is not shuffled"
    )

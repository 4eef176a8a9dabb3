"""What a person should know who looks at the numbers of a run: that it learns nothing, or less than it seems."""

import math
from collections.abc import Sequence

from modelnet.runs import EpochRow

GUESSING_AFTER = 20  # epochs; a ModelNet that converges has often hardly begun to after 10
_NEAR = 0.01  # of a loss: guessing well, and no more
_FALLING = 0.002  # below what guessing gives: a network that learns slowly, and not one that guesses
_SEEMS_BETTER = 0.05  # of an accuracy


def guessing(rows: Sequence[EpochRow], counts: Sequence[int]) -> str:
    """Say that the loss stays where it is without looking at the images, or return "".

    A network that has begun to learn is below that loss, if only by little: of 32 starts of ModelNet at the default
    learning rate 3 are not after 20 epochs, of 32 at an eighth of it 27.

    Args:
        rows: epochs.
        counts: training images of each class.
    """
    present = [count for count in counts if count]
    blind = blind_loss(counts)
    if any(abs(row.train_loss - blind) > _NEAR for row in rows) or rows[-1].train_loss < blind - _FALLING:
        return ""
    balanced = len(set(present)) == 1
    what = f"ln {len(present)}" if balanced else "what the sizes of the classes alone give"
    return (
        f"after {len(rows)} epochs the loss is still {blind:.3f} = {what}: the network is guessing. "
        f"Try a larger --lr than {rows[-1].lr:g}; lr-find suggests one"
    )


def blind_loss(counts: Sequence[int]) -> float:
    """Return the lowest loss that can be had without looking at the images: the entropy of the classes' sizes."""
    return -sum(count / sum(counts) * math.log(count / sum(counts)) for count in counts if count)


def converged_below(counts: Sequence[int], smoothing: float = 0.0) -> float:
    """Return the training loss half-way between guessing and the lowest that smoothed labels allow: 0 unsmoothed."""
    classes = len(counts)
    wrong = smoothing / classes
    least = -sum(share * math.log(share) for share in (1 - smoothing + wrong, *[wrong] * (classes - 1)) if share)
    return (blind_loss(counts) + least) / 2


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

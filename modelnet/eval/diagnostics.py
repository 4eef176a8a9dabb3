"""Diagnoses a run by its numbers: is it guessing, has it converged, does its accuracy come from an unshuffled order?"""

import math
from collections.abc import Sequence

import torch

from modelnet.eval.loss import blind_loss, build_loss, lowest_loss
from modelnet.nets.registry import LINEAR
from modelnet.options import TrainOptions
from modelnet.plots.figures import Guess
from modelnet.progress import EpochRow

GUESSING_AFTER = 20  # epochs; even a ModelNet that converges has often barely improved after 10
_LAST = 5  # epochs; earlier ones may still learn how many images each class has
_NEAR = 0.03  # of a loss; with too large a rate, a guessing network stays that far above the loss of guessing
FALLING = 0.002  # below the loss of guessing: the network learns slowly, but does not guess
_SEEMS_BETTER = 0.05  # of an accuracy


def guessing(rows: Sequence[EpochRow], counts: Sequence[int], options: TrainOptions) -> str:
    """Say that the loss of the last epochs is that of guessing, the images unseen, or return "".

    A network that has begun to learn is below that loss, if only by little: of 32 starts of ModelNet at the default
    learning rate 3 are not after 20 epochs, of 32 at an eighth of it 27.

    Args:
        rows: epochs.
        counts: training images of each class.
        options: of the training.
    """
    counts_C = torch.tensor(counts)
    blind, answer_C = blind_loss(build_loss(options, counts_C), counts_C)
    if any(abs(row.train_loss - blind) > _NEAR for row in rows[-_LAST:]) or rows[-1].train_loss < blind - FALLING:
        return ""
    answered = int((answer_C > 0).sum())
    is_even = abs(blind - math.log(answered)) < 1e-6  # weights are float32
    what = f"ln {answered}" if is_even else "what the sizes of the classes alone give"
    advice = f"Try another --lr than {rows[-1].lr:g}; lr-find suggests one"
    if options.init == "zeros" and options.model != LINEAR:
        advice = "Leave out --init zeros: hidden layers never learn from it"
    return f"after {len(rows)} epochs the loss is still {blind:.3f} = {what}: the network is guessing. {advice}"


def guess_of(counts: Sequence[int], val_counts: Sequence[int] | None, options: TrainOptions) -> Guess:
    """Return loss and accuracy of the best answer that ignores the image; curves show them as "guessing".

    Args:
        counts: training images of each class; the loss follows from them.
        val_counts: validation images of each class, from which the accuracy follows; None without any.
        options: of the training.
    """
    counts_C = torch.tensor(counts)
    scored = val_counts if val_counts and any(val_counts) else counts
    return Guess(blind_loss(build_loss(options, counts_C), counts_C)[0], max(scored) / sum(scored))


def converged_below(counts: Sequence[int], options: TrainOptions) -> float:
    """Return the training loss half-way between guessing and the lowest that smoothed and mixed labels allow.

    Args:
        counts: training images of each class.
        options: of the training; the lowest is 0 where labels are neither smoothed nor mixed.
    """
    counts_C = torch.tensor(counts)
    loss = build_loss(options, counts_C)
    return (blind_loss(loss, counts_C)[0] + lowest_loss(loss, counts_C, options)) / 2


def unshuffled(row: EpochRow, accuracy: float) -> str:
    """Say that the average accuracy of an epoch class after class is better than the network is, or return "".

    After some images of one class the network says that class to all: right for those that follow, and wrong for the
    classes before, which the average has counted already.

    Args:
        row: the last epoch.
        accuracy: of the network after it, on the training images.
    """
    if row.train_acc - accuracy < _SEEMS_BETTER:
        return ""
    return (
        f"average training loss {row.train_loss:.2f}, accuracy {row.train_acc:.0%}, but {1 - accuracy:.0%} of the "
        "training images are wrong now: the order is not shuffled"
    )

"""Score a network class by class: precision, recall, F1, the confusion matrix, and their text."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from modelnet.eval.evaluate import Outcome
from pipeline.format.classes import ClassId
from pipeline.text import align, show_path

TOP5_FROM = 6  # classes; with fewer, the right one is nearly always in the top five
MATRIX_UP_TO = 10  # classes up to which the text shows the whole matrix


@dataclass(frozen=True)
class ClassScore:
    """The scores of one class.

    Attributes:
        id, name: of the class; the name may be empty.
        images: of it.
        precision: fraction of the images predicted as it that are of it; None where none was predicted.
        recall: fraction of its images predicted as it; None where it has none.
        f1: their harmonic mean, 2 TP / (2 TP + FP + FN); None where the class is in no label and no prediction.
    """

    id: ClassId
    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Scores:
    """The scores of a network on a set of images.

    Attributes:
        images: N.
        loss: mean cross-entropy, without smoothing or class weights.
        accuracy: fraction of the images whose most probable class is the true one.
        top5: fraction whose true class is among the five most probable; None with fewer than six classes.
        classes: by label.
        confusion: [true label][predicted label], numbers of images.
    """

    images: int
    loss: float
    accuracy: float
    top5: float | None
    classes: list[ClassScore]
    confusion: list[list[int]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Scores":
        """Build from `to_dict`'s values.

        Raises:
            KeyError, TypeError: values of another kind.
        """
        return cls(**(values | {"classes": [ClassScore(**one) for one in values["classes"]]}))

    def __str__(self) -> str:
        """Return a table of the classes, a small confusion matrix, and a line with loss and accuracy."""
        names = [show_path(score.name or str(score.id)) for score in self.classes]
        rows = [
            [name, str(s.images), _percent(s.precision), _percent(s.recall), _percent(s.f1)]
            for name, s in zip(names, self.classes, strict=True)
        ]
        lines = align([["class", "images", "precision", "recall", "F1"], *rows])
        if len(names) <= MATRIX_UP_TO:
            cells = [[name, *map(str, row)] for name, row in zip(names, self.confusion, strict=True)]
            lines += ["", *align([["true class \\ predicted", *names], *cells])]
        top5 = "" if self.top5 is None else f", top-5 {self.top5:.1%}"
        images = f"{self.images} image{'' if self.images == 1 else 's'}"
        return "\n".join([*lines, "", f"{images}: loss {self.loss:.4f}, accuracy {self.accuracy:.1%}{top5}"])


def score(outcome: Outcome, class_ids: Sequence[ClassId], class_names: Sequence[str]) -> Scores:
    """Score the predictions of a network.

    Args:
        outcome: of the network on a set of images.
        class_ids, class_names: by the network's label.
    """
    count = len(class_ids)
    confusion_CC = confusion_matrix(outcome.labels_N, outcome.logits_NC.argmax(1), count)
    classes = class_scores(confusion_CC.tolist(), class_ids, class_names)
    top5 = None
    if count >= TOP5_FROM:
        among = (outcome.logits_NC.topk(5, dim=1).indices == outcome.labels_N[:, None]).any(1)
        top5 = among.double().mean().item()
    return Scores(len(outcome.labels_N), outcome.loss, outcome.accuracy, top5, classes, confusion_CC.tolist())


def class_scores(
    confusion: Sequence[Sequence[int]], class_ids: Sequence[ClassId], class_names: Sequence[str]
) -> list[ClassScore]:
    """Return the scores of each class, given [true label][predicted label], numbers of images."""
    right = [row[k] for k, row in enumerate(confusion)]
    true, said = list(map(sum, confusion)), list(map(sum, zip(*confusion, strict=True)))
    return [
        ClassScore(
            id, name, true[k], _ratio(right[k], said[k]), _ratio(right[k], true[k]), _f1(right[k], true[k], said[k])
        )
        for k, (id, name) in enumerate(zip(class_ids, class_names, strict=True))
    ]


def accuracy_interval(correct: float, images: int) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of an accuracy.

    Args:
        correct: images that were classified right.
        images: of them, at least 1.
    """
    z, share = 1.959963984540054, correct / images
    middle = share + z**2 / (2 * images)
    half = z * math.sqrt(share * (1 - share) / images + z**2 / (4 * images**2))
    return (middle - half) / (1 + z**2 / images), (middle + half) / (1 + z**2 / images)


def confusion_matrix(true_N: Tensor, predicted_N: Tensor, classes: int) -> Tensor:
    """Return (C, C) int64, images by true label (rows) and predicted label (columns)."""
    return (true_N * classes + predicted_N).bincount(minlength=classes**2).view(classes, classes)


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _f1(right: int, true: int, said: int) -> float | None:
    return _ratio(2 * right, true + said)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"

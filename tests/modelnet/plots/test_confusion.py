"""The picture of a confusion matrix, of few classes and of many."""

import io

import numpy as np
from PIL import Image

from modelnet.plots.confusion import confused_pairs, confusion_picture


def matrix(classes: int, wrong: int = 3) -> list[list[int]]:
    counts = (np.eye(classes, dtype=int) * 5).tolist()
    for i in range(wrong):
        counts[i][i + 1] = i + 1
    return counts


def size(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_pairs_are_those_off_the_diagonal_the_most_often_first() -> None:
    assert confused_pairs(matrix(5)) == [(3, 2, 3), (2, 1, 2), (1, 0, 1)]


def test_more_than_25_classes_have_the_names_of_confused_pairs_beside() -> None:
    few, many, right = (
        size(confusion_picture(matrix(count, wrong), [f"class {i}" for i in range(count)], "t"))
        for count, wrong in ((25, 3), (26, 3), (26, 0))
    )
    assert many[0] > few[0] and many[0] > many[1]
    assert right[0] < many[0]  # nothing is confused, so nothing stands beside

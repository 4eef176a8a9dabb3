"""Pictures are drawn, and show the numbers they are drawn from."""

import io

import numpy as np
from PIL import Image

from modelnet.plots import loss_curves
from modelnet.runs import EpochRow


def drawn(rows: list[EpochRow], title: str = "run") -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(loss_curves(rows, title))).convert("RGB"))


def rows(losses: list[float], val: bool = False) -> list[EpochRow]:
    return [
        EpochRow(i + 1, x, 0.5, x if val else None, 0.5 if val else None, 0.1, 1, 1, 1) for i, x in enumerate(losses)
    ]


def test_the_curve_is_a_picture_of_the_losses() -> None:
    falling, rising = drawn(rows([3, 2, 1])), drawn(rows([1, 2, 3]))
    assert falling.shape[0] > 400 and falling.shape[1] > 1000
    assert not np.array_equal(falling, rising)
    assert np.array_equal(falling, drawn(rows([3, 2, 1])))


def test_validation_gets_curves_of_its_own() -> None:
    assert not np.array_equal(drawn(rows([3, 2, 1])), drawn(rows([3, 2, 1], val=True)))


def test_any_name_can_be_a_title() -> None:
    for title in ("$x_1", "蛇", "\udcff", "a" * 200):
        drawn(rows([1.0]), title)

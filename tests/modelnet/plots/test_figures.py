"""Pictures are drawn, and show the numbers they are drawn from."""

import io

import numpy as np
from PIL import Image

from modelnet.plots.figures import group_curves, loss_curves
from modelnet.progress import EpochRow


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


def drawn_groups(groups: dict[str, list[list[EpochRow]]]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(group_curves(groups, "group"))).convert("RGB"))


def test_a_group_shows_its_median_and_the_band_between_its_quartiles() -> None:
    narrow = drawn_groups({"": [rows([3, 2, 1])] * 4})
    wide = drawn_groups({"": [rows([3, 2, 1]), rows([3, 2, 1]), rows([4, 3, 2]), rows([2, 1, 0])]})
    tinted = [((picture.min(2) > 150) & (np.ptp(picture, 2) > 20)).sum() for picture in (narrow, wide)]
    assert tinted[1] > 3 * tinted[0]


def test_a_run_that_ended_early_stays_where_it_was() -> None:
    short = drawn_groups({"": [rows([3, 2, 1]), rows([3, 2])]})
    assert np.array_equal(short, drawn_groups({"": [rows([3, 2, 1]), rows([3, 2, 2])]}))


def test_of_many_settings_the_best_have_colors_and_the_others_are_grey() -> None:
    def picture(count: int) -> np.ndarray:
        return drawn_groups({f"lr={i}": [rows([3, 2, 1 + i / 10])] * 2 for i in range(count)})

    def colored(count: int) -> int:
        return int((np.ptp(picture(count)[:, : 12 * 100], 2) > 100).sum())  # without the legend

    assert colored(30) < 1.2 * colored(8)
    assert not np.array_equal(picture(29), picture(30))

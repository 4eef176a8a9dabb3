"""Axes over the epochs: limits, ticks, the line of guessing."""

import itertools

import pytest

from modelnet.plots.axes import MEASURES, draw_runs, epoch_ticks, loss_top, new_figure, parts_shown
from modelnet.progress import EpochRow


def rows(losses: list[float], val: bool = True) -> list[EpochRow]:
    return [
        EpochRow(i + 1, x, 1.0, x if val else None, 1.0 if val else None, 0.1, 9.0, 0.0, 1.0)
        for i, x in enumerate(losses)
    ]


@pytest.mark.parametrize(("first", "last"), [(1, 1), (1, 2), (1, 7), (1, 37), (1, 100), (1, 523), (40, 61)])
def test_first_and_last_epoch_have_ticks_and_no_two_are_close(first: int, last: int) -> None:
    ticks = epoch_ticks(first, last)
    assert ticks[0] == first and ticks[-1] == last and len(ticks) <= 11
    gaps = [after - before for before, after in itertools.pairwise(ticks)]
    assert not gaps or min(gaps) >= max(gaps) / 3


def test_one_spike_does_not_stretch_the_axis() -> None:
    assert loss_top([1600.0, 2.3, 1.9, 1.2, 0.8, 0.5], 2.3) == pytest.approx(1.1 * 2.3)
    assert loss_top([1600.0, *[2.0] * 20], None) == 2.0


def test_falling_losses_are_shown_whole() -> None:
    falling = [2.4 / (epoch + 1) for epoch in range(50)]
    assert loss_top(falling, 2.302) >= 2.4
    assert loss_top([0.9, 0.7], 0.693) == 0.9
    assert loss_top([0.0, 0.0], None) == 1.0


def test_a_spike_above_the_axis_is_said() -> None:
    axes = new_figure(5, 3).subplots()
    draw_runs(axes, {"": [rows([0.7, 1600.0, 0.6, 0.5])]}, "loss", ["train"], 0.69)
    assert axes.get_ylim()[1] < 2
    assert [text.get_text() for text in axes.texts] == ["↑ up to 1,600 in epoch 2"]


@pytest.mark.parametrize("measure", list(MEASURES))
def test_lines_lie_inside_the_frame_beside_the_line_of_guessing(measure: str) -> None:
    axes = new_figure(5, 3).subplots()
    draw_runs(axes, {"": [rows([0.7, 0.3, 0.0, 0.0])]}, measure, ["train", "val"], 0.5)
    low, high = axes.get_ylim()
    drawn = [y for line in axes.get_lines() for y in line.get_ydata()]
    assert low < min(drawn) and max(drawn) < high
    assert "guessing" in axes.get_legend_handles_labels()[1]


def test_runs_without_validation_among_others_are_drawn_by_their_training() -> None:
    assert parts_shown({"a": [rows([1.0])], "b": [rows([1.0], val=False)]}) == ["train"]
    mixed = [*rows([1.0, 0.5]), *rows([9.0, 9.0, 0.4], val=False)[2:]]
    axes = new_figure(5, 3).subplots()
    draw_runs(axes, {"": [mixed]}, "loss", ["train", "val"], None)
    assert axes.get_xticks().tolist() == [1, 2, 3]

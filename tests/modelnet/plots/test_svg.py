"""Figures for a page, in the colors of palette.py: they show the numbers, and refer to nothing outside."""

import math
import re
from dataclasses import replace
from itertools import pairwise

import pytest

from modelnet.plots.svg import curves_svg, forest_svg, histogram_svg, ticks
from modelnet.progress import EpochRow


def rows(losses: list[float], val: bool = True) -> list[EpochRow]:
    return [
        EpochRow(i + 1, x, 0.5, 2 * x if val else None, 0.5 if val else None, 0.1, 1, 1, 1)
        for i, x in enumerate(losses)
    ]


def points(svg: str, color: str) -> list[tuple[float, float]]:
    """Return the points of the curve that is drawn in a color, in the picture's units: y grows downwards."""
    (path,) = re.findall(rf'<path d="([^"]*)" fill="none" stroke="{color}"', svg)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) ([0-9.]+)", path)]


def test_a_curve_falls_as_its_numbers_do_and_is_as_high() -> None:
    svg = curves_svg({"": [rows([3.0, 2.0, 1.5, 1.0])]}, "loss")
    (_, a), (_, b), (_, c), (_, d) = points(svg, "#1f77b4")
    assert b - a == pytest.approx(2 * (c - b), abs=0.2) == pytest.approx(2 * (d - c), abs=0.2)
    (_, e), *_ = points(svg, "#c2410c")  # validation, twice as high
    assert a - e == pytest.approx(3 * (b - a), abs=0.2)


def test_a_group_is_drawn_at_its_median() -> None:
    one = curves_svg({"": [rows([3.0, 2.0, 1.0], val=False)]}, "loss")
    many = curves_svg({"": [rows([x, 2.0, 1.0], val=False) for x in (3.0, 2.9, 3.5, 1.0, 3.5)]}, "loss")
    heights = [[y for _, y in points(svg, "#1f77b4")] for svg in (one, many)]
    steps = [[b - a for a, b in pairwise(ys)] for ys in heights]
    assert steps[1][0] == pytest.approx(steps[1][1], abs=0.2) and steps[0][0] == pytest.approx(steps[0][1], abs=0.2)


def test_groups_are_named_and_a_name_is_text() -> None:
    svg = curves_svg({"<b>&": [rows([1.0, 0.5])], "B": [rows([1.0]), rows([2.0])]}, "acc")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"&lt;b&gt;&amp;", "B", "epoch", "accuracy", "dashed: training"} <= set(labels)
    assert "<b>" not in svg and svg.count("stroke-dasharray") == 2  # training, and the legend; one epoch is a dot
    assert svg.count("<polygon") == 1  # quartiles of the group of two


def test_a_figure_refers_to_nothing_outside_itself() -> None:
    svg = curves_svg({"": [rows([1.0, 0.5]), rows([0.7, 0.6])]}, "loss", 0.7)
    assert svg.startswith("<svg") and "http" not in svg and "<style" not in svg and " id=" not in svg
    assert svg == curves_svg({"": [rows([1.0, 0.5]), rows([0.7, 0.6])]}, "loss", 0.7)


def test_of_hundreds_of_long_runs_a_figure_stays_small() -> None:
    groups = {f"lr={i}": [rows([1 / (1 + epoch + i) for epoch in range(1000)])] for i in range(300)}
    svg = curves_svg(groups, "loss")
    assert len(svg) < 400_000 and "292 others, 40 of them drawn" in svg


def test_a_spike_is_cut_and_named() -> None:
    svg = curves_svg({"": [rows([0.7, 900.0, 0.5, 0.4, 0.3], val=False)]}, "loss", 0.69)
    assert "↑ up to 900" in svg and all(0 <= y <= 300 for _, y in points(svg, "#1f77b4"))
    nothing = curves_svg({"": [[replace(row, train_loss=math.nan) for row in rows([1.0, 2.0], val=False)]]}, "loss")
    assert nothing.startswith("<svg") and "nan" not in nothing


def test_learning_rate_and_throughput_have_curves() -> None:
    run = [replace(row, lr=0.1 * row.epoch, images_per_s=100.0) for row in rows([1.0, 0.5, 0.2])]
    (_, a), (_, b), (_, c) = points(curves_svg({"": [run]}, "lr"), "#1f77b4")
    assert a - b == pytest.approx(b - c, abs=0.2) and a > b
    assert len({y for _, y in points(curves_svg({"": [run]}, "images_per_s"), "#1f77b4")}) == 1


def test_a_histogram_counts_each_value_once() -> None:
    values = [10.0, 10.0, 100.0, 1000.0]
    svg = histogram_svg(values, "pixels", 224, "cache: 224")
    heights = sorted(float(h) for h in re.findall(r'<rect [^>]*height="([^"]*)"', svg))
    assert len(heights) == 3 and heights[2] == pytest.approx(2 * heights[0], abs=0.2)
    assert "cache: 224" in svg and ">100<" in svg and ">1,000<" in svg
    assert "<rect" in histogram_svg([5.0], "x", 5.0, "same")


def test_differences_stand_beside_zero_with_their_intervals() -> None:
    svg = forest_svg([("b – <a>", 2.0, 1.0, 3.0), ("c – a", -1.0, -3.0, 1.0)], "points")
    zero = float(re.findall(r'<line y1="[^"]*" y2="[^"]*" x1="([^"]*)"', svg)[0])
    first, second = (
        [(float(x), float(y)) for x, y in re.findall(r"[ML](\S+?) ([0-9.]+)", path)]
        for path in re.findall(r'<path d="([^"]*)" fill="none" stroke="(?:#1f77b4|#94a3b8)"', svg)
    )
    assert zero < first[0][0] < first[1][0] and second[0][0] < zero < second[1][0]
    assert first[0][1] == first[1][1] < second[0][1] and "b – &lt;a&gt;" in svg


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0, 0.00123), (-7.3, 34.2), (0, 1e6), (3, 3)])
def test_ticks_are_round_and_few(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 8 and all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)

"""Figures for a page, in the colors of palette.py: they show the numbers, and refer to nothing outside."""

import re
from itertools import pairwise

import pytest

from modelnet.plots.svg import curves_svg
from modelnet.progress import EpochRow


def rows(losses: list[float], val: bool = True) -> list[EpochRow]:
    return [
        EpochRow(i + 1, x, 0.5, 2 * x if val else None, 0.5 if val else None, 0.1, 1, 1, 1)
        for i, x in enumerate(losses)
    ]


def points(svg: str, color: str) -> list[tuple[float, float]]:
    """Return the points of the curve that is drawn in a color, in the picture's units: y grows downwards."""
    (path,) = re.findall(rf'<path d="([^"]*)" clip-path="[^"]*" style="fill: none;[^"]*stroke: {color}', svg)
    return [(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path)]


def test_a_curve_falls_as_its_numbers_do_and_is_as_high() -> None:
    svg = curves_svg({"": [rows([3.0, 2.0, 1.5, 1.0])]}, "loss")
    (_, a), (_, b), (_, c), (_, d) = points(svg, "#1f77b4")
    assert b - a == pytest.approx(2 * (c - b), rel=1e-4) == pytest.approx(2 * (d - c), rel=1e-4)
    (_, e), *_ = points(svg, "#c2410c")  # validation, twice as high
    assert a - e == pytest.approx(3 * (b - a), rel=1e-4)


def test_a_group_is_drawn_at_its_median() -> None:
    one = curves_svg({"": [rows([3.0, 2.0, 1.0], val=False)]}, "loss")
    many = curves_svg({"": [rows([x, 2.0, 1.0], val=False) for x in (3.0, 2.9, 3.5, 1.0, 3.5)]}, "loss")
    heights = [[y for _, y in points(svg, "#1f77b4")] for svg in (one, many)]
    steps = [[b - a for a, b in pairwise(ys)] for ys in heights]
    assert steps[1][0] == pytest.approx(steps[1][1], rel=1e-4) and steps[0][0] == pytest.approx(steps[0][1], rel=1e-4)


def test_groups_are_named_and_a_name_is_text() -> None:
    svg = curves_svg({"<b>&": [rows([1.0, 0.5])], "B": [rows([1.0]), rows([2.0])]}, "acc")
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"group &lt;b&gt;&amp;", "group B", "epoch", "validation: accuracy"} <= set(labels)
    assert "<b>" not in svg


def test_a_curve_refers_to_nothing_outside_itself() -> None:
    svg = curves_svg({"": [rows([1.0, 0.5]), rows([0.7, 0.6])]}, "loss")
    assert svg.startswith("<svg") and "http" not in svg and "<style" not in svg
    ids, referred = set(re.findall(r'\sid="([^"]*)"', svg)), set(re.findall(r"#([A-Za-z]\w{8,})", svg))
    assert ids == referred != set()
    assert svg == curves_svg({"": [rows([1.0, 0.5]), rows([0.7, 0.6])]}, "loss")

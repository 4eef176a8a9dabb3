"""Draw figures for a page as SVG: small, sharp at any width, dark on light or light on dark.

Nothing in them refers outside, and every text is escaped. They are written without matplotlib, which needs a tenth of
a second for each: a report has four, and every training ends with a report.
"""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from modelnet.plots.axes import MEASURES, PARTS, Groups, epoch_ticks, group_colors, loss_top, value_of
from modelnet.plots.palette import COLORS, GREY, color_of
from modelnet.progress import EpochRow

LABELS = {**MEASURES, "lr": "learning rate", "images_per_s": "training images/s"}

WIDTH, HEIGHT = 480, 300  # without the legend, in units of the drawing: pixels where a page is wide
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 10, 44
LETTER = 6.6  # width of a letter, on average
MOST_POINTS = 240  # of a line
MOST_OTHERS = 40  # grey lines


class _Key(NamedTuple):
    """A line of the legend."""

    text: str
    color: str
    dashed: bool


class Chart:
    """A plot that is being drawn: numbers become positions, shapes become elements.

    Args:
        x_ends, y_ends: the smallest and the largest number of each axis.
        log_x: a logarithmic x axis.
        left: of the axes, in units of the drawing.
        height: of the drawing.
    """

    def __init__(
        self,
        x_ends: tuple[float, float],
        y_ends: tuple[float, float],
        log_x: bool = False,
        left: float = LEFT,
        height: float = HEIGHT,
    ) -> None:
        self.log_x, self.left, self.height = log_x, left, height
        self.x_ends = tuple(math.log(x) for x in x_ends) if log_x else x_ends
        self.y_ends = y_ends
        self.keys: list[_Key] = []
        self.parts: list[str] = []

    def x(self, value: float) -> float:
        """Return a position."""
        low, high = self.x_ends
        share = ((math.log(value) if self.log_x else value) - low) / ((high - low) or 1)
        return self.left + share * (WIDTH - RIGHT - self.left)

    def y(self, value: float) -> float:
        """Return a position; values beyond the axis stay at its border."""
        low, high = self.y_ends
        share = min(max((value - low) / ((high - low) or 1), -0.02), 1.02)
        return self.height - BOTTOM - share * (self.height - BOTTOM - TOP)

    def line(
        self, xs: Sequence[float], ys: Sequence[float], color: str, dashed: bool = False, thin: bool = False
    ) -> None:
        """Draw a line through points; NaN leaves a gap. Single points are dots."""
        step = max(1, math.ceil(len(xs) / MOST_POINTS))
        kept = [i for i in range(len(xs)) if i % step == 0 or i == len(xs) - 1]
        path, pen = "", "M"
        for i in kept:
            if math.isfinite(ys[i]):
                path += f"{pen}{self.x(xs[i]):.1f} {self.y(ys[i]):.1f}"
            pen = "L" if math.isfinite(ys[i]) else "M"
        if len(kept) == 1 and path:
            self.dot(xs[0], ys[0], color)
            return
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        width = 0.7 if thin else 1.8
        self.parts.append(f'<path d="{path}" fill="none" stroke="{color}" stroke-width="{width}"{dashes}/>')

    def band(self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: str) -> None:
        """Fill the space between two lines."""
        step = max(1, math.ceil(len(xs) / MOST_POINTS))
        there = [(x, a, b) for x, a, b in list(zip(xs, lows, highs, strict=True))[::step] if math.isfinite(a + b)]
        edge = [(x, b) for x, _, b in there] + [(x, a) for x, a, _ in reversed(there)]
        points = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in edge)
        self.parts.append(f'<polygon points="{points}" fill="{color}" fill-opacity="0.18"/>')

    def dot(self, x: float, y: float, color: str) -> None:
        """Draw a point."""
        self.parts.append(f'<circle cx="{self.x(x):.1f}" cy="{self.y(y):.1f}" r="3.2" fill="{color}"/>')

    def bar(self, x: float, end: float, y: float, color: str) -> None:
        """Draw a bar from 0 to y."""
        left, top, bottom = self.x(x), self.y(y), self.y(0)
        size = f'width="{max(self.x(end) - left - 0.5, 0.5):.1f}" height="{bottom - top:.1f}"'
        self.parts.append(f'<rect x="{left:.1f}" y="{top:.1f}" {size} fill="{color}"/>')

    def rule(self, x: float | None = None, y: float | None = None, color: str = GREY) -> None:
        """Draw a dashed line across the plot."""
        ends = (
            f'x1="{self.left}" x2="{WIDTH - RIGHT}" y1="{self.y(y):.1f}" y2="{self.y(y):.1f}"'
            if y is not None
            else f'y1="{TOP}" y2="{self.height - BOTTOM}" x1="{self.x(x or 0):.1f}" x2="{self.x(x or 0):.1f}"'
        )
        self.parts.append(f'<line {ends} stroke="{color}" stroke-width="1.2" stroke-dasharray="2 3"/>')

    def text(self, x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> None:
        """Write at a position."""
        self.parts.append(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>')

    def key(self, text: str, color: str, dashed: bool = False) -> None:
        """Add a line to the legend."""
        if all(key.text != text for key in self.keys):
            self.keys.append(_Key(text, color, dashed))

    def axes(self, x_ticks: Sequence[float], y_ticks: Sequence[float], x_label: str, y_label: str) -> None:
        """Draw the frame, the grid, the ticks and the labels."""
        right, bottom = WIDTH - RIGHT, self.height - BOTTOM
        grid = "".join(f"M{self.x(x):.1f} {TOP}V{bottom}" for x in x_ticks)
        grid += "".join(f"M{self.left} {self.y(y):.1f}H{right}" for y in y_ticks)
        self.parts.insert(0, f'<path d="{grid}" stroke="currentColor" stroke-opacity="0.15"/>')
        frame = (
            f'<path d="M{self.left} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity="0.6"/>'
        )
        self.parts.append(frame)
        for x in x_ticks:
            self.text(self.x(x), bottom + 16, f"{x:,.15g}")
        for y in y_ticks:
            self.text(self.left - 6, self.y(y) + 4, f"{y:,.6g}", "end")
        self.text((self.left + right) / 2, self.height - 8, x_label)
        middle = (TOP + bottom) / 2
        self.text(13, middle, y_label, more=f' transform="rotate(-90 13 {middle:.1f})"')

    def svg(self) -> str:
        """Return the element, with the legend above the plot."""
        rows, x, y = [], 8.0, 14.0
        for key in self.keys:
            width = 26 + len(key.text) * LETTER
            if x > 8 and x + width > WIDTH:
                x, y = 8.0, y + 17
            dashes = ' stroke-dasharray="5 4"' if key.dashed else ""
            rows.append(f'<path d="M{x:.1f} {y - 4:.1f}h18" stroke="{key.color}" stroke-width="2.5"{dashes}/>')
            rows.append(f'<text x="{x + 23:.1f}" y="{y:.1f}">{escape(key.text)}</text>')
            x += width + 10
        above = y + 8 if self.keys else 0
        body = "".join(self.parts)
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height + above:.0f}" role="presentation" font-size="12" '
            f'font-family="sans-serif">{"".join(rows)}<g transform="translate(0 {above:.0f})">{body}</g></svg>'
        )


def curves_svg(groups: Groups, measure: str, guess: float | None = None) -> str:
    """Draw one measure of groups of runs against the epoch: the median of each, and the band between its quartiles.

    Args:
        groups: the runs of each, by a short name; at least one epoch in all.
        measure: a key of `LABELS`.
        guess: loss or accuracy of guessing, drawn as a line where it is known.

    Returns:
        An SVG element, as wide as what it is put into.
    """
    parts, colors = parts_of(groups, measure), group_colors(groups)
    others = [group for group, color in colors.items() if color == GREY]
    own = {group: color_of(number) for number, group in enumerate(g for g in colors if g not in others)}
    lines = [
        _Line(group, part, *_quartiles(groups[group], column))
        for group in [*others[:MOST_OTHERS], *own]
        for part, column in parts.items()
    ]
    lines = [line for line in lines if not np.isnan(line.quartiles_3E).all()]
    known = [float(value) for line in lines for value in line.quartiles_3E[1] if math.isfinite(value)]
    epochs, top = [epoch for line in lines for epoch in line.epochs] or [1], _top(measure, known, guess)
    chart = Chart((min(epochs), max(epochs)), (0, top))
    if guess is not None:
        chart.rule(y=guess)
    for line in lines:
        dashed, several = line.part != [*parts][-1], len(groups) > 1
        color = GREY if line.group in others else own[line.group] if several else color_of([*parts].index(line.part))
        low, middle, high = line.quartiles_3E.tolist()
        if len(groups[line.group]) > 1 and line.group in own and not (dashed and several):
            chart.band(line.epochs, low, high, color)
        chart.line(line.epochs, middle, color, dashed, thin=line.group in others)
        if line.group in own and (several or len(parts) > 1):
            chart.key(line.group if several else line.part, color, dashed and not several)
    if len(groups) > 1 and len(parts) > 1:
        chart.key("dashed: training", "currentColor", True)
    if others:
        drawn = f", {MOST_OTHERS} of them drawn" if len(others) > MOST_OTHERS else ""
        chart.key(f"{len(others)} others{drawn}", GREY)
    if guess is not None:
        chart.key("guessing", GREY, True)
    if known and max(known) > top * 1.0001:
        chart.text((LEFT + WIDTH) / 2, TOP + 13, f"↑ up to {max(known):,.4g}")
    chart.axes(epoch_ticks(min(epochs), max(epochs)), ticks(0, top), "epoch", LABELS[measure])
    return chart.svg()


class _Line(NamedTuple):
    """A part of a group's runs, (3, E): lower quartile, median and upper quartile of each epoch."""

    group: str
    part: str
    epochs: list[int]
    quartiles_3E: NDArray[np.float64]


def parts_of(groups: Groups, measure: str) -> dict[str, str]:
    """Return the columns that show a measure, by their names; validation last, where a run has any."""
    if measure not in MEASURES:
        return {LABELS[measure]: measure}
    validated = any(rows[0].val_loss is not None for runs in groups.values() for rows in runs)
    return {PARTS[part]: f"{part}_{measure}" for part in (("train", "val") if validated else ("train",))}


def _quartiles(runs: Sequence[Sequence[EpochRow]], column: str) -> tuple[list[int], NDArray[np.float64]]:
    """Return the epochs and the quartiles of each; a run that ended early stays at its last row."""
    length = max(map(len, runs))
    padded = [[*rows, *[rows[-1]] * (length - len(rows))] for rows in runs]
    values_RE = np.array([[value_of(row, column) for row in rows] for rows in padded])
    return [row.epoch for row in max(runs, key=len)], np.quantile(values_RE, (0.25, 0.5, 0.75), axis=0)


def _top(measure: str, known: Sequence[float], guess: float | None) -> float:
    if measure == "acc":
        return 1.0
    if measure == "loss" and known:
        return loss_top(known, guess)
    return 1.04 * max(known, default=1.0) or 1.0


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return at most about `most` round numbers from low to high."""
    span = (high - low) or 1.0
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers between two positive ones, on a logarithmic axis."""
    digits = (
        (1, 2, 3, 5, 7) if high / low < 10 else (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 3000 else (1,)
    )
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [digit * 10.0**power for power in powers for digit in digits]
    return [float(f"{value:.6g}") for value in found if low <= value <= high]


def histogram_svg(values: Sequence[float], label: str, line: float, line_label: str) -> str:
    """Draw how many images have which value, on a logarithmic axis, for a page.

    Args:
        values: greater than 0, at least one.
        label: of the axis.
        line, line_label: a value that is marked, and what it is.

    Returns:
        As `curves_svg`.
    """
    low, high = min(min(values), line) / 1.05, max(max(values), line) * 1.05
    counts, edges = np.histogram(values, np.geomspace(low, high, 41))
    chart = Chart((low, high), (0, int(counts.max()) * 1.05), log_x=True)
    for count, start, end in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        if count:
            chart.bar(start, end, count, COLORS[0])
    chart.rule(x=line, color=COLORS[1])
    chart.key(line_label, COLORS[1], dashed=True)
    whole = [tick for tick in ticks(0, int(counts.max()) * 1.05) if tick == int(tick)]
    chart.axes(log_ticks(low, high), whole, label, "images")
    return chart.svg()


def forest_svg(rows: Sequence[tuple[str, float, float, float]], label: str) -> str:
    """Draw differences with their intervals, one below the other, beside a line at 0.

    Args:
        rows: name, difference, low and high end of each interval.
        label: of the axis.

    Returns:
        As `curves_svg`.
    """
    ends = [0.0, *(value for _, _, low, high in rows for value in (low, high))]
    margin = 0.05 * (max(ends) - min(ends)) or 1.0
    names = [name if len(name) <= 30 else f"{name[:29]}…" for name, *_ in rows]
    left = 16 + max(map(len, names)) * LETTER
    chart = Chart(
        (min(ends) - margin, max(ends) + margin), (len(rows), 0), left=left, height=TOP + BOTTOM + 26 * len(rows)
    )
    chart.rule(x=0.0, color="currentColor")
    for place, (name, (_, value, low, high)) in enumerate(zip(names, rows, strict=True)):
        color = COLORS[0] if low > 0 or high < 0 else GREY
        chart.line((low, high), (place + 0.5, place + 0.5), color)
        chart.dot(value, place + 0.5, color)
        chart.text(left - 8, chart.y(place + 0.5) + 4, name, "end")
    chart.axes(ticks(min(ends) - margin, max(ends) + margin), [], label, "")
    return chart.svg()

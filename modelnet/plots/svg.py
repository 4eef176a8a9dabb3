"""Draw figures as SVG for a page: sharp at any width, in the colors around them, without anything outside them."""

import io
import re
from collections.abc import Sequence
from typing import Any

from modelnet.plots.axes import Groups, draw_runs, parts_shown
from modelnet.plots.palette import COLORS


def curves_svg(groups: Groups, measure: str, guess: float | None = None) -> str:
    """Draw one measure of groups of runs against the epoch, for a page: small, and dark on light or light on dark.

    Args:
        groups: the runs of each, by a short name; at least one epoch in all.
        measure: "loss" or "acc".
        guess: loss or accuracy of guessing, drawn as a line where it is known.

    Returns:
        An SVG element without anything that refers outside it, as wide as what it is put into.
    """
    figure, axes = _new_figure()
    named = groups if len(groups) == 1 else {f"group {name}": runs for name, runs in groups.items()}
    draw_runs(axes, named, measure, parts_shown(groups), guess)
    axes.legend(frameon=False, fontsize="small", ncols=2 if len(groups) > 4 else 1)
    return _svg_of(figure, measure)


def histogram_svg(values: Sequence[float], label: str, line: float, line_label: str) -> str:
    """Draw how many images have which value, on a logarithmic axis, for a page.

    Args:
        values: greater than 0, at least one.
        label: of the axis.
        line, line_label: a value that is marked, and what it is.

    Returns:
        As `curves_svg`.
    """
    import numpy as np
    from matplotlib.ticker import LogLocator

    figure, axes = _new_figure()
    low, high = min(*values, line), max(*values, line)
    edges = np.geomspace(low / 1.05, high * 1.05, 41)
    axes.hist(values, bins=edges, color=COLORS[0])
    axes.axvline(line, color=COLORS[1], linestyle="--", linewidth=1.2, label=line_label)
    subs = (1, 2, 3, 5) if high / low < 30 else (1, 3) if high / low < 1000 else (1,)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=subs))
    axes.xaxis.set_major_formatter("{x:.15g}")
    axes.xaxis.set_minor_formatter("")
    axes.set(xlabel=label, ylabel="images")
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small")
    return _svg_of(figure, label)


def _new_figure() -> tuple[Any, Any]:
    """Make a figure for a page, and its axes."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained", facecolor="none")
    FigureCanvasSVG(figure)
    axes = figure.subplots()
    axes.set_facecolor("none")
    axes.set_prop_cycle(color=COLORS)
    return figure, axes


def _svg_of(figure: Any, salt: str) -> str:
    """Return a figure as an SVG element; its ids follow from `salt`, so that those of two figures differ."""
    import matplotlib

    text = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _for_a_page(text.getvalue())


def _for_a_page(svg: str) -> str:
    """Reduce an SVG file to fit into a page: no declarations, no unused ids, no black of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sxmlns(?::xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r'\1 role="presentation"', svg)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]*;", "font-family: sans-serif;", svg)
    referred = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in referred else "", svg)
    return svg.replace("#000000", "currentColor")

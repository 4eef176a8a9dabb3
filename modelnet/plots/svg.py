"""Draw loss and accuracy of runs against the epoch as SVG for a page: sharp at any width, in the colors around it."""

import io
import re

from modelnet.plots.axes import Groups, draw_runs, parts_shown

_COLORS = ["#1f77b4", "#c2410c", "#15803d", "#9333ea", "#be185d", "#a16207", "#64748b", "#0e9f9f"]  # on light and dark


def curves_svg(groups: Groups, measure: str, guess: float | None = None) -> str:
    """Draw one measure of groups of runs against the epoch, for a page: small, and dark on light or light on dark.

    Args:
        groups: the runs of each, by a short name; at least one epoch in all.
        measure: "loss" or "acc".
        guess: loss or accuracy of guessing, drawn as a line where it is known.

    Returns:
        An SVG element without anything that refers outside it, as wide as what it is put into.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": measure}):
        figure = Figure(figsize=(5, 3.4), layout="constrained", facecolor="none")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        axes.set_facecolor("none")
        axes.set_prop_cycle(color=_COLORS)
        named = groups if len(groups) == 1 else {f"group {name}": runs for name, runs in groups.items()}
        draw_runs(axes, named, measure, parts_shown(groups), guess)
        axes.legend(frameon=False, fontsize="small", ncols=2 if len(groups) > 4 else 1)
        text = io.StringIO()
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

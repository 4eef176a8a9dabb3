"""Loss and accuracy of runs against the epoch, as SVG for a page: sharp at any width, in the colors around it."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from modelnet.plots.figures import COLORED, GREY, draw_band, group_colors
from modelnet.progress import EpochRow

MEASURES = {"loss": "cross-entropy loss", "acc": "accuracy"}
PARTS = {"train": "training (running mean)", "val": "validation"}
_COLORS = ["#1f77b4", "#c2410c", "#15803d", "#9333ea", "#be185d", "#a16207", "#64748b", "#0e9f9f"]  # on light and dark


def curves_svg(groups: Mapping[str, Sequence[Sequence[EpochRow]]], measure: str) -> str:
    """Draw one measure of groups of runs against the epoch, for a page: small, and dark on light or light on dark.

    Args:
        groups: the runs of each, by a short name; at least one epoch in all.
        measure: "loss" or "acc".

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
        _draw_curves(axes, groups, measure)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _for_a_page(text.getvalue())


def _for_a_page(svg: str) -> str:
    """Keep of an SVG file what belongs into a page: no declarations, no names that nothing refers to, no own black."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r'\sxmlns(?::xlink)?="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r'\1 role="presentation"', svg)
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]*;", "font-family: sans-serif;", svg)
    referred = set(re.findall(r"#(\w+)", svg))
    svg = re.sub(r'\sid="([^"]*)"', lambda found: found[0] if found[1] in referred else "", svg)
    return svg.replace("#000000", "currentColor")


def parts_shown(groups: Mapping[str, Sequence[Sequence[EpochRow]]]) -> list[str]:
    """Return what is drawn: "train" and "val" of one group; of several, the one that they can be compared by."""
    validated = all(rows[0].val_loss is not None for runs in groups.values() for rows in runs)
    parts = ["train", "val"] if validated else ["train"]
    return parts if len(groups) == 1 else parts[-1:]


def _draw_curves(axes: Any, groups: Mapping[str, Sequence[Sequence[EpochRow]]], measure: str) -> None:
    """Draw groups of runs by their medians and quartiles."""
    from matplotlib.ticker import MaxNLocator

    axes.set_prop_cycle(color=_COLORS)
    parts = parts_shown(groups)
    for group, color in group_colors(groups).items():
        for part in parts:
            label = PARTS[part] if len(groups) == 1 else f"group {group}"
            style = "--" if part != parts[-1] else "-"
            draw_band(axes, groups[group], f"{part}_{measure}", label, color, style)
    if len(groups) > COLORED:
        axes.plot([], [], color=GREY, label=f"{len(groups) - COLORED} others")
    of = "" if len(groups) == 1 else f"{PARTS[parts[-1]]}: "
    top = 1.02 if measure == "acc" else 1.05 * axes.get_ylim()[1]
    axes.set(xlabel="epoch", ylabel=f"{of}{MEASURES[measure]}", ylim=(0, top))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize="small", ncols=2 if len(groups) > 4 else 1)

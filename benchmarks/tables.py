"""Tables of figures, as Markdown, with ratios."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.timing import Measured, number
from pipeline.system.processes import usable_cores


@dataclass
class Table:
    """Figures of systems that were measured side by side.

    Attributes:
        title: what was measured, with the unit.
        columns: of the figures; the first column is the system's name.
        rows: cells of text by system.
        notes: what a reader must know.
    """

    title: str
    columns: Sequence[str]
    rows: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, system: str, *cells: "str | float") -> None:
        """Add the row of a system."""
        self.rows[system] = [cell if isinstance(cell, str) else number(cell) for cell in cells]

    def __str__(self) -> str:
        lines = [f"### {self.title}", "", _line(["", *self.columns]), _line(["---"] + ["---:"] * len(self.columns))]
        lines += [_line([system, *cells]) for system, cells in self.rows.items()]
        return "\n".join(lines + [""] + [f"{note}\n" for note in self.notes])


def compare(title: str, columns: Mapping[str, Mapping[str, Measured]], against: Mapping[str, Sequence[str]]) -> Table:
    """Lay out figures, larger is better, with spread and ratios.

    Args:
        title: with the unit.
        columns: by column, the figure of each system.
        against: ratio columns: what it is called -> the systems of which the best is 1.
    """
    shown = [f"{column}{what}" for column in columns for what in ("", *(f" {name}" for name in against))]
    table = Table(title, shown)
    for system in {system: None for column in columns.values() for system in column}:
        cells: list[str] = []
        for column in columns.values():
            if system not in column:
                cells += ["–"] * (1 + len(against))
                continue
            figure = column[system]
            cells.append(f"{number(figure.median)} ({figure.spread})")
            cells += [f"{figure.over(best(column, bases)):.2f}" for bases in against.values()]
        table.add(system, *cells)
    return table


def best(column: Mapping[str, Measured], systems: Sequence[str]) -> Measured:
    """Return the figures of the fastest of some systems."""
    return max((column[system] for system in systems), key=lambda measured: measured.median)


def write(tables: Sequence[Table], path: Path, about: str) -> None:
    """Write tables as one markdown file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([about, "", *map(str, tables)]))


def machine() -> str:
    """Say what it was measured on: processor, usable cores, memory, versions."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.partition(": ")[2] for line in info.read_text().splitlines() if "model name" in line), cpu)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        cpu += " without bfloat16"
    return (
        f"{cpu}, {usable_cores()} cores, {memory:.0f} GB{gpu}; "
        f"Python {platform.python_version()}, PyTorch {torch.__version__.partition('+')[0]}"
    )


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"

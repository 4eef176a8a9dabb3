"""Summarize a group of networks by setting, with medians and quartiles, as text, table and picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from modelnet.compare.selection import Selection, select_runs
from modelnet.eval.diagnostics import unshuffled
from modelnet.options import TrainOptions
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from modelnet.runs.provenance import result_of
from modelnet.runs.reader import DIVERGED, FINISHED
from modelnet.runs.tables import _MEASURES, mean_row, median_row, result_row
from modelnet.sweep.grid import label, shown, varied
from modelnet.sweep.out_of_fold import OutOfFold
from pipeline.text import align

NO_MEMORY = "out of memory"  # a state, as FINISHED and DIVERGED are; "" is unfinished


@dataclass(frozen=True)
class SweepResult:
    """How the networks of a group ended; every list has an entry for each.

    Attributes:
        members: options.
        runs: folders.
        rows: a row an epoch; fewer where it diverged or patience ended.
        states: "finished", "diverged" or "out of memory"; "" where training goes on.
        limits: the last training loss below which a network counts as converged.
        trained_accuracy: of the network at its end on its training images, where their order was not shuffled and it
            ended now; else None.
        interrupted: whether they were asked to stop before the last epoch.
        validated: number of images that it is validated on.
        out_of_fold: of each setting whose folds were all trained.
        selection: by how much the best setting looks better than it is, where several validated on the same images.
    """

    members: list[TrainOptions]
    runs: list[Path]
    rows: list[list[EpochRow]]
    states: list[str]
    limits: list[float]
    trained_accuracy: list[float | None]
    interrupted: bool = False
    validated: Sequence[int] = ()
    out_of_fold: Sequence[OutOfFold] = ()
    selection: Selection | None = None

    @property
    def picture(self) -> Path:
        """The curves of all."""
        return self.runs[0] / "seeds.png"

    @property
    def table(self) -> Path:
        """All networks, a line each; with it the group can be resumed."""
        return self.runs[0] / "group.csv"

    @property
    def converged(self) -> int:
        """How many did."""
        return sum(self._has_converged(i) for i in range(len(self.runs)))

    def _failed(self, i: int) -> bool:
        return self.states[i] in (DIVERGED, NO_MEMORY)

    def _has_converged(self, i: int) -> bool:
        rows = self.rows[i]
        return bool(rows) and not self._failed(i) and rows[-1].train_loss < self.limits[i]

    @property
    def settings(self) -> dict[str, list[int]]:
        """The networks of each setting, by its label."""
        names = varied(self.members)
        found: dict[str, list[int]] = {}
        for i, options in enumerate(self.members):
            found.setdefault(label(options, names), []).append(i)
        return found

    def selected(self) -> Selection | None:
        """Say by how much the best setting looks better than it is; None of one setting, and without validation."""
        finished = {i for i, state in enumerate(self.states) if state == FINISHED and self.validated[i]}
        whole = [[ns for ns in self._repeats(members) if finished.issuperset(ns)] for members in self.settings.values()]
        known = [[[self.runs[i] for i in networks] for networks in seeds] for seeds in whole if seeds]
        return select_runs(known, np.nanmedian) if len(known) > 1 else None

    def _repeats(self, members: Sequence[int]) -> list[list[int]]:
        """Return the networks of each seed and data seed: one, or one for each fold."""
        found: dict[tuple[int, int], list[int]] = {}
        for i in members:
            found.setdefault((self.members[i].seed, self.members[i].data_seed), []).append(i)
        return list(found.values())

    def curves(self) -> dict[str, list[list[EpochRow]]]:
        """Return the curves to draw: by setting, the rows of the networks that did not fail."""
        alive = {
            name: [i for i in members if self.rows[i] and not self._failed(i)]
            for name, members in self.settings.items()
        }
        return {name: [self.rows[i] for i in members] for name, members in alive.items() if members}

    def write(self) -> None:
        """Write the table of all networks into the folder of the first."""
        names = varied(self.members)
        more = [name for name in ("labels", "fold", "seed", "data_seed") if name not in names]
        header = ["run", *names, *more, "epochs", *_MEASURES, "converged", "state"]
        lines: list[list[Any]] = []
        for i, (options, run, rows) in enumerate(zip(self.members, self.runs, self.rows, strict=True)):
            values = [getattr(self._end([i]), column) for column in _MEASURES] if rows else [None] * len(_MEASURES)
            setting = [shown(getattr(options, name)) for name in names]
            ended = int(self._has_converged(i)) if rows else ""
            which = [*(getattr(options, name) for name in more), len(rows)]
            cells = ["" if value is None else value for value in (*which, *values)]
            lines.append([run.name, *setting, *cells, ended, self.states[i]])
        RunFolder(self.runs[0]).write_group(header, lines)

    def __str__(self) -> str:
        """Return a table of the settings, or of the networks of a single setting, and a sentence on all."""
        settings = self.settings
        lines = self._networks() if len(settings) == 1 else self._of_settings(settings)
        return "\n".join([*lines, "", *self._sentences(settings)])

    def _columns(self) -> list[str]:
        rows = next((rows for rows in self.rows if rows), [])
        return [name for name in _MEASURES if rows and getattr(rows[-1], name) is not None]

    def _networks(self) -> list[str]:
        columns = self._columns()
        orders = len({options.data_seed for options in self.members}) > 1
        head = ["seed", *(["data seed"] if orders else []), *columns, "run"]
        table = [head]
        for networks in self._repeats(range(len(self.runs))):
            options, whole = self.members[networks[0]], all(self.rows[i] for i in networks)
            cells = [_number(column, getattr(self._end(networks), column)) if whole else "" for column in columns]
            names = " ... ".join(dict.fromkeys(self.runs[i].name for i in (networks[0], networks[-1])))
            table.append([str(options.seed), *([str(options.data_seed)] if orders else []), *cells, names])
        for what, part in (("lower quartile", 0.25), ("median", 0.5), ("upper quartile", 0.75)):
            cells = [_number(column, self._quantile(range(len(self.runs)), column, part)) for column in columns]
            table.append([what, *([""] if orders else []), *cells, ""])
        return align(table, (len(head) - 1,), gap="   ")

    def _of_settings(self, settings: dict[str, list[int]]) -> list[str]:
        columns = self._columns()
        table = [["setting", *(f"{column} (quartiles)" for column in columns), "converged"]]
        for name, members in settings.items():
            cells = []
            for column in columns:
                low, middle, high = (_number(column, self._quantile(members, column, p)) for p in (0.25, 0.5, 0.75))
                cells.append(middle if middle == "–" else f"{middle} ({low}–{high})")
            converged = f"{sum(map(self._has_converged, members))} of {len(members)}"
            table.append([name, *cells, ", ".join([converged, *self._failures(members)])])
        return align(table, gap="   ")

    def _sentences(self, settings: dict[str, list[int]]) -> list[str]:
        lines = [f"converged in {self.converged} of {len(self.runs)} starts"]
        if failures := self._failures(range(len(self.runs))):
            lines[0] += f"; {', '.join(failures)}, and are in no median"
        lines += self._unshuffled()
        lines += [
            f"{f'{label(self.members[one.first], varied(self.members))}: ' * (len(settings) > 1)}{one}"
            for one in self.out_of_fold
        ]
        if len(settings) > 1 and self._columns():
            column = "val_acc" if "val_acc" in self._columns() else "train_loss"
            sign = 1 if column == "val_acc" else -1
            medians = {name: sign * self._quantile(members, column, 0.5) for name, members in settings.items()}
            known = [name for name, value in medians.items() if value == value]
            what = "highest median validation accuracy" if sign == 1 else "lowest median training loss"
            if known:
                best = max(known, key=medians.__getitem__)
                picked = f"; picked among {len(known)} settings, it reads too {'high' if sign == 1 else 'low'}"
                picked = picked if self.selection is None else f"; {self.selection}"
                lines.append(f"{what}: {_number(column, sign * medians[best])} with {best}{picked}")
        return lines

    def _failures(self, members: Sequence[int]) -> list[str]:
        """Count the networks that failed, by what happened."""
        counts = {what: sum(self.states[i] == what for i in members) for what in (DIVERGED, NO_MEMORY)}
        return [f"{count} {'ran ' if what == NO_MEMORY else ''}{what}" for what, count in counts.items() if count]

    def _unshuffled(self) -> list[str]:
        """Say that the networks which were trained class after class are worse than they seem, where they are."""
        found = [
            (rows[-1], accuracy)
            for rows, accuracy in zip(self.rows, self.trained_accuracy, strict=True)
            if rows and accuracy is not None
        ]
        if not found:
            return []
        hint = unshuffled(median_row([row for row, _ in found]), median(accuracy for _, accuracy in found))
        return [f"hint: in the median: {hint}; converged counts the average training loss alone"] if hint else []

    def _end(self, networks: Sequence[int]) -> EpochRow:
        """Return the epoch whose weights are the result of a network: the best where patience chose it.

        Of the networks of all folds the mean, in which each image that was validated on counts the same.
        """
        ends = [result_row(self.rows[i], result_of(self.members[i])) for i in networks]
        return ends[0] if len(ends) == 1 else mean_row(ends, [self.validated[i] for i in networks])

    def _quantile(self, members: Sequence[int], column: str, part: float) -> float:
        """Return a quantile of the final values of seeds, without those of which a network failed."""
        whole = [ns for ns in self._repeats(members) if all(self.rows[i] and not self._failed(i) for i in ns)]
        values = [getattr(self._end(networks), column) for networks in whole]
        return float(np.quantile(values, part)) if values else float("nan")


def _number(column: str, value: float) -> str:
    if value != value:
        return "–"
    return f"{value:.1%}" if column.endswith("acc") else f"{value:.4f}"

"""List runs for people and scripts: state, result with its interval, and the options in which they differ."""

import fcntl
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modelnet.eval.scores import accuracy_interval
from modelnet.options import OPTIONS, Scope
from modelnet.options.declaration import as_text, plain
from modelnet.pages.run import Run
from modelnet.runs.kind import images_of
from pipeline.errors import PipelineError, RunError
from pipeline.text import align, command_line, show_path


@dataclass(frozen=True)
class ListedRun:
    """A run as a line of a list.

    Attributes:
        run: the folder.
        state: "finished", "diverged", "training" or "stopped"; "unreadable" with the reason in `problem`.
        epochs, epochs_done: asked for, and finished.
        options: those in which the listed runs differ, as training uses them, seeds among them.
        images, accuracy, low, high: number of validation images, the accuracy on them by the weights that are the
            result, and the ends of its 95 % interval; None without validation.
        train_loss: of the result; None before the first epoch.
        caches: fingerprints of the images trained and validated on.
        problem: why the folder cannot be read.
    """

    run: str
    state: str
    epochs: int = 0
    epochs_done: int = 0
    options: dict[str, Any] | None = None
    images: int | None = None
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    train_loss: float | None = None
    caches: tuple[str, ...] = ()
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"caches": list(self.caches)}

    @property
    def result(self) -> str:
        """The accuracy with its interval, or the training loss where there is none."""
        if self.accuracy is None:
            return "" if self.train_loss is None else f"training loss {self.train_loss:.4f}"
        return f"{self.accuracy:.1%} ({self.low:.1%} to {self.high:.1%})"


def list_runs(paths: Iterable[Path]) -> list[ListedRun]:
    """Read runs, each by itself: one that cannot be read has a line that says why."""
    runs: dict[Path, Run | PipelineError] = {}
    for path in paths:
        try:
            runs[path] = Run.read(path)
        except PipelineError as error:
            runs[path] = error
    differing = _differing([run for run in runs.values() if isinstance(run, Run)])
    return [
        _listed(run, differing) if isinstance(run, Run) else ListedRun(os.fspath(path), "unreadable", problem=str(run))
        for path, run in runs.items()
    ]


def runs_in(folder: Path) -> list[Path]:
    """Return the folders of runs in a folder, by name.

    Raises:
        RunError: there are none.
    """
    found = sorted(path.parent for path in folder.glob("*/config.json"))
    if not found:
        raise RunError("no runs there", folder, "no folder in it has a config.json", f"Type: {command_line()} train")
    return found


def runs_table(runs: Sequence[ListedRun]) -> str:
    """Return a line for each run; options at their defaults are left out."""
    rows = [["run", "state", "epochs", "validation accuracy (95 %)", "options that differ"]]
    for run in runs:
        if run.problem:
            rows.append([show_path(run.run), run.state, "", "", ""])
            continue
        changed = {name: v for name, v in (run.options or {}).items() if v != plain(OPTIONS[name].default)}
        options = " ".join(
            f"{OPTIONS[name].flag.removeprefix('--')}={show_path(as_text(v))}" for name, v in changed.items()
        )
        rows.append([show_path(run.run), run.state, f"{run.epochs_done}/{run.epochs}", run.result, options])
    return "\n".join([*align(rows, left=(0, 1, 3, 4)), *(f"warning: {run.problem}" for run in runs if run.problem)])


def _differing(runs: Sequence[Run]) -> list[str]:
    shown = [o.name for o in OPTIONS.values() if o.compared or o.seed or o.scope is Scope.IMAGES]
    resolved = [run.options.resolved() for run in runs]
    return [name for name in shown if len({str(values[name]) for values in resolved}) > 1]


def _listed(run: Run, differing: Sequence[str]) -> ListedRun:
    resolved = run.options.resolved()
    images = accuracy = low = high = None
    end = run.result if run.rows else None
    if end is not None and end.val_acc is not None:
        images, accuracy = run.config["val"]["images"], end.val_acc
        low, high = accuracy_interval(accuracy * images, images)
    return ListedRun(
        os.fspath(run.path),
        _state(run),
        run.options.epochs,
        run.epochs_done,
        {name: resolved[name] for name in differing},
        images,
        accuracy,
        low,
        high,
        None if end is None else end.train_loss,
        tuple(images_of(side) for side in (run.config["cache"], run.config["val"]) if side),
    )


def _state(run: Run) -> str:
    if run.divergence:
        return "diverged"
    if run.has_ended:
        return "finished"
    return "training" if _is_held(run.path) else "stopped"


def _is_held(path: Path) -> bool:
    """Say whether a process trains in a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a disk without locks
        return False
    finally:
        os.close(fd)
    return False

"""Count the looks at the test images of a split: each one that decides something makes the next less honest."""

import csv
import fcntl
import io
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path

from modelnet.runs.publish import storage_errors
from modelnet.runs.reader import RunReader
from pipeline.system import files
from pipeline.text import csv_text, show_path

COLUMNS = ["time", "command", "runs"]


def looks_path(split: Path) -> Path:
    """Return the table of looks beside a split: <split>.looks.csv; of a link, beside the file that it leads to."""
    split = split.resolve() if split.is_symlink() else split
    return split.with_name(f"{split.name.removesuffix('.csv')}.looks.csv")


def check_can_note(run: Path) -> Path:
    """Return the split of a run, beside which looks are noted; refuse now what `add_look` would refuse afterwards.

    Raises:
        OptionsError: the run has no split. RunError: it is gone, or was changed.
        As `add_look` otherwise.
    """
    split = RunReader(run).split_path()
    path = looks_path(split)
    with _noting(path):
        files.check_can_publish(path)
    return split


def add_look(split: Path, command: str, runs: Sequence[Path]) -> str:
    """Note a look at the test images, before its result is shown or kept; return a sentence that counts the looks.

    Args:
        split: the table of folds that the runs name.
        command: that looks.
        runs: that are looked at.

    Raises:
        StorageError, AccessDenied: it cannot be noted.
    """
    path = looks_path(split)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with _noting(path), path.open("a+b") as file:
        with suppress(OSError):  # a disk without locks: looks at the same moment may have the same number
            fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = list(csv.reader(io.StringIO(file.read().decode("utf-8", "surrogateescape"), newline="")))
        line = [when, command, shlex.join(map(str, runs))]
        file.write(csv_text([line] if before else [COLUMNS, line]).encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    return f"look {max(len(before), 1)} at the test images of {show_path(split)}; {show_path(path)} lists all looks"


def add_looks(splits: Mapping[Path, Path], command: str) -> list[str]:
    """Note a look at the test images of several runs, one for each split, and return a sentence for each.

    Its content tells a split, not the path that a run names it by. Of copies, each has a table, and the look stands
    in all of these.

    Args:
        splits: by run, as `check_can_note` returns it.
        command: that looks.

    Raises:
        As `add_look`.
    """
    runs_of: dict[str, list[Path]] = {}
    for run in splits:
        runs_of.setdefault(RunReader(run).read_config()["split"]["sha256"], []).append(run)
    said = []
    for runs in runs_of.values():
        tables: dict[Path, Path] = {}
        for run in runs:
            tables.setdefault(looks_path(splits[run]).resolve(), splits[run])
        of_tables = [add_look(split, command, runs) for split in tables.values()]
        said.append(of_tables[0])
    return said


def _noting(path: Path) -> AbstractContextManager[None]:
    advice = "No result is shown without it: make the folder of the split writable"
    return storage_errors(path, "the look at the test images cannot be noted", advice)

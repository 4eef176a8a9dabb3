"""Count the looks at the test images of a split: each one that decides something makes the next less honest."""

import csv
import fcntl
import io
import os
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from modelnet.runs.publish import storage_errors
from pipeline.text import csv_text, show_path

COLUMNS = ["time", "command", "runs"]


def looks_path(split: Path) -> Path:
    """Return the table of looks beside a split: <split>.looks.csv."""
    return split.with_name(f"{split.name.removesuffix('.csv')}.looks.csv")


def add_look(split: Path, command: str, runs: Sequence[Path]) -> str:
    """Note a look at the test images, before its result is shown; return a sentence that says how many there were.

    Args:
        split: the table of folds that the runs name.
        command: that looks.
        runs: that are looked at.

    Raises:
        StorageError, AccessDenied: it cannot be noted.
    """
    path = looks_path(split)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    with storage_errors(path), path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        before = list(csv.reader(io.StringIO(file.read().decode("utf-8", "surrogateescape"), newline="")))
        line = [when, command, shlex.join(map(str, runs))]
        file.write(csv_text([line] if before else [COLUMNS, line]).encode("utf-8", "surrogateescape"))
        file.flush()
        os.fsync(file.fileno())
    return f"look {max(len(before), 1)} at the test images of {show_path(split)}; {show_path(path)} lists all looks"

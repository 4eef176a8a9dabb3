"""Anonymous memory (what no file stands behind) of training and of building, at few rows and at many."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from PIL import Image

from benchmarks.dataset import Workplace, draw_cache, invented_manifest, replicate
from benchmarks.tables import Table
from benchmarks.timing import number
from pipeline import Recipe
from pipeline.source.scan import scan_source

CLI = Path(__file__).resolve().parent.parent / "cli.py"
FEW, MANY = 1_000, 100_000
SMALL = 64  # side of the photographs that are built, in pixels
SECONDS = 60.0  # a training run that takes longer is asked to stop: its memory does not grow any more


def measure(work: Workplace) -> list[Table]:
    """Run the command line's `train` and `build-cache` and look at them from outside."""
    few, many = work.scaled(FEW, 100), work.scaled(MANY, 1000)
    table = Table(
        f"Anonymous memory at {few:,} and {many:,} rows, MB, all processes of a run together, at its highest",
        (f"{few:,} rows", f"{many:,} rows", "difference", "bytes a row"),
        notes=[
            "Training reads rows of zeros at 224 × 224 (float32). Building decodes photographs of 64 × 64 to 32 × 32."
        ],
    )
    for what, run in (("train, batch 64", training), ("build-cache", building)):
        work.say(f"memory: {what}")
        at_few, at_many = run(work, few), run(work, many)
        more = at_many - at_few
        table.add(what, at_few / 1e6, at_many / 1e6, f"{more / 1e6:+.1f}", number(more / (many - few)))
    return [table]


def training(work: Workplace, rows: int) -> int:
    """Return the bytes that a training epoch over so many rows of 224 × 224 needs."""
    path = draw_cache(work.folder / f"memory-{rows}.h5", invented_manifest(rows), Recipe(), empty=True)
    arguments = ["train", "--cache", str(path), "--epochs", "1", "--batch-size", "64", "--device", "cpu"]
    name = f"memory-{rows}"
    metrics = work.folder / "runs" / name / "metrics.csv"

    def ended() -> bool:  # what then draws curves and pages needs 35 MB more, which a run that is stopped never does
        return metrics.exists() and metrics.read_text().count("\n") > 1

    needed = peak_anonymous([*arguments, "--name", name], work.folder, ended)
    path.unlink()
    return needed


def building(work: Workplace, rows: int) -> int:
    """Return the bytes that building a cache of so many small photographs needs."""
    small = work.folder / "small"
    if not small.exists():
        _shrink(work.source, small)
    photos = replicate(small, work.folder / f"small-{rows}", rows)
    path = work.folder / f"small-{rows}.h5"
    needed = peak_anonymous(["build-cache", str(photos), "--out", str(path), "--size", "32"], work.folder)
    path.unlink()
    shutil.rmtree(photos)
    return needed


def _shrink(source: Path, target: Path, count: int = 64) -> None:
    manifest = scan_source(source)
    for candidate in range(0, len(manifest.names), max(1, len(manifest.names) // count)):
        place = target / str(manifest.labels[candidate]) / f"{candidate}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(os.fsdecode(manifest.path(candidate))) as image:
            image.convert("RGB").resize((SMALL, SMALL)).save(place)


def peak_anonymous(arguments: list[str], folder: Path, ended: Callable[[], bool] = bool) -> int:
    """Run the command line and return the most anonymous memory that it and its workers had at a time, in bytes.

    What they have once `ended` says so does not count.
    """
    with subprocess.Popen([sys.executable, str(CLI), *arguments], cwd=folder, stdout=subprocess.DEVNULL) as process:
        highest, end = 0, time.monotonic() + SECONDS
        while process.poll() is None:
            highest = highest if ended() else max(highest, anonymous(process.pid))
            time.sleep(0.05)
            if time.monotonic() > end and "train" in arguments:
                process.send_signal(signal.SIGTERM)
                end += SECONDS
    if process.returncode not in (0, 128 + signal.SIGTERM):
        raise RuntimeError(f"{arguments[0]} ended with {process.returncode}")
    return highest


def anonymous(pid: int) -> int:
    """Return the anonymous memory of a process and its children, in bytes, what they share counted once; Linux.

    0 where a process began or ended meanwhile: its share of what they have in common would count twice, or not at all.
    """
    everyone = family(pid)
    total = 0
    for member in everyone:
        with suppress(OSError):
            for line in Path(f"/proc/{member}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss_Anon:"):
                    total += 1024 * int(line.split()[1])
    return total if family(pid) == everyone else 0


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    with suppress(OSError):  # it has ended meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found

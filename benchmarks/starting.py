"""How long a person waits before anything happens: the help, the first batch, the first step of a training run."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks.dataset import Workplace, draw_cache, invented_manifest
from benchmarks.memory import CLI
from benchmarks.tables import Table
from benchmarks.timing import interleave, seconds
from pipeline import Recipe

ROWS = 100_000


def measure(work: Workplace) -> list[Table]:
    """Compare with the targets in the last column."""
    from benchmarks.peers import Epochs
    from benchmarks.reading import loader
    from pipeline import TensorCache

    path = draw_cache(work.folder / "starting.h5", invented_manifest(ROWS), Recipe(), empty=True)
    opened = TensorCache(path)
    measures: dict[str, tuple[Callable[[], float], float]] = {
        "`--help`": (partial(_command, "--help"), 0.3),
        "`train --help`": (partial(_command, "train", "--help"), 0.3),
        "`import torch`": (partial(_child, "import torch"), 0),
        "`train`, first step after that import": (partial(_first_step, path, work.folder), 0.5),
        f"first batch of 8, cache open, {ROWS:,} rows": (
            lambda: seconds(lambda: next(iter(Epochs(loader(opened, 8))))),
            0.010,
        ),
        f"first batch of 8, from the path, {ROWS:,} rows": (
            lambda: seconds(lambda: next(iter(Epochs(loader(TensorCache(path), 8))))),
            0.050,
        ),
    }
    work.say("starting")
    measured = interleave({name: run for name, (run, _) in measures.items()}, work.rounds)
    table = Table("Starting, s", ("s", "spread", "target"))
    for name, figure in measured.items():
        target = measures[name][1]
        table.add(name, figure.median, figure.spread, f"{target:g}" if target else "–")
    return [table]


def _command(*arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, str(CLI), *arguments], check=True, capture_output=True))


def _child(code: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))


def _first_step(path: Path, folder: Path) -> float:
    command = [sys.executable, "-m", "benchmarks.starting", str(path)]
    environment = os.environ | {"PYTHONPATH": str(CLI.parent)}
    ended = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, env=environment)
    return float(ended.stdout.split()[-1])


def first_step(path: Path) -> float:
    """Train until the first step is done; return the seconds that took beyond importing torch."""
    import_module("torch")

    start = time.perf_counter()
    from modelnet import Progress, TrainOptions, train
    from modelnet.runtime.interrupt import Stop

    stop = Stop()
    ended = 0.0

    class FirstStep(Progress):
        def step(self, images: int) -> None:
            nonlocal ended
            ended = ended or time.perf_counter()
            stop.signal = 15

    train(TrainOptions(path, device="cpu"), FirstStep(), stop)
    return ended - start


if __name__ == "__main__":
    print(first_step(Path(sys.argv[1])))

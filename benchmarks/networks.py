"""Training of networks that people use: epochs of `train` against plain loops, and threads beside a busy process."""

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.dataset import Workplace
from benchmarks.features import BATCH, CPU, NETWORKS, drawn, note_on_precision, precisions
from benchmarks.tables import Table
from benchmarks.timing import Measured, busy_process, seconds
from modelnet import TrainOptions, train
from modelnet.nets.registry import MODELNET, build_network
from modelnet.progress import EpochRow, Progress
from modelnet.runtime.device import choose_memory_format, cpu_threads, move_network
from pipeline import TensorCache

IMAGES = 48  # of an epoch
BATCHES = (8, 16)  # of the steps with one and several threads
ROUNDS = 3  # of these steps, at most
REPOSITORY = Path(__file__).resolve().parent.parent


def measure(work: Workplace) -> list[Table]:
    """Compare epochs with plain loops, then threads, quiet and beside a busy process."""
    return [_epochs(work), _threads(work)]


def _epochs(work: Workplace) -> Table:
    cache = drawn(work, IMAGES)
    kinds = ("contiguous", "channels last")
    columns = ("epoch, images/s", *(f"plain {kind}" for kind in kinds), "× contiguous", "× best plain")
    table = Table(f"Training with batch size {BATCH}, images/s", columns, notes=note_on_precision())
    for name in NETWORKS:
        for precision in precisions():
            work.say(f"training {name}, {precision}")
            amp = precision == "bfloat16"
            run = Between(name, precision, cache)
            options = TrainOptions(
                cache, model=name, batch_size=BATCH, epochs=1 + work.rounds, lr=1e-6, amp=amp, device="cpu"
            )
            with contextlib.chdir(work.folder):  # runs/ is made there
                train(options, run)
            epoch, *plain = (Measured(tuple(v[1:])) for v in (run.epochs, *run.plain.values()))
            best = max(plain, key=lambda measured: measured.median)
            ratios = (f"{epoch.over(other):.2f}" for other in (plain[0], best))
            table.add(f"{name}, {precision}", epoch.median, *(one.median for one in plain), *ratios)
    table.notes.append("After each epoch the plain loops take as many steps, with fused SGD, on a batch in memory.")
    return table


class Between(Progress):
    """Listens to a run, and after each of its epochs lets plain loops take as many steps. The first is warm-up.

    Attributes:
        epochs: images/s, an entry an epoch.
        plain: the same of the plain loops, by memory format.
    """

    def __init__(self, name: str, precision: str, path: Path) -> None:
        cache = TensorCache(path)
        rows = torch.arange(BATCH) % cache.num_images
        self.batch = cache.read(rows), cache.labels[rows]
        self.count = -(-cache.num_images // BATCH)
        self.epochs: list[float] = []
        self.plain: dict[str, list[float]] = {"contiguous": [], "channels_last": []}
        self.steps = {kind: plain_step(name, kind, precision) for kind in self.plain}

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Let the plain loops work."""
        self.epochs.append(row.images_per_s)
        for kind, step in self.steps.items():
            taken = sum(seconds(partial(step, *self.batch)) for _ in range(self.count))
            self.plain[kind].append(self.count * BATCH / taken)


def plain_step(name: str, memory_format: str, precision: str) -> Callable[[Tensor, Tensor], None]:
    """Return the step of a plain loop with fused SGD, on the CPU."""
    torch.manual_seed(0)
    network = build_network(name, 2, 224)
    move_network(network, CPU, memory_format)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.5, weight_decay=1e-4, fused=True)

    def step(images_NCHW: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            logits_NC = network(images_NCHW)
        cross_entropy(logits_NC.float(), labels).backward()
        optimizer.step()

    return step


def _threads(work: Workplace) -> Table:
    columns = [f"batch {batch}, {load}" for batch in BATCHES for load in ("quiet", "busy")]
    table = Table("Steps with the rule's threads, × the speed of one thread", columns)
    for name in (MODELNET, *NETWORKS):
        for policy in ("passive", "active"):
            cells = []
            for batch in BATCHES:
                work.say(f"threads of {name}, batch {batch}, {policy}")
                for load in (contextlib.nullcontext, busy_process):
                    with load():
                        cells.append(_speed_up(name, batch, policy, min(ROUNDS, work.rounds)))
            table.add(f"{name}, threads that wait {'sleep' if policy == 'passive' else 'spin'}", *cells)
    table.notes += [
        "The commands let waiting threads sleep (`OMP_WAIT_POLICY=passive`); PyTorch lets them spin. “Busy” is "
        "beside one process that computes all the time. In brackets: the rule's number of threads."
    ]
    return table


def _speed_up(name: str, batch: int, policy: str, rounds: int) -> str:
    command = [sys.executable, "-m", "benchmarks.networks", name, str(batch), str(rounds)]
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    if policy == "passive":
        environment["OMP_WAIT_POLICY"] = policy
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return ended.stdout.strip()


def main() -> None:
    """Print the speed of steps with the rule's threads, × that with one: alternating, median over the rounds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("batch", type=int)
    parser.add_argument("rounds", type=int)
    options = parser.parse_args()
    step = plain_step(options.name, choose_memory_format(options.name, CPU, "float32"), "float32")
    batch = torch.rand(options.batch, 3, 224, 224), torch.zeros(options.batch, dtype=torch.int64)
    ratios = []
    for turn in range(1 + options.rounds):
        taken = []
        for asked in (1, None):
            with cpu_threads(asked, options.name, options.batch) as threads:
                taken.append(_a_step(partial(step, *batch)))
        if turn:
            ratios.append(taken[0] / taken[1])
    print(f"{statistics.median(ratios):.2f} ({threads})")


def _a_step(step: Callable[[], None], at_least: float = 0.2) -> float:
    """Return the seconds of a step: the mean of as many as fit into a moment, one at least."""
    start, done = time.perf_counter(), 0
    while not done or time.perf_counter() - start < at_least:
        step()
        done += 1
    return (time.perf_counter() - start) / done


if __name__ == "__main__":
    main()

"""How fast random crops make batches, alone and beside a busy process, and what they add to epochs of training."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.dataset import Workplace
from benchmarks.peers import CROP_SCALE, Epochs, load_peers
from benchmarks.reading import Stores, Systems, checked
from benchmarks.tables import Table, compare
from benchmarks.timing import Measured, busy_process, images_a_second, interleave, seconds
from benchmarks.training import batch_in_memory, plain_loop, threads
from modelnet import TrainOptions, train
from modelnet.progress import EpochRow, Progress
from modelnet.training.start import initial_state
from pipeline import TensorCache, make_loader

BATCHES, BUSY_BATCHES, THREADS = (16, 64, 256), (16, 64), (1, 2)
IMAGES = 2048  # at most
SECONDS = 0.5  # a turn
OURS, WITH_COLOR = "ours", "ours, with color"
AGAINST = {"× FFCV": ("FFCV raw",), "× torchvision": ("torchvision v2", "torchvision v2, workers")}
NETWORKS = (("modelnet", 8, 1024), ("modelnet", 64, 2048), ("resnet18", 32, 64))  # batch size, images of an epoch


def measure(work: Workplace) -> list[Table]:
    """Compare augmented batches, what a busy process costs them, and augmented epochs with their steps."""
    small = Workplace(work.folder / "augmented", work.source, min(work.images, IMAGES), work.rounds, work.say)
    peers, skipped = load_peers()
    peers = [peer for peer in peers if any("augmented" in reader.delivers for reader in peer.readers)]
    cache = checked(TensorCache(small.uint8))
    systems: Systems = {
        OURS: lambda size: loader(cache, size, "flip,crop"),
        WITH_COLOR: lambda size: loader(cache, size, "flip,crop,color"),
        **Stores(small).systems(peers, "augmented", skipped),
    }
    alone = {count: _figures(systems, BATCHES, count, small) for count in THREADS}
    with busy_process():
        beside = {count: _figures(systems, BUSY_BATCHES, count, small) for count in THREADS}
    against = {name: bases for name, bases in AGAINST.items() if set(bases) <= set(systems)}
    title = f"Crops of {small.images:,} images, flipped and normalized, images/s"
    tables = [
        compare(f"{title}, {'1 thread' if count == 1 else f'{count} threads'}{where}", figures[count], against)
        for where, figures in (("", alone), (", beside a busy process", beside))
        for count in THREADS
    ]
    notes = [line for line in skipped if line.split()[0] in ("ffcv", "kornia_crops", "FFCV", "kornia")]
    tables[0].notes += notes
    return [*tables, _slower(alone, beside), _epochs(work)]


def loader(cache: TensorCache, batch_size: int, augment: str) -> Iterable[Tensor]:
    """As `train` reads them."""
    return Epochs(make_loader(cache, batch_size, pin_memory=False, augment=augment, crop_scale=CROP_SCALE))


Figures = dict[str, dict[str, Measured]]  # column -> system


def _figures(systems: Systems, sizes: Iterable[int], count: int, work: Workplace) -> Figures:
    columns = {}
    for size in sizes:
        work.say(f"augmenting with batch size {size}, threads: {count}")
        with threads(count):
            opened = {name: open_epochs(size) for name, open_epochs in systems.items()}
            measures = {name: partial(images_a_second, epochs, SECONDS) for name, epochs in opened.items()}
            columns[f"batch {size}"] = interleave(measures, work.rounds)
    return columns


def _slower(alone: dict[int, Figures], beside: dict[int, Figures]) -> Table:
    places = [(count, column) for count, figures in beside.items() for column in figures]
    names = [f"{column}, {'1 thread' if count == 1 else f'{count} threads'}" for count, column in places]
    table = Table("Time of a batch beside a busy process, × alone", names)
    for system in beside[1]["batch 16"]:
        slower = (
            alone[count][column][system].median / beside[count][column][system].median for count, column in places
        )
        table.add(system, *(f"{times:.2f}" for times in slower))
    return table


def _epochs(work: Workplace) -> Table:
    """Compare augmented epochs with the same steps on a batch in memory."""
    table = Table(
        "A training epoch with `--augment flip,crop`, ÷ its steps on a batch in memory",
        ("epoch, s", "steps, s", "÷ steps", "beside a busy process"),
    )
    for model, batch_size, images in NETWORKS:
        work.say(f"training {model} with batch size {batch_size}")
        count = work.scaled(images, 2 * batch_size)
        path = Workplace(work.folder / f"augmented-{count}", work.source, count, work.rounds, work.say).uint8
        epoch, steps = _train(work, path, model, batch_size)
        with busy_process():
            busy_epoch, busy_steps = _train(work, path, model, batch_size)
        ratios = (f"{epoch.over(steps):.2f}", f"{busy_epoch.over(busy_steps):.2f}")
        table.add(f"{model}, batch {batch_size}", epoch.median, steps.median, *ratios)
    return table


def _train(work: Workplace, path: Path, model: str, batch_size: int) -> tuple[Measured, Measured]:
    options = TrainOptions(path, model=model, batch_size=batch_size, epochs=1 + work.rounds, lr=1e-6, device="cpu")
    run = StepsBetween(TensorCache(path), options)
    with contextlib.chdir(work.folder):  # runs/ is made there
        train(replace(options, augment="flip,crop", crop_scale=CROP_SCALE), run)
    return Measured(tuple(run.epochs[1:])), Measured(tuple(run.steps[1:]))


class StepsBetween(Progress):
    """Measures, after each epoch of a run, as many steps on a batch in memory.

    Attributes:
        epochs, steps: seconds, an entry an epoch.
    """

    def __init__(self, cache: TensorCache, options: TrainOptions) -> None:
        device = torch.device("cpu")
        state = initial_state(cache, options, device)
        self.count = cache.num_images
        self.step_once = plain_loop(state.network.train(), state.optimizer)
        self.batch = batch_in_memory(cache, options.batch_size, device)
        self.epochs: list[float] = []
        self.steps: list[float] = []

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Measure the steps."""
        self.epochs.append(self.count / row.images_per_s)
        self.steps.append(seconds(self._steps))

    def _steps(self) -> None:
        images, labels = self.batch
        for first in range(0, self.count, len(images)):
            self.step_once(images[: self.count - first], labels[: self.count - first])

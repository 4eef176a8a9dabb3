"""Sixteen ModelNets in one pass against sixteen runs one after another: how fast, and how alike their losses are."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.dataset import Workplace, replicate
from benchmarks.tables import Table
from benchmarks.timing import Measured, interleave, seconds
from benchmarks.training import plain_loop
from modelnet import ModelNet, Progress, TrainOptions, train, train_many
from modelnet.nets.registry import MODELNET
from modelnet.runs.folder import RunFolder
from modelnet.runtime.device import choose_device, cpu_threads
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.loop import SweepLoop
from modelnet.training.loop import TrainingLoop
from modelnet.training.setup import Setup
from pipeline import TensorCache, build_cache, make_loader

NETWORKS = 16
IMAGES = 256  # at most: such groups are for small sets
BATCHES = (8, 64)
AGREEING_EPOCHS = 5

Epoch = Callable[[], object]


def measure(work: Workplace) -> list[Table]:
    """Compare epochs, then losses."""
    images = min(work.images, IMAGES)
    cache = work.folder / "many.h5"
    build_cache(replicate(work.source, work.folder / "many", images), cache)
    table = Table(
        f"An epoch of {NETWORKS} ModelNets on {images} images, s",
        [f"batch {b}{what}" for b in BATCHES for what in ("", " spread", " × plain", " × ours alone")],
        notes=[
            "Loading and what is written down of an epoch are counted; start and evaluation are not. "
            "Plain is a loop with torch's SGD as it comes and torch's own number of threads, over our loader."
        ],
    )
    cells: dict[str, list[str | float]] = {}
    for batch_size in BATCHES:
        work.say(f"{NETWORKS} networks with batch size {batch_size}")
        with contextlib.chdir(work.folder), contextlib.ExitStack() as stack:  # runs/ is made there
            figures = _epochs(TrainOptions(cache, batch_size=batch_size, epochs=10**6), stack, work.rounds)
        plain, alone = figures["plain, one after another"], figures["ours, one after another"]
        for name, figure in figures.items():
            ratios = (f"{plain.over(figure):.1f}", f"{alone.over(figure):.1f}")
            cells.setdefault(name, []).extend((figure.median, figure.spread, *ratios))
    for name, row in cells.items():
        table.add(name, *row)
    with contextlib.chdir(work.folder):
        return [table, _agreement(cache)]


def _epochs(options: TrainOptions, stack: contextlib.ExitStack, rounds: int) -> dict[str, Measured]:
    """Measure an epoch of all networks, each way."""
    epoch_of: dict[str, tuple[Epoch, int | None]] = {
        "plain, one after another": (partial(_times, NETWORKS, _plain(options)), None),
        "ours, one after another": (partial(_times, NETWORKS, _alone(options, stack)), 1),
        f"ours, {NETWORKS} at once": (_together(options, stack), NETWORKS),
    }
    measures = {name: partial(_in_threads, epoch, count, options) for name, (epoch, count) in epoch_of.items()}
    return interleave(measures, rounds)


def _times(count: int, epoch: Epoch) -> None:
    for _ in range(count):
        epoch()


def _in_threads(epoch: Epoch, networks: int | None, options: TrainOptions) -> float:
    """Time an epoch with the threads that so many networks get; None for torch's own number."""
    size = options.batch_size
    chosen = contextlib.nullcontext() if networks is None else cpu_threads(None, MODELNET, size, networks=networks)
    with chosen:
        return seconds(epoch)


def _plain(options: TrainOptions) -> Epoch:
    """Return an epoch of the loop that anybody would write."""
    cache, device = TensorCache(options.cache), choose_device("auto")
    network = ModelNet(len(cache.class_ids), cache.recipe.size).to(device)
    sgd = torch.optim.SGD(network.parameters(), options.learning_rate, options.momentum, weight_decay=1e-4)
    step = plain_loop(network, sgd)
    loader = make_loader(cache, options.batch_size, shuffle=True)

    def epoch() -> None:
        for images, labels in loader:
            step(images.to(device), labels.to(device))

    return epoch


def _alone(options: TrainOptions, stack: contextlib.ExitStack) -> Epoch:
    """Return an epoch of `train`."""
    training = _training(Setup(options, Progress()), stack)

    def epoch() -> None:
        training.train_epoch()
        training.finish_epoch(None, 1.0)

    return epoch


def _together(options: TrainOptions, stack: contextlib.ExitStack) -> Epoch:
    """Return an epoch of `train --seeds`."""
    setup = Setup(options, Progress())
    members = [TrainOptions(**(vars(options) | {"seed": seed})) for seed in range(NETWORKS)]
    trainings = [_training(Setup(own, Progress(), opened=setup.opened), stack, NETWORKS) for own in members]
    sweep_loop = SweepLoop(trainings, [[] for _ in members], Progress(), Stop())

    def epoch() -> None:
        sweep_loop.train_epoch()
        sweep_loop.finish_epoch([None] * NETWORKS, 1.0)

    return epoch


def _training(setup: Setup, stack: contextlib.ExitStack, networks: int = 1) -> TrainingLoop:
    run = stack.enter_context(RunFolder.create(None, f"{networks}-{setup.options.batch_size}"))
    training = TrainingLoop(setup, run, Progress(), Stop())
    if networks > 1:
        training.seconds_between_saves = float("inf")  # they are saved together
    return training


def _agreement(cache: Path) -> Table:
    """Compare the losses of networks that were trained together with those of each alone."""
    options = TrainOptions(cache, epochs=AGREEING_EPOCHS)
    together = train_many(options, range(NETWORKS))
    alone = [train(own).rows for own in together.members]
    table = Table(f"Losses of {NETWORKS} networks together and of each alone, {AGREEING_EPOCHS} epochs", ["figure"])
    pairs = [
        (ours.train_loss, theirs.train_loss)
        for rows, own in zip(together.rows, alone, strict=True)
        for ours, theirs in zip(rows, own, strict=True)
    ]
    table.add("largest difference", f"{max(abs(a - b) for a, b in pairs):.1e}")
    table.add("lowest and highest loss", f"{min(a for a, _ in pairs):.4f}–{max(a for a, _ in pairs):.4f}")
    return table

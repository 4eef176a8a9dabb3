"""Many networks by one command beside runs of their own: how fast, and how alike their losses are.

Sixteen ModelNets in one pass, 64 linear layers in one pass, and networks that are trained one after another.
"""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.dataset import Workplace, replicate
from benchmarks.tables import Table
from benchmarks.timing import Measured, interleave, seconds
from benchmarks.training import plain_loop
from modelnet import ModelNet, Progress, TrainOptions, train, train_many
from modelnet.nets.registry import LINEAR
from modelnet.runs.folder import RunFolder
from modelnet.runtime.device import choose_device, cpu_threads
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.loop import SweepLoop
from modelnet.training.loop import TrainingLoop
from modelnet.training.setup import Setup
from pipeline import TensorCache, build_cache, make_loader
from pipeline.build.features import write_features
from pipeline.format.features import Features

NETWORKS = 16
IMAGES = 256  # at most: such groups are for small sets
BATCHES = (8, 64)
AGREEING_EPOCHS = 5
LAYERS, LENGTH = 64, 512  # linear layers of one pass, and the numbers of a row that they are given
ALONE = TrainOptions(Path(), model="timm:test_resnet", epochs=3)  # one of those that nothing stacks
FEW = 3  # of them

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
        return [table, _agreement(cache), _layers(work, cache), _one_after_another(work, cache)]


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
    chosen = contextlib.nullcontext() if networks is None else cpu_threads(None, options.model, size, networks=networks)
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


def _together(options: TrainOptions, stack: contextlib.ExitStack, networks: int = NETWORKS) -> Epoch:
    """Return an epoch of `train --seeds`."""
    setup = Setup(options, Progress())
    members = [replace(options, seed=seed) for seed in range(networks)]
    trainings = [_training(Setup(own, Progress(), opened=setup.opened), stack, networks) for own in members]
    sweep_loop = SweepLoop(trainings, [[] for _ in members], Progress(), Stop())

    def epoch() -> None:
        sweep_loop.train_epoch()
        sweep_loop.finish_epoch(sweep_loop.validate(), 1.0)

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


def _layers(work: Workplace, images: Path) -> Table:
    """Compare an epoch of linear layers in one pass with one of a layer alone."""
    work.say(f"{LAYERS} linear layers")
    features, random = work.folder / "features.h5", np.random.default_rng(0)

    def rows(first: int, end: int) -> NDArray[np.float32]:
        return random.standard_normal((end - first, LENGTH)).astype(np.float32)

    write_features(TensorCache(images).reader, features, Features("drawn", "", LENGTH, "0" * 64, "0" * 64), rows)
    options = TrainOptions(features, model=LINEAR, val=features, lr=0.01, epochs=10**6, preload=True)
    with contextlib.ExitStack() as stack:
        training = _training(Setup(options, Progress()), stack)

        def alone() -> None:
            training.train_epoch()
            training.finish_epoch(training.validation_outcome(), 1.0)

        together = _together(options, stack, LAYERS)
        counts: dict[str, tuple[Epoch, int]] = {"one": (alone, 1), f"{LAYERS} in one pass": (together, LAYERS)}
        found = interleave(
            {name: partial(_in_threads, epoch, count, options) for name, (epoch, count) in counts.items()}, work.rounds
        )
    note = f"{TensorCache(features).num_images} rows of {LENGTH} numbers in memory; validation and files are counted."
    table = Table("An epoch of linear layers, s", ["batch 8", "spread", "× one"], notes=[note])
    for name, figure in found.items():
        table.add(name, figure.median, figure.spread, f"{figure.over(found['one']):.2f}")
    return table


def _one_after_another(work: Workplace, cache: Path) -> Table:
    """Compare a group of networks that nothing stacks with a `train` for each, both from start to end."""
    options = replace(ALONE, cache=cache, val=cache)
    work.say(f"{FEW} networks one after another")
    ways: dict[str, Callable[[], object]] = {
        f"{FEW} times `train`": lambda: [train(replace(options, seed=seed)) for seed in range(FEW)],
        f"a group of {FEW}": lambda: train_many(options, range(FEW)),
    }
    found = interleave({name: partial(seconds, way) for name, way in ways.items()}, min(work.rounds, 3))
    note = f"{options.model} for {options.epochs} epochs with validation, start and files counted, in one process."
    table = Table("Networks one after another, s", ["all", "spread", "× alone"], notes=[note])
    for name, figure in found.items():
        table.add(name, figure.median, figure.spread, f"{figure.over(found[next(iter(ways))]):.3f}")
    return table

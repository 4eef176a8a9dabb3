"""Measure in a few seconds what an epoch waits for: reading the images, or computing."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from modelnet.data.batches import Batch
from modelnet.options import TrainOptions
from modelnet.progress import Progress
from modelnet.runtime.device import SMALL, cpu_threads, precision_warning
from modelnet.training.frozen_body import NotComputed
from modelnet.training.setup import Setup
from modelnet.training.step import NetworkUpdate, TrainingStep
from pipeline.system.processes import usable_cores

SECONDS = 2.0  # for each of the three measurements
_PRELOAD = 0.5  # of a GPU's memory
_LARGE = 32  # images of a batch that keep most processors busy


@dataclass(frozen=True)
class Speed:
    """How fast an epoch is, and what it waits for.

    Attributes:
        images: of an epoch.
        reading, computing, training: images/s of reading alone, of the network alone, and of both together.
        epoch_s: seconds of an epoch, validation not counted.
        waits_for: "data" where reading is slower than computing, else "the network".
        once: whether `train` runs the frozen layers, which are measured here, once for each image instead.
        advice: what would help.
    """

    images: int
    reading: float
    computing: float
    training: float
    epoch_s: float
    waits_for: str
    once: bool
    advice: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the figures, and a line for each advice."""
        rates = f"reads {self.reading:,.0f} images/s alone, computes {self.computing:,.0f} images/s alone"
        lines = [
            f"an epoch of {self.images:,} images takes about {self.epoch_s:.3g} s: {self.training:,.0f} images/s",
            f"it {rates}: it waits for {self.waits_for}",
        ]
        lines += ["train runs the frozen layers once for each image: its epochs are shorter"] if self.once else []
        return "\n".join([*lines, *(f"would help: {advice}" for advice in self.advice)])


def measure_speed(options: TrainOptions, seconds: float = SECONDS, run: Path | None = None) -> Speed:
    """Train for some seconds without writing anything, and read and compute by themselves.

    A last layer that is trained alone is measured on its cached features, if these are there.

    Args:
        options: of the run that is meant.
        seconds: for each measurement.
        run: an earlier run with these options, whose features are looked for too.

    Raises:
        As `train`.
    """
    with cpu_threads(options.threads, options.model, options.batch_size):
        setup, once = Setup(options, Progress()), False
        try:
            setup.prepare(Progress(), run=run, computes=False)
        except NotComputed:
            once = True
            setup.prepare(Progress(), on_features=False)
        update = NetworkUpdate(setup.state, options.clip_grad, schedule=None)
        step = TrainingStep(setup.forward, setup.loss_of, update, setup.accumulation, setup.autocast)
        setup.state.network.train()

        def train(batches: Iterable[Batch], limit: float) -> float:
            def trained() -> Iterator[int]:
                for number, batch in enumerate(batches):
                    step(batch, 0, number % len(setup.batches))
                    yield batch.size

            return _rate(trained(), limit, setup.device)

        with setup.own_threads():
            first = next(iter(setup.batches.epoch(0)))
            train([first], seconds)  # the first step is slower
            training = train(_epochs(setup), seconds)
            reading = _rate((batch.size for batch in _epochs(setup)), seconds, setup.device)
            computing = train(iter(lambda: first, None), seconds)
    images = setup.batches.plan.images
    waits_for = "data" if reading < computing else "the network"
    advice = _for_reading(setup) if waits_for == "data" else _for_computing(setup)
    return Speed(images, reading, computing, training, images / training, waits_for, once, advice)


def _epochs(setup: Setup) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from setup.batches.epoch(epoch)
        epoch += 1


def _rate(sizes: Iterator[int], seconds: float, device: torch.device) -> float:
    """Return images/s, from numbers of images that come for so long."""
    images, began = 0, time.perf_counter()
    for size in sizes:
        images += size
        if time.perf_counter() - began > seconds:
            break
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return images / (time.perf_counter() - began)


def _for_reading(setup: Setup) -> list[str]:
    options, cache, advice = setup.options, setup.batches.cache, []
    memory = torch.cuda.get_device_properties(setup.device).total_memory if setup.device.type == "cuda" else 0
    if not options.preload and setup.batches.stored_bytes < _PRELOAD * memory:
        advice.append("--preload: all images fit into the memory of the GPU")
    if cache.features is None and cache.recipe.dtype == "float32":
        advice.append("a cache of a quarter of the bytes: build-cache --dtype uint8")
    if not options.workers and not options.preload and usable_cores() > 2:
        advice.append("--workers 2: read while the network computes")
    return advice or ["less of --augment"] if options.augment else advice


def _for_computing(setup: Setup) -> list[str]:
    options, advice = setup.options, []
    is_large = setup.body is None and options.model not in SMALL
    if setup.device.type == "cpu" and torch.cuda.is_available():
        advice.append("--device cuda: there is a GPU")
    if is_large and not options.amp and not precision_warning("bfloat16", setup.device):
        advice.append("--amp: half precision may be faster here")
    if options.batch_size < _LARGE:
        advice.append("a larger --batch-size, with the learning rate that suits it (lr-find)")
    return advice

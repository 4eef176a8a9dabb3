"""Measure in a few seconds what an epoch waits for: reading the images, or computing."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch

from modelnet.data.batches import Batch
from modelnet.options import TrainOptions
from modelnet.progress import Progress
from modelnet.runtime.device import SMALL, cpu_threads, precision_warning
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
        advice: what would help.
    """

    images: int
    reading: float
    computing: float
    training: float
    epoch_s: float
    waits_for: str
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
        return "\n".join([*lines, *(f"would help: {advice}" for advice in self.advice)])


def measure_speed(options: TrainOptions, seconds: float = SECONDS) -> Speed:
    """Train for some seconds without writing anything, and read and compute by themselves.

    Args:
        options: of the run that is meant.
        seconds: for each measurement.

    Raises:
        As `train`.
    """
    with cpu_threads(options.threads, options.model, options.batch_size):
        setup = Setup(options, Progress())
        if options.preload and setup.batches.preloaded is None:
            setup.preload(Progress())
        update = NetworkUpdate(setup.state, options.clip_grad, schedule=None)
        step = TrainingStep(setup.forward, setup.loss_of, update, setup.accumulation, setup.autocast)
        setup.state.network.train()

        def train(batches: Iterable[Batch], limit: float) -> float:
            def trained() -> Iterator[int]:
                for number, batch in enumerate(batches):
                    step(batch, 0, number % len(setup.batches))
                    yield batch.size

            return _rate(trained(), limit, setup.device)

        first = next(iter(setup.batches.epoch(0)))
        train([first], seconds)  # the first step is slower
        training = train(_epochs(setup), seconds)
        reading = _rate((batch.size for batch in _epochs(setup)), seconds, setup.device)
        computing = train(iter(lambda: first, None), seconds)
    images = setup.batches.plan.images
    waits_for = "data" if reading < computing else "the network"
    advice = _for_reading(setup) if waits_for == "data" else _for_computing(setup)
    return Speed(images, reading, computing, training, images / training, waits_for, advice)


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
    options, cache, advice = setup.options, setup.cache, []
    if setup.device.type == "cuda" and not options.preload:
        size, memory = cache.num_images * cache.recipe.row_bytes, torch.cuda.get_device_properties(setup.device)
        if size < _PRELOAD * memory.total_memory:
            advice.append("--preload: all images fit into the memory of the GPU")
    if cache.features is None and cache.recipe.dtype == "float32":
        advice.append("a cache of a quarter of the bytes: build-cache --dtype uint8")
    if not options.workers and not options.preload and usable_cores() > 2:
        advice.append("--workers 2: read while the network computes")
    return advice or ["less of --augment"] if options.augment else advice


def _for_computing(setup: Setup) -> list[str]:
    options, advice = setup.options, []
    if setup.device.type == "cpu" and torch.cuda.is_available():
        advice.append("--device cuda: there is a GPU")
    if options.model not in SMALL and not options.amp and not precision_warning("bfloat16", setup.device):
        advice.append("--amp: half precision is fast here")
    if options.freeze == "all-but-head" and not options.augment:
        advice.append("build-features: the frozen layers compute the same in every epoch")
    if options.batch_size < _LARGE:
        advice.append("a larger --batch-size, with the learning rate that suits it (lr-find)")
    return advice

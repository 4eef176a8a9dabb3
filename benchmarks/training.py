"""What data cost a training run: its epochs against the same steps on a batch in memory and the bare gather."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.dataset import Workplace
from benchmarks.reading import Gather
from benchmarks.tables import Table
from benchmarks.timing import Measured, interleave, seconds
from modelnet import ModelNet, TrainOptions, train
from modelnet.progress import EpochRow, Progress
from modelnet.runtime.device import choose_device
from modelnet.training.start import initial_state
from pipeline import TensorCache

BATCHES = (8, 64, 256)
STEPS, SECONDS = 200, 0.5  # at most, a round, of each kind of step

Step = Callable[[Tensor, Tensor], None]


def measure(work: Workplace) -> list[Table]:
    """Compare epochs with their parts, then kinds of steps."""
    epochs = Table(
        f"A training epoch of {work.images:,} images, s",
        (
            "epoch",
            "spread",
            "steps in memory",
            "gather",
            "÷ (steps + gather)",
            "÷ steps",
            "waiting for data",
            "images/s",
        ),
        notes=[
            "Steps and gather are measured between the epochs of the run. An accelerator is held to the steps alone."
        ],
    )
    steps = Table("A step on a batch in memory, ms", [f"batch {b}{what}" for b in BATCHES for what in ("", " × plain")])
    cells: dict[str, list[str | float]] = {}
    for batch_size in BATCHES:
        work.say(f"training with batch size {batch_size}")
        _add_epochs(epochs, work, batch_size)
        figures = kinds_of_steps(TensorCache(work.float32), batch_size, work.rounds)
        for name, figure in figures.items():
            cells.setdefault(name, []).extend((figure.median, f"{figures['plain'].over(figure):.2f}"))
    for name, row in cells.items():
        steps.add(name, *row)
    steps.notes.append("“× plain” is how many times as fast as the plain step. Ours is the step that `train` takes.")
    return [epochs, steps]


def _add_epochs(table: Table, work: Workplace, batch_size: int) -> None:
    for name, path in (("float32", work.float32), ("uint8", work.uint8)):
        run = Between(path, work.float32, batch_size)
        with contextlib.chdir(work.folder):  # runs/ is made there
            train(TrainOptions(path, batch_size=batch_size, epochs=1 + work.rounds, name=f"{name}-{batch_size}"), run)
        epoch, steps, gather = (Measured(tuple(v[1:])) for v in (run.epochs, run.steps, run.gathers))
        table.add(
            f"ours, {name} cache, batch {batch_size}",
            epoch.median,
            epoch.spread,
            steps.median,
            gather.median,
            f"{epoch.over(steps.plus(gather)):.2f}",
            f"{epoch.over(steps):.2f}",
            Measured(tuple(run.waits[1:])).median,
            work.images / epoch.median,
        )


class Between(Progress):
    """Listens to a run and after each of its epochs measures the parts. The first epoch checks rows: it is warm-up.

    Args:
        path: the cache that the run reads.
        floats: the float32 cache, of which the bare gather is the limit.
        batch_size: of the run.

    Attributes:
        epochs, steps, gathers, waits: seconds, an entry an epoch.
    """

    def __init__(self, path: Path, floats: Path, batch_size: int) -> None:
        cache = TensorCache(path)
        self.count = cache.num_images
        self.device = choose_device("auto")
        self.gather = Gather(TensorCache(floats), batch_size)
        state = initial_state(cache, TrainOptions(path, batch_size=batch_size), self.device)
        self.step_once = plain_loop(state.network, state.optimizer)
        self.batch = batch_in_memory(cache, batch_size, self.device)
        self.epochs: list[float] = []
        self.steps: list[float] = []
        self.gathers: list[float] = []
        self.waits: list[float] = []

    def epoch(self, row: EpochRow, epochs: int) -> None:
        """Measure what the epoch is made of."""
        self.epochs.append(self.count / row.images_per_s)
        self.waits.append(row.data_wait_s)
        self.steps.append(seconds(self._steps))
        self.gathers.append(seconds(lambda: [None for _ in self.gather]))

    def _steps(self) -> None:
        images, labels = self.batch
        full, rest = divmod(self.count, len(images))
        for _ in range(full):
            self.step_once(images, labels)
        if rest:
            self.step_once(images[:rest], labels[:rest])
        _finish(self.device)


def batch_in_memory(cache: TensorCache, batch_size: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return (images (B, 3, S, S) float32, labels (B,) int64) on the device."""
    rows = torch.arange(batch_size) % cache.num_images
    return cache.read(rows).to(device), cache.labels[rows].to(device)


def plain_loop(network: nn.Module, optimizer: torch.optim.Optimizer) -> Step:
    """Return a training step: the five lines of any loop."""

    def step(images: Tensor, labels: Tensor) -> None:
        optimizer.zero_grad()
        loss = cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()

    return step


def kinds_of_steps(cache: TensorCache, batch_size: int, rounds: int) -> dict[str, Measured]:
    """Measure ms a step: plain SGD, what `train` does, and what else PyTorch offers."""
    device = choose_device("auto")
    classes, size = len(cache.class_ids), cache.recipe.size
    batch = batch_in_memory(cache, batch_size, device)
    sgd = partial(torch.optim.SGD, lr=1e-6, momentum=0.5, weight_decay=1e-4)

    def network() -> ModelNet:
        torch.manual_seed(0)
        return ModelNet(classes, size).to(device)

    def kind(options: dict[str, bool], model: nn.Module | None = None) -> Step:
        model = model or network()
        return plain_loop(model, sgd(model.parameters(), **options))

    state = initial_state(cache, TrainOptions(cache.path, batch_size=batch_size, lr=1e-6), device)
    kinds = {
        "plain": kind({"foreach": False}),
        "ours": plain_loop(state.network, state.optimizer),
        "foreach SGD": kind({"foreach": True}),
        "fused SGD": kind({"fused": True}),
        "fused SGD, channels last": kind({"fused": True}, network().to(memory_format=torch.channels_last)),
    }
    measures = {name: partial(_milliseconds, step, batch, device) for name, step in kinds.items()}
    if device.type == "cpu":
        measures["fused SGD, one thread"] = partial(_one_thread, measures["fused SGD"])
    return interleave(measures, rounds)


def _milliseconds(step: Step, batch: tuple[Tensor, Tensor], device: torch.device) -> float:
    start = time.perf_counter()
    done = 0
    while done < STEPS and time.perf_counter() - start < SECONDS:
        step(*batch)
        done += 1
    _finish(device)
    return 1000 * (time.perf_counter() - start) / done


def _one_thread(measured: Callable[[], float]) -> float:
    with threads(1):
        return measured()


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

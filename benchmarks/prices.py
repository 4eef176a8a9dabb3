"""What each part of our own gains over what could stand in its place: reading, an epoch, the start, many networks."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state
from torch.nn.functional import cross_entropy

from benchmarks.dataset import Workplace
from benchmarks.memory import CLI
from benchmarks.tables import Table
from benchmarks.timing import Measured, interleave, seconds
from benchmarks.training import batch_in_memory, plain_loop
from modelnet import ModelNet, Progress, TrainOptions
from modelnet.nets.registry import MODELNET
from modelnet.runs.folder import UnwrittenRun
from modelnet.runtime.device import cpu_threads
from modelnet.runtime.interrupt import Stop
from modelnet.sweep.network import StackedModelNet
from modelnet.training.loop import TrainingLoop
from modelnet.training.setup import Setup
from pipeline import TensorCache, make_loader
from pipeline.load import augment_rows, batch_memory, cache, kernels, normalize, threads

BATCHES = (8, 64, 256)
IMAGES = 1024  # at most: an epoch is one turn
NETWORKS = 16
NETWORK_BATCHES = (8, 16, 64)
AUGMENTED, AUGMENT = "augmented epoch", "flip,crop,color,erase"
AS_IT_IS = "as it is"
WITHOUT: dict[str, tuple[str, ...]] = {
    AS_IT_IS: (),
    "without `mallopt`": ("mallopt",),
    "without `BatchMemory`": ("memory",),
    "without both": ("mallopt", "memory"),
    "plain copies, no streaming": ("streaming",),
    "one thread, no OpenMP team": ("team",),
    "Python's threads, no OpenMP team": ("team", "python"),
}


def measure(work: Workplace) -> list[Table]:
    """Compare what is with what could be, as the time that it takes."""
    path = Workplace(work.folder / "prices", work.source, min(work.images, IMAGES), work.rounds, work.say).float32
    columns: dict[str, dict[str, Measured]] = {}
    with ExitStack() as stack:
        ways = {name: stack.enter_context(_way(parts, path)) for name, parts in WITHOUT.items()}
        for what, size in [(what, size) for what in ("reading", "epoch") for size in BATCHES] + [(AUGMENTED, 64)]:
            work.say(f"{what} with batch size {size}")
            turns = {name: partial(ask, f"{what},{size}") for name, ask in ways.items()}
            columns[f"{what}, {size}"] = interleave(turns, work.rounds)
    table = Table(f"Time of {min(work.images, IMAGES):,} float32 images with a part taken away, × as it is", [*columns])
    for name in WITHOUT:
        table.add(name, *(f"{figures[name].over(figures[AS_IT_IS]):.2f}" for figures in columns.values()))
    table.add("as it is, s", *(figures[AS_IT_IS].median for figures in columns.values()))
    return [table, _starting(work, path), _many(work, path)]


@contextmanager
def _way(parts: tuple[str, ...], path: Path) -> Iterator[Callable[[str], float]]:
    """Yield what asks a process without these parts for the seconds of "reading,8" or "epoch,8"."""
    command = [sys.executable, "-m", "benchmarks.prices", os.fspath(path), *parts]
    process = subprocess.Popen(command, cwd=CLI.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    told, said = process.stdin, process.stdout

    def ask(turn: str) -> float:
        print(turn, file=told, flush=True)
        spent = float(said.readline())
        time.sleep(min(spent, 0.5))  # threads of PyTorch that still wait for work would take the next one's cores
        return spent

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


def answer(path: Path, parts: set[str]) -> None:
    """Take parts away, and answer each line of stdin with the seconds of what it asks for."""
    if "mallopt" not in parts:
        batch_memory.keep_freed_memory()
    if "memory" in parts:
        patch.object(
            batch_memory.BatchMemory, "empty", lambda _self, shape, dtype: torch.empty(shape, dtype=dtype)
        ).start()
    if "streaming" in parts:
        patch.object(kernels, "_STREAMED", 2**62).start()
    if "team" in parts:
        for module in (kernels, normalize, augment_rows):
            patch.object(module, "team_for", lambda _bytes: (0, 1)).start()
    if "python" in parts:
        patch.object(cache, "gather_rows", partial(_in_parts, kernels.gather_rows)).start()
    turns: dict[str, Callable[[], float]] = {}
    for line in sys.stdin:
        what, _, size = line.strip().partition(",")
        if line not in turns:
            turns[line] = _reading(path, int(size)) if what == "reading" else _epoch(path, int(size), what)
        print(turns[line](), flush=True)


def _in_parts(gather: Callable[..., None], images: Tensor, rows: Tensor, out: Tensor) -> None:
    threads.in_parts(lambda start, end: gather(images, rows[start:end], out[start:end]), len(rows))


def _reading(path: Path, size: int) -> Callable[[], float]:
    loader = make_loader(TensorCache(path, verify="off"), size, pin_memory=False)
    return lambda: seconds(lambda: [None for _ in loader])


def _epoch(path: Path, size: int, what: str) -> Callable[[], float]:
    augment = AUGMENT if what == AUGMENTED else ""
    options = TrainOptions(path, batch_size=size, epochs=10**6, augment=augment, device="cpu")
    loop = TrainingLoop(Setup(options, Progress()), UnwrittenRun(Path("none")), Progress(), Stop())

    def epoch() -> float:
        with cpu_threads(None, MODELNET, size):
            spent = seconds(loop.train_epoch)
        loop.finish_epoch(None, spent)
        return spent

    return epoch


def _starting(work: Workplace, path: Path) -> Table:
    """Compare our optimizer, which imports no compiler, with torch's."""
    code = "import sys; from pathlib import Path; import modelnet.training.optimizer as o; {}"
    code += "from benchmarks.starting import first_step; print(first_step(Path(sys.argv[1])))"
    environment = os.environ | {"PYTHONPATH": os.fspath(CLI.parent)}

    def first_step(torchs: str) -> float:
        command = [sys.executable, "-c", code.format(torchs), os.fspath(path)]
        ended = subprocess.run(command, cwd=work.folder, check=True, capture_output=True, text=True, env=environment)
        return float(ended.stdout.split()[-1])

    ways = {"ours": "", "torch's optimizer as it comes": "o._without_compiler = lambda kind: kind; "}
    work.say("starting")
    measured = interleave({name: partial(first_step, way) for name, way in ways.items()}, work.rounds)
    table = Table("`train`, first step after the imports, s", ("s", "spread"))
    for name, figure in measured.items():
        table.add(name, figure.median, figure.spread)
    return table


def _many(work: Workplace, path: Path) -> Table:
    """Compare steps of stacked networks with `torch.func.vmap` over the same, and with one network after another."""
    table = Table(
        f"A step of {NETWORKS} ModelNets on a batch in memory, ms",
        [f"batch {size}{what}" for size in NETWORK_BATCHES for what in ("", " × plain")],
    )
    cells: dict[str, list[str | float]] = {}
    for size in NETWORK_BATCHES:
        work.say(f"{NETWORKS} networks with batch size {size}")
        with cpu_threads(None, MODELNET, size, networks=NETWORKS):
            measured = interleave(_steps(path, size), work.rounds)
        for name, figure in measured.items():
            cells.setdefault(name, []).extend((figure.median, f"{measured['plain'].over(figure):.1f}"))
    for name, row in cells.items():
        table.add(name, *row)
    return table


def _steps(path: Path, size: int) -> dict[str, Callable[[], float]]:
    """Return what measures the ms of a step of all networks, each way; all three compute the same losses."""
    images, labels = batch_in_memory(TensorCache(path), size, torch.device("cpu"))
    networks = [ModelNet(2) for _ in range(NETWORKS)]
    stacked = StackedModelNet(networks)
    weights = {name: value.detach().requires_grad_() for name, value in stack_module_state(networks)[0].items()}

    def vmapped(images_BCHW: Tensor) -> Tensor:
        def one(own: dict[str, Tensor]) -> Tensor:
            logits: Tensor = functional_call(networks[0], own, (images_BCHW,))
            return logits

        return torch.func.vmap(one)(weights)

    def step_of_all(logits_of: Callable[[Tensor], Tensor], sgd: torch.optim.Optimizer) -> None:
        sgd.zero_grad()
        logits_KBC = logits_of(images)
        cross_entropy(logits_KBC.flatten(0, 1), labels.repeat(NETWORKS)).mul(NETWORKS).backward()
        sgd.step()

    def timed(step: Callable[[], object]) -> Callable[[], float]:
        return lambda: 1000 * seconds(lambda: [step() for _ in range(5)]) / 5

    def sgd_of(parameters: list[Tensor]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1e-4, momentum=0.5, weight_decay=1e-4, fused=True)

    as_it_comes = partial(torch.optim.SGD, lr=1e-4, momentum=0.5, weight_decay=1e-4)
    plain = [plain_loop(network, as_it_comes(network.parameters())) for network in networks]
    return {
        "plain": timed(lambda: [step(images, labels) for step in plain]),
        "stacked by hand": timed(partial(step_of_all, stacked, sgd_of(list(stacked.parameters())))),
        "`torch.func.vmap`": timed(partial(step_of_all, vmapped, sgd_of(list(weights.values())))),
    }


if __name__ == "__main__":
    answer(Path(sys.argv[1]), set(sys.argv[2:]))

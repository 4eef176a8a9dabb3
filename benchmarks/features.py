"""Features of a frozen network and `evaluate` of a trained one against plain loops over the images in memory."""

import contextlib
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.dataset import Workplace, draw_cache, invented_manifest
from benchmarks.tables import Table, compare
from benchmarks.timing import interleave
from modelnet import Trained, TrainOptions, train
from modelnet.eval.features import build_features
from modelnet.nets.registry import build_network
from modelnet.runtime.device import precision_warning
from pipeline import TensorCache
from pipeline.recipe import Recipe

IMAGES, TRAINED_ON, BATCH = 96, 16, 16
NETWORKS = ("resnet18", *(("timm:tf_efficientnet_lite0",) if find_spec("timm") else ()))
CPU = torch.device("cpu")

Measures = dict[str, Callable[[], float]]


def precisions() -> tuple[str, ...]:
    """Return what is measured: bfloat16 only where the processor computes with it."""
    return ("float32",) if precision_warning("bfloat16", CPU) else ("float32", "bfloat16")


def note_on_precision() -> list[str]:
    """Say why bfloat16 is missing, where it is."""
    return [] if "bfloat16" in precisions() else ["bfloat16 is left out: this processor has no instructions for it."]


def measure(work: Workplace) -> list[Table]:
    """Compare features and evaluation of each network, with random weights, with plain loops."""
    images, few = (drawn(work, count) for count in (IMAGES, TRAINED_ON))
    return [_table(work, network, precision, images, few) for network in NETWORKS for precision in precisions()]


def drawn(work: Workplace, images: int) -> Path:
    """Return a cache of noise, 224 × 224."""
    count = work.scaled(images, least=8)
    return draw_cache(work.folder / f"drawn-{count}.h5", invented_manifest(count), Recipe(224))


def _table(work: Workplace, name: str, precision: str, images: Path, few: Path) -> Table:
    work.say(f"features of {name}, {precision}")
    batch_NCHW = TensorCache(images).read(torch.arange(TensorCache(images).num_images))
    plain: Measures = {
        "plain loop, contiguous, `no_grad`": partial(_loop, _network(name), batch_NCHW, 32, precision, torch.no_grad)
    }
    for size in (8, BATCH, 32):
        network = _network(name).to(memory_format=torch.channels_last)
        plain[f"plain loop, channels last, batch {size}"] = partial(_loop, network, batch_NCHW, size, precision)
    weights, out = work.folder / f"{name.replace(':', '-')}.pth", work.folder / "features.h5"
    torch.save(_network(name).state_dict(), weights)
    amp = precision == "bfloat16"
    with contextlib.chdir(work.folder):  # runs/ is made there
        run = train(TrainOptions(few, model=name, batch_size=BATCH, epochs=1, lr=1e-9, amp=amp, device="cpu")).run
        trained = Trained.load(run.absolute(), device="cpu")

    def features() -> float:
        return len(batch_NCHW) / build_features(images, out, name, weights, "cpu", amp=amp, rebuild=True).seconds

    def evaluated() -> float:
        start = time.perf_counter()
        trained.evaluate(images)
        return len(batch_NCHW) / (time.perf_counter() - start)

    ours: Measures = {"`build-features`": features, f"`evaluate`, batch {BATCH}": evaluated}
    figures = interleave({**ours, **plain}, work.rounds)
    title = f"{len(batch_NCHW)} images of 224 × 224 through {name}, {precision}"
    table = compare(title, {"images/s": figures}, {"× best plain loop": list(plain)})
    table.notes += [f"{torch.get_num_threads()} threads. The plain loops read nothing.", *note_on_precision()]
    return table


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, 1000, 224).eval()


def _loop(
    network: nn.Module,
    images_NCHW: Tensor,
    size: int,
    precision: str,
    mode: Callable[[], contextlib.AbstractContextManager[object]] = torch.inference_mode,
) -> float:
    start = time.perf_counter()
    with mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        for batch in images_NCHW.split(size):
            network(batch)
    return len(images_NCHW) / (time.perf_counter() - start)

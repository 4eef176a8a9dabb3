"""A pretrained network on PyTorch's hymenoptera photographs: whole processes beside a loop like PyTorch's tutorial.

SOURCE is the folder that holds their `train/` and `val/`, WEIGHTS a file of timm's tf_efficientnet_lite0. A run of the
tutorial's loop is measured over a few epochs, and as many as ours has are computed from that; both are shown. Takes
about six minutes on two cores. `--images` below 9216 shrinks the numbers of epochs, to try it.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.dataset import Workplace
from benchmarks.preparation import NETWORK
from benchmarks.tables import Table
from modelnet import compare_runs
from modelnet.runs.folder import RunFolder

REPOSITORY = Path(__file__).resolve().parent.parent
CLI = [sys.executable, str(REPOSITORY / "cli.py")]
SEEDS, RATES, EPOCHS = 8, (0.05, 0.1), 25  # heads: seeds × rates
HEAD = ["--freeze", "all-but-head", "--weight-decay", "0.03"]
WHOLE_EPOCHS = 5
WHOLE = ["--opt", "adamw", "--lr", "0.0003", "--head-lr", "10", "--sched", "cosine", "--augment", "flip,crop"]
BATCH = 8


def measure(work: Workplace) -> list[Table]:
    """Train heads, then the whole network, ours and as the tutorial does."""
    if work.weights is None or not all((work.source / part).is_dir() for part in ("train", "val")):
        return [
            Table("A pretrained network", (), notes=["Not measured: it needs WEIGHTS, and train/ and val/ in SOURCE."])
        ]
    heads = Table(
        f"A new last layer for {NETWORK}, s",
        ("networks × epochs", "all", "× the tutorial's loop", "median on val", "lowest–highest"),
    )
    whole = Table(f"All layers of {NETWORK}, augmented, s", ("epochs", "all", "× the tutorial's loop", "on val"))
    epochs, few = work.scaled(EPOCHS, least=2), work.scaled(WHOLE_EPOCHS, least=2)
    caches = [work.folder / f"{part}.h5" for part in ("train", "val")]
    work.say("pretrained: caches")
    building = sum(
        _seconds([*CLI, "build-cache", str(work.source / path.stem), "--out", str(path), "--like", NETWORK], work)
        for path in caches
    )
    _heads(work, heads, caches, building, epochs)
    _whole(work, whole, caches, building, few)
    first, best = (RunFolder(work.folder / "runs" / name) for name in ("whole", f"head-lr-{RATES[-1]}-seed-0"))
    whole.notes.append("`compare` of this network with the first head of the higher rate:")
    whole.notes.append(f"```text\n{compare_runs([best.path, first.path])}\n```")
    return [heads, whole]


def _heads(work: Workplace, table: Table, caches: list[Path], building: float, epochs: int) -> None:
    work.say("pretrained: heads")
    rates = ",".join(map(str, RATES))
    many = ["--seeds", f"0-{SEEDS - 1}", "--sweep", f"lr={rates}", "--name", "head"]
    training = _seconds([*_train(work, caches, epochs), *HEAD, *many], work)
    ours, networks = building + training, SEEDS * len(RATES)
    work.say("pretrained: the tutorial's loop, last layer alone")
    one, more = (_tutorial(work, "head", count) for count in (1, 3))
    an_epoch = (more[0] - one[0]) / 2
    alone = one[0] + (epochs - 1) * an_epoch
    names = [[f"head-lr-{rate}-seed-{seed}" for seed in range(SEEDS)] for rate in RATES]
    for rate, group in zip(RATES, names, strict=True):
        found = sorted(RunFolder(work.folder / "runs" / name).read_metrics()[-1].val_acc or 0.0 for name in group)
        middle = (found[(SEEDS - 1) // 2] + found[SEEDS // 2]) / 2
        row = ("", "", "") if rate != RATES[0] else (f"{networks} × {epochs}", ours, f"{networks * alone / ours:.0f}")
        table.add(f"ours, lr {rate:g}", *row, f"{middle:.3f}", f"{found[0]:.3f}–{found[-1]:.3f}")
    table.add("the tutorial's loop, computed", f"{networks} × {epochs}", networks * alone, "1", "–", "–")
    table.add("the tutorial's loop, measured", "1 × 3", more[0], "–", f"{more[1]:.3f}", "–")
    table.notes.append(
        f"Ours: two `build-cache` ({building:.1f} s) and one `train {' '.join(HEAD)}` ({training:.1f} s), features and "
        f"report included. The tutorial's loop, a process for each network: {one[0]:.1f} s with one epoch, "
        f"{an_epoch:.1f} s for each further one."
    )
    table.notes.append("The two rates were chosen on `val`, so these accuracies read too high; 94.8 % is usual.")


def _whole(work: Workplace, table: Table, caches: list[Path], building: float, epochs: int) -> None:
    work.say("pretrained: all layers")
    training = _seconds([*_train(work, caches, epochs), *WHOLE, "--name", "whole"], work)
    work.say("pretrained: the tutorial's loop, all layers")
    one, more = (_tutorial(work, "whole", count) for count in (1, 2))
    theirs = one[0] + (epochs - 1) * (more[0] - one[0])
    accuracy = RunFolder(work.folder / "runs" / "whole").read_metrics()[-1].val_acc or 0.0
    table.add("ours", str(epochs), building + training, f"{theirs / (building + training):.2f}", f"{accuracy:.3f}")
    table.add("the tutorial's loop, computed", str(epochs), theirs, "1", "–")
    table.add("the tutorial's loop, measured", "2", more[0], "–", f"{more[1]:.3f}")
    table.notes.append(f"Ours: two `build-cache` ({building:.1f} s) and `train {' '.join(WHOLE)}` ({training:.1f} s).")


def _train(work: Workplace, caches: list[Path], epochs: int) -> list[str]:
    paths = ["--cache", str(caches[0]), "--val", str(caches[1])]
    how = ["--model", NETWORK, "--weights", str(work.weights), "--epochs", str(epochs), "--batch-size", str(BATCH)]
    return [*CLI, "train", *paths, *how]


def _seconds(command: list[str], work: Workplace) -> float:
    """Return how long a whole process takes, in the folder of the benchmarks."""
    start = time.perf_counter()
    subprocess.run(command, cwd=work.folder, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def _tutorial(work: Workplace, kind: str, epochs: int) -> tuple[float, float]:
    """Return the seconds of a process of the tutorial's loop, and its best accuracy."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.pretrained", str(work.source), str(work.weights), kind, str(epochs)]
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, float(ended.stdout)


def main() -> None:
    """Train as PyTorch's transfer-learning tutorial does: decode each image in each epoch; print the best accuracy."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("kind", choices=("head", "whole"))
    parser.add_argument("epochs", type=int)
    options = parser.parse_args()
    network = _network(options.weights)
    if options.kind == "head":
        for name, parameter in network.named_parameters():
            parameter.requires_grad = name.startswith("classifier.")
    optimizer = torch.optim.SGD((p for p in network.parameters() if p.requires_grad), lr=0.001, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    loaders = {
        part: _loader(options.source / part, options.kind == "whole" and part == "train") for part in ("train", "val")
    }
    best = 0.0
    for _ in range(options.epochs):
        for part, loader in loaders.items():
            network.train(part == "train")
            right = 0
            for images, labels in loader:
                optimizer.zero_grad()
                with torch.set_grad_enabled(part == "train"):
                    logits = network(images)
                    loss = cross_entropy(logits, labels)
                    if part == "train":
                        loss.backward()
                        optimizer.step()
                right += int((logits.argmax(1) == labels).sum())
            if part == "train":
                scheduler.step()
            else:
                best = max(best, right / len(loader.dataset))
    print(best)


def _network(weights: Path) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(NETWORK.removeprefix("timm:"))
    network.load_state_dict(torch.load(weights, weights_only=True))
    classifier: Any = network.classifier
    network.classifier = nn.Linear(classifier.in_features, 2)
    return network


def _loader(folder: Path, augmented: bool) -> Any:
    from torchvision import datasets, transforms

    bicubic = transforms.InterpolationMode.BICUBIC
    changes = (
        [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip()]
        if augmented
        else [transforms.Resize(256, bicubic), transforms.CenterCrop(224)]
    )
    scale = transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = datasets.ImageFolder(str(folder), transforms.Compose([*changes, transforms.ToTensor(), scale]))
    return torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=os.cpu_count() or 1)


if __name__ == "__main__":
    main()

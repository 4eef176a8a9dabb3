"""Training killed at any step or in the midst of saving, and resumed: it ends with the bits of a run that never was.

The first half of the cuts come after a step, by SIGKILL or by SIGTERM, the others at an operation on a file, which is
most often in the midst of a checkpoint. Every third run is killed once more when it goes on.
"""

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from modelnet import TrainOptions
from pipeline.build.build import build_cache
from tests.soak.conftest import Count
from tests.soak.training_process import DONE, STOPPED, Moment
from tests.support.command_line import REPOSITORY
from tests.support.own_code import CHANGE, NETWORK
from tests.support.photos import save_jpeg

Started = Callable[[Path, dict[str, Any], Moment], int]

IMAGES, BATCH, EPOCHS = 7, 3, 4  # of each of two classes; five batches an epoch

SETTINGS: dict[str, dict[str, Any]] = {
    "sgd": {"momentum": 0.9, "sched": "plateau", "plateau_epochs": 1, "accumulate": 2, "zero_grad": "epoch"},
    "adamw": {"opt": "adamw", "sched": "cosine", "warmup_epochs": 1, "model_ema": 0.9, "clip_grad": 1.0},
    "float16": {"amp": True, "amp_dtype": "float16", "clip_grad": 1.0, "accumulate": 2, "sched": "step"},
    "dropout": {"model": "squeezenet1_1", "opt": "rmsprop", "lr": 1e-4, "model_ema": 0.5},
    "frozen": {"model": "timm:test_resnet", "freeze": "all-but-head", "opt": "adamw", "model_ema": 0.9},
    "features": {
        "model": "timm:test_resnet",
        "weights": "../w.pth",
        "freeze": "all-but-head",
        "augment": "",
        "opt": "adamw",
        "model_ema": 0.9,
    },
    "thawed": {
        "model": "timm:test_vit",
        "freeze": "all-but-head",
        "thaw_epoch": 3,
        "head_lr": 10.0,
        "layer_decay": 0.75,
    },
    "own code": {"model": "../net.py:Net", "model_arg": ["width=3"], "augment_code": "../changes.py:speckle"},
    "randaugment": {"augment": "rot90,vflip,rotate,grey,blur,randaugment,trivialaugment,flip", "opt": "adamw"},
}


@pytest.fixture
def cache(workspace: Path) -> Path:
    for class_id in ("1", "2"):
        for i in range(IMAGES):
            save_jpeg(workspace / "photos" / class_id / f"{i}.jpg", 70, 64, seed=10 * int(class_id) + i)
    (workspace / "net.py").write_text(NETWORK)
    (workspace / "changes.py").write_text(CHANGE)
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet").state_dict(), workspace / "w.pth")
    build_cache(workspace / "photos", workspace / "c.h5", size=64, dtype="uint8", workers=1)
    return workspace / "c.h5"


GROUPS: dict[str, dict[str, Any]] = {
    "one after another": {"freeze": "features", "opt": "adamw", "lr": 1e-3},
    "in one pass": {"model_ema": 0.9, "sched": "cosine", "momentum": 0.9},
    "last layers": {**SETTINGS["features"], "opt": "sgd", "momentum": 0.9},
}


def values(cache: Path, settings: dict[str, Any], workers: int) -> dict[str, Any]:
    common = {"lr": 0.02, "augment": "flip,crop,color", "val": cache, "device": "cpu", "threads": 1, "name": "run"}
    options: dict[str, Any] = {"batch_size": BATCH, "epochs": EPOCHS, "workers": workers} | common | settings
    return TrainOptions(cache, **options).to_dict()


@pytest.fixture
def started() -> Iterator[Started]:
    """Run until the end, or until it is killed; return the exit code, negative for a signal."""
    program = [sys.executable, "-m", "soak.training_process"]
    environment = os.environ | {"PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def start(folder: Path, options: dict[str, Any], moment: Moment) -> int:
            assert process.stdin and process.stdout
            process.stdin.write(json.dumps([str(folder), options, moment]) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield start
        assert process.stdin
        process.stdin.close()
        process.wait(60)


def digest(content: Any) -> str:
    """SHA-256 over all tensors and values of a part of a checkpoint."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value, key=str):
                found.update(str(key).encode())
                add(value[key])
        elif isinstance(value, list):
            for part in value:
                add(part)
        else:
            found.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())

    add(content)
    return found.hexdigest()


def outcome(folder: Path, name: str = "run") -> dict[str, Any]:
    """Return all that a run ends with, but for times."""
    place = folder / "runs" / name
    kept = {"weights", "optimizer", "average", "averaged", "scaler", "epoch", "best", "stale", "decays", "rng"}
    found: dict[str, Any] = {}
    for name in ("last", "best"):
        content = torch.load(place / "checkpoints" / f"{name}.pt", weights_only=True)
        found[name] = {key: digest(content[key]) for key in kept}
    with (place / "metrics.csv").open() as file:
        found["metrics"] = [row[:6] for row in csv.reader(file)]
    found["predictions"] = (place / "predictions.csv").read_bytes()
    found["left over"] = sorted(path.name for path in place.rglob("*.new"))
    return found


def cut(rng: random.Random, i: int, operations: int, networks: int = 1) -> Moment:
    """Choose the i-th moment, of networks that are trained one after another."""
    if i % 2 == 0:
        signum = signal.SIGKILL if i % 4 == 0 else signal.SIGTERM
        return Moment("step", rng.randint(1, networks * EPOCHS * -(-2 * IMAGES // BATCH)), signum)
    return Moment("file", rng.randint(1, operations), signal.SIGKILL, half=i % 4 == 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_cut_anywhere_ends_with_the_same_bits(
    cache: Path, workspace: Path, count: Count, started: Started, workers: int
) -> None:
    rng = random.Random(workers)
    figures: Counter[str] = Counter()
    kinds = list(SETTINGS)
    expected: dict[str, dict[str, Any]] = {}
    operations: dict[str, int] = {}
    for i in range(count(20 * len(kinds), 1)):
        kind = kinds[i // 4 % len(kinds)]
        options = values(cache, SETTINGS[kind], workers)
        if kind not in expected:
            (workspace / kind).mkdir()
            assert started(workspace / kind, options, Moment()) == DONE
            expected[kind] = outcome(workspace / kind)
            operations[kind] = int((workspace / kind / "operations").read_text())
        folder = workspace / "cut"
        folder.mkdir()
        moments = [cut(rng, i, operations[kind])]
        if i % 3 == 0:
            moments.append(cut(rng, i, max(2, operations[kind] // 3)))
        for moment in moments:
            code = started(folder, options, moment)
            assert code in (-signal.SIGKILL, STOPPED, DONE), (kind, moment, code)
            figures["killed" if code < 0 else "stopped" if code else "ended before the cut"] += 1
            if code < 0 and not (folder / "runs/run/checkpoints/last.pt").exists():
                shutil.rmtree(folder / "runs", ignore_errors=True)  # nothing was saved yet: it begins anew
        assert started(folder, options, Moment()) == DONE
        assert outcome(folder) == expected[kind], (kind, moments)
        figures["equal"] += 1
        shutil.rmtree(folder)
    print(f"\n{workers} workers: {dict(figures)}; operations on files in a run: {operations}")
    assert figures["killed"] > figures["equal"] // 3


@pytest.mark.parametrize("kind", GROUPS)
def test_a_group_that_is_cut_anywhere_comes_to_the_same_end(
    cache: Path, workspace: Path, count: Count, started: Started, kind: str
) -> None:
    """Networks of one pass that were killed between their checkpoints go back to the step of the others."""
    rng, names = random.Random(kind), ("run-seed-0", "run-seed-1")
    options = values(cache, GROUPS[kind], 0) | {"seeds": [0, 1]}
    whole = workspace / "whole"
    whole.mkdir()
    assert started(whole, options, Moment()) == DONE
    expected = [outcome(whole, name) for name in names]
    operations = int((whole / "operations").read_text())
    figures: Counter[str] = Counter()
    for i in range(count(20, 4)):
        folder = workspace / "cut"
        folder.mkdir()
        moment = cut(rng, i, operations, len(names) if kind == "one after another" else 1)
        code = started(folder, options, moment)
        assert code in (-signal.SIGKILL, STOPPED, DONE), (moment, code)
        if not (folder / "runs/run-seed-0/group.csv").exists():
            shutil.rmtree(folder / "runs", ignore_errors=True)  # it was killed before it had begun: it begins anew
        assert started(folder, options, Moment()) == DONE
        found = [outcome(folder, name) for name in names]
        assert found == expected, moment
        figures["equal"] += 1
        shutil.rmtree(folder)
    print(f"\n{kind}: {dict(figures)}; {operations} operations on files in a group")


EXPERIMENT = """
seeds = "0-7"
[common]
cache = "../c.h5"
val = "../c.h5"
batch_size = 3
epochs = 4
threads = 1
device = "cpu"
[slow]
lr = 0.01
[fast]
lr = 0.05
momentum = 0.9
model_ema = 0.9
"""


def test_an_experiment_that_is_cut_anywhere_and_repeated_has_the_same_end(
    cache: Path, workspace: Path, count: Count, started: Started
) -> None:
    """Two sides with eight seeds, by the same command each time; every third is killed once more."""
    rng, figures = random.Random(8), Counter[str]()
    names = [f"e-{side}-seed-{seed}" for side in ("slow", "fast") for seed in range(8)]
    options = values(cache, {}, 0)
    (workspace / "whole").mkdir()
    (workspace / "whole" / "e.toml").write_text(EXPERIMENT)
    assert started(workspace / "whole", options, Moment()) == DONE
    expected = [outcome(workspace / "whole", name) for name in names]
    operations = int((workspace / "whole" / "operations").read_text())
    for i in range(count(100, 3)):
        folder = workspace / "cut"
        folder.mkdir()
        (folder / "e.toml").write_text(EXPERIMENT)
        for _ in range(2 if i % 3 == 0 else 1):
            moment = cut(rng, i, operations)
            code = started(folder, options, moment)
            assert code in (-signal.SIGKILL, STOPPED, DONE), (moment, code)
            figures["killed" if code < 0 else "stopped" if code else "ended before the cut"] += 1
        assert started(folder, options, Moment()) == DONE
        assert [outcome(folder, name) for name in names] == expected, moment
        figures["equal"] += 1
        shutil.rmtree(folder)
    print(f"\n{dict(figures)}; {operations} operations on files in an experiment")
    assert figures["killed"] > figures["equal"] // 3

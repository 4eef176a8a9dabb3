"""Every pair of training options with drawn values: no bug, no hang, and no option that is lost in silence."""

import random
import shutil
import signal
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import ModelNet, TrainOptions, train
from modelnet.options import AUGMENTATIONS, OPTIONS
from modelnet.options.declaration import Scope
from pipeline import TensorCache
from pipeline.errors import PipelineError
from tests.soak.conftest import Count
from tests.support.listener import Listener
from tests.support.splits import write_folds

SECONDS = 120  # a run of 8 images may take, compiling included
BASE: dict[str, Any] = {"device": "cpu", "threads": 1, "batch_size": 3, "epochs": 3, "lr": 0.01}

Values = dict[str, Any]

# Values that change a run of three epochs; the declaration gives those of the other options.
DRAWN: dict[str, Callable[[random.Random], Any]] = {
    "val_fraction": lambda r: r.uniform(0.2, 0.6),
    "model": lambda r: r.choice(["linear", "squeezenet1_1", "shufflenet_v2_x0_5", "resnet9000"]),
    "model_arg": lambda r: ("width=3",),
    "freeze": lambda r: r.choice(["features", "classifier.0", "all-but-head", "nothing"]),
    "thaw_epoch": lambda r: r.choice([1, 2, 3]),
    "head_lr": lambda r: r.choice([0.1, 3.0]),
    "layer_decay": lambda r: r.uniform(0.3, 0.9),
    "batch_size": lambda r: r.choice([1, 2, 5, 7, 100]),
    "accumulate": lambda r: r.choice([2, 3]),
    "epochs": lambda r: r.choice([1, 2, 4]),
    "lr": lambda r: 10 ** r.uniform(-4, 0.5),
    "momentum": lambda r: r.uniform(0, 0.99),
    "weight_decay": lambda r: 10 ** r.uniform(-2, 0),
    "warmup_epochs": lambda r: r.choice([1, 2]),
    "decay_rate": lambda r: r.uniform(0, 0.8),
    "decay_epochs": lambda r: 1,
    "plateau_epochs": lambda r: 1,
    "clip_grad": lambda r: 10 ** r.uniform(-4, -2),
    "smoothing": lambda r: r.uniform(0.05, 1),
    "augment": lambda r: ",".join(r.sample(AUGMENTATIONS, r.randint(1, 4))),
    "crop_size": lambda r: r.choice([32, 60, 63, 65]),
    "crop_scale": lambda r: r.uniform(0.6, 1),
    "color_jitter": lambda r: r.uniform(0.5, 1),
    "mixup_alpha": lambda r: r.uniform(0.5, 3),
    "cutmix_alpha": lambda r: r.uniform(0.1, 0.9),
    "model_ema": lambda r: r.uniform(0.1, 0.99),
    "patience": lambda r: 1,
    "init": lambda r: r.choice(["kaiming", "xavier", "orthogonal", "zeros"]),
    "seed": lambda r: r.randint(1, 2**62),
    "data_seed": lambda r: r.randint(1, 2**62),
    "device": lambda r: r.choice(["auto", "cuda:7"]),
    "workers": lambda r: r.choice([1, 2]),
    "threads": lambda r: 2,
    "name": lambda r: "named",
    "fold": lambda r: r.choice([0, 1]),
    "label_column": lambda r: "kind",
    "file_column": lambda r: "photo",
}


def draw(name: str, random_numbers: random.Random, paths: Values) -> Any:
    """Return a value of an option that is not its default."""
    option = OPTIONS[name]
    if name in paths:
        return paths[name]
    if name in DRAWN:
        return DRAWN[name](random_numbers)
    if option.choices:
        return random_numbers.choice([choice for choice in option.choices if choice != option.default])
    assert option.types == (bool,), f"{name} has no values to draw"
    return not option.default


class Runs:
    """Trains with options, and remembers what came of it."""

    def __init__(self, cache: Path, folder: Path) -> None:
        self.cache = cache
        self.folder = folder
        self._known: dict[str, tuple[Any, list[str]]] = {}

    def outcome(self, values: Values) -> tuple[Any, list[str]]:
        """Return the numbers of a run, or the error it ends with, and its warnings.

        Anything but an error of ours fails the test: the command line would call it a bug.
        """
        key = repr(sorted(values.items()))
        if key not in self._known:
            shutil.rmtree(self.folder / "runs", ignore_errors=True)
            self._known[key] = self._train(values)
        return self._known[key]

    def _train(self, values: Values) -> tuple[Any, list[str]]:
        heard = Listener()
        try:
            options = TrainOptions(self.cache, **BASE | values)
        except ValueError as error:
            return f"usage: {error}", heard.warnings
        signal.alarm(SECONDS)
        try:
            result = train(options, heard)
        except PipelineError as error:
            assert error.exit_code > 1, error
            return type(error).__name__, heard.warnings
        finally:
            signal.alarm(0)
        saved = torch.load(result.run / "checkpoints/last.pt", weights_only=True)
        tensors = [*saved["weights"].values(), *saved["average"].values()]
        numbers = [(row.train_loss, row.train_acc, row.val_loss, row.lr) for row in result.rows]
        return (numbers, [float(tensor.double().sum()) for tensor in tensors]), heard.warnings


@pytest.mark.filterwarnings("ignore")
def test_no_pair_of_options_ends_in_a_bug_or_loses_one(
    cache_path: Path, uint8_cache_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch, count: Count
) -> None:
    monkeypatch.chdir(workspace)
    for drawing in ("loss_curves", "confusion_picture"):
        monkeypatch.setattr(f"modelnet.training.loop.{drawing}", lambda *of: b"")
    signal.signal(signal.SIGALRM, hung)
    torch.save(ModelNet(2, 64).state_dict(), "weights.pt")
    Path("changes.py").write_text("def change(image, generator):\n    return 255 - image\n")
    cache = TensorCache(cache_path)
    write_labels(cache, Path("labels.csv"))
    write_folds(cache, Path("split.csv"), folds=2, tested=1)
    paths: Values = {"val": uint8_cache_path, "weights": Path("weights.pt"), "augment_code": "changes.py:change"}
    paths |= {"labels": Path("labels.csv"), "split": Path("split.csv")}
    random_numbers = random.Random(0)
    names = [name for name in OPTIONS if name != "cache"]
    pairs = list(combinations(names, 2))
    runs, wrong = Runs(cache_path, workspace), []
    for pair in random_numbers.sample(pairs, min(len(pairs), count(len(pairs), 40))):
        values = {name: draw(name, random_numbers, paths) for name in pair}
        wrong += [f"{values}: {text}" for text in lost(runs, values)]
    assert not wrong, "\n".join(wrong)


def write_labels(cache: TensorCache, path: Path) -> None:
    """Write a table whose columns of files and of labels all say something else of each image."""
    digests = [digest.tobytes().hex() for digest in cache.source_sha256]
    rows = [f"{digests[i]},{digests[i - 3]},{i % 2},{i % 3}\n" for i in range(len(digests))]
    path.write_text("".join(["image,photo,label,kind\n", *rows]))


def hung(*_: object) -> None:
    raise AssertionError(f"a run takes more than {SECONDS} seconds")


def lost(runs: Runs, values: Values) -> list[str]:
    """Name the options of a run that changed nothing and of which it did not warn."""
    numbers, warnings = runs.outcome(values)
    if isinstance(numbers, str):
        return []
    found = []
    for name in values:
        option = OPTIONS[name]
        without = {other: value for other, value in values.items() if other != name}
        changes_numbers = option.scope in (Scope.NETWORK, Scope.PASS, Scope.GROUP)
        if not changes_numbers or is_without_need(name, values) or any(f"{option.flag} " in text for text in warnings):
            continue
        if runs.outcome(without)[0] == numbers:
            found.append(f"{name} changed nothing, and nobody said so")
    return found


def is_without_need(name: str, values: Values) -> bool:
    """Say whether an option that does its work may change no number of a run of three epochs."""
    return (
        name in ("patience", "plateau_epochs")  # for an epoch that is not better
        or name in ("drop_last", "accumulate")  # the last batch may be whole, or the only one
        or name == "class_weights"  # of classes of the same size
        or name == "decay_rate"  # of a plateau
        or (name == "sched" and values["sched"] == "plateau")
        or (name in ("epochs", "thaw_epoch") and "patience" in values)  # which ended the run before
        or (name == "zero_grad" and values.get("accumulate") == 3)  # an epoch has one step
        or (name == "freeze" and values.get("init") == "zeros")  # hidden layers do not learn from zeros
    )

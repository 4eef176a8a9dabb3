"""Files of a run with one value replaced: every command works with it or names the file and the key, never "a bug".

config.json, scores.json, metrics.csv, predictions.csv, and checkpoints whose digest is right and whose content is not.
"""

import copy
import csv
import io
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import Trained, TrainOptions, compare_runs, resume, train
from modelnet.pages.collect import gather
from modelnet.pages.page import render
from modelnet.runs import checkpoint
from pipeline.errors import CheckpointError, PipelineError, RunDamaged
from tests.soak.conftest import Count

JSON_VALUES: list[Any] = [None, [], 1e308, 99999999999999999999, "text", {}, float("nan"), -1, True]
CELLS = ["", "nan", "inf", "1e400", "999999999999", "-1", "text"]
Path_ = tuple[Any, ...]

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, uint8_cache_path: Path) -> list[Path]:
    """Two runs with validation images, of two epochs each."""
    folder = tmp_path_factory.mktemp("believed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        options = TrainOptions(
            uint8_cache_path, val=uint8_cache_path, epochs=2, opt="adam", model_ema=0.5, device="cpu"
        )
        return [train(TrainOptions(**vars(options) | {"seed": seed})).run.absolute() for seed in (0, 1)]


@pytest.fixture
def run(runs: list[Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(runs[0], tmp_path / "runs" / "attacked"))


def commands(run: Path, other: Path) -> dict[str, Callable[[], object]]:
    return {
        "report": lambda: render(gather([run])),
        "report of two": lambda: render(gather([run, other])),
        "compare": lambda: str(compare_runs([run, other])),
        "evaluate": lambda: str(Trained.load(run, device="cpu").evaluate()),
        "resume": lambda: resume(run, epochs=3),
    }


READ_BY = {
    "config.json": ("report", "report of two", "compare", "evaluate", "resume"),
    "scores.json": ("report", "report of two"),
    "metrics.csv": ("report", "report of two", "compare", "resume"),
    "predictions.csv": ("report", "report of two", "compare"),
    "last.pt": ("evaluate", "resume"),
}


def tried(file: str, run: Path, other: Path, what: object) -> dict[str, PipelineError | None]:
    """Run the commands that read a file; return the error of each, and fail where it is not one for people."""
    ended: dict[str, PipelineError | None] = {}
    for name in READ_BY[file]:
        try:
            commands(run, other)[name]()
            ended[name] = None
        except PipelineError as error:
            ended[name] = error
        except Exception as error:
            raise AssertionError(f"{name} with {what}: {type(error).__name__}: {error}") from error
    return ended


def paths(values: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield where every value of nested tables and lists is."""
    if path:
        yield path
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        if isinstance(value, dict | list):
            yield from paths(value, (*path, key))
        else:
            yield (*path, key)


def replaced(values: Any, path: Path_, value: Any) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return changed


def without(values: Any, path: Path_) -> Any:
    changed = copy.deepcopy(values)
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return changed


@pytest.mark.parametrize("name", ["config.json", "scores.json"])
def test_no_value_of_a_json_file_is_called_a_bug(name: str, run: Path, runs: list[Path], count: Count) -> None:
    whole = json.loads((run / name).read_bytes())
    attacks = [(path, value) for path in paths(whole) for value in JSON_VALUES]
    random.Random(0).shuffle(attacks)
    refused = 0
    for path, value in attacks[: count(len(attacks), 20)]:
        (run / name).write_text(json.dumps(replaced(whole, path, value)))
        ended = tried(name, run, runs[1], (path, value))
        if isinstance(error := ended["report"], RunDamaged):
            refused += 1
            assert error.exit_code == 65
            if "its classes are others" not in str(error):  # than config.json's: either file may be right
                assert error.path == run / name, error
                assert str(path[-1]) in str(error) or isinstance(path[-1], int), error
        fresh(run, runs[0])
    assert refused > 5


def fresh(run: Path, original: Path) -> None:
    """Make the run as it was again: a resume may have gone on with it."""
    shutil.rmtree(run)
    shutil.copytree(original, run)


def test_a_missing_key_is_an_older_run_or_is_named(run: Path, runs: list[Path], count: Count) -> None:
    whole = json.loads((run / "config.json").read_bytes())
    attacks = [path for path in paths(whole) if not isinstance(path[-1], int)]
    random.Random(0).shuffle(attacks)
    for path in attacks[: count(len(attacks), 8)]:
        (run / "config.json").write_text(json.dumps(without(whole, path)))
        tried("config.json", run, runs[1], f"no {path}")
        fresh(run, runs[0])


@pytest.mark.parametrize("name", ["metrics.csv", "predictions.csv"])
def test_no_cell_of_a_table_is_called_a_bug(name: str, run: Path, runs: list[Path], count: Count) -> None:
    table = list(csv.reader(io.StringIO((run / name).read_text())))
    cells = [(line, column, cell) for line in range(len(table)) for column in range(len(table[0])) for cell in CELLS]
    random.Random(0).shuffle(cells)
    for line, column, cell in cells[: count(len(cells), 16)]:
        (run / name).write_text(table_text(replaced(table, (line, column), cell)))
        tried(name, run, runs[1], (line, table[0][column], cell))
        fresh(run, runs[0])


def table_text(table: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def test_a_cell_that_is_no_number_is_named_with_its_epoch_and_column(run: Path, runs: list[Path]) -> None:
    table = list(csv.reader(io.StringIO((run / "metrics.csv").read_text())))
    for name, cell in (("train_loss", "inf"), ("epoch_s", "inf"), ("val_acc", ""), ("lr", "nan"), ("train_acc", "7")):
        (run / "metrics.csv").write_text(table_text(replaced(table, (2, table[0].index(name)), cell)))
        with pytest.raises(RunDamaged, match=rf"metrics\.csv: it is not a table of epochs \(epoch 2: {name} is a num"):
            gather([run])
    (run / "metrics.csv").write_text(table_text(replaced(table, (2, 0), "999999999999")))
    with pytest.raises(RunDamaged, match=r"epoch is a whole number from 1 to 2147483647, not 999999999999"):
        gather([run])


def contents(content: dict[str, Any]) -> dict[str, tuple[dict[str, Any], str]]:
    """Return contents with one thing wrong, and what the error says of each."""
    weight = next(iter(content["weights"]))
    one = content["weights"][weight]
    state = content["optimizer"]["state"]
    wrong: dict[str, tuple[Path_, Any, str]] = {
        "no optimizer": (("optimizer",), None, "optimizer is a table with state, param_groups, not null"),
        "state of none": (("optimizer", "state"), None, "optimizer.state is a table, not null"),
        "a moment of None": (("optimizer", "state", 0), {}, "optimizer.state.0.step is a tensor, not null"),
        "a moment's shape": (("optimizer", "state", 0, "exp_avg"), torch.zeros(3), "exp_avg is of shape"),
        "state of a stranger": (("optimizer", "state", 99), state[0], "optimizer.state.99 is of no parameter"),
        "a rate of text": (
            ("optimizer", "param_groups", 0, "lr"),
            "fast",
            "lr is a number from -1e+15 to 1e+15, not 'fast'",
        ),
        "a rate too long": (
            ("optimizer", "param_groups", 0, "eps"),
            10**20,
            "eps is a number from -1e+15 to 1e+15, not 1",
        ),
        "betas": (("optimizer", "param_groups", 0, "betas"), (1,), "betas is 2 numbers"),
        "groups": (("optimizer", "param_groups", 0, "params"), [0], "name other parameters"),
        "epoch -1": (("epoch",), -1, "epoch is a whole number from 0, not -1"),
        "epoch of text": (("epoch",), "two", "epoch is a whole number from 0, not 'two'"),
        "too many steps": (("step",), 999, "step is 999, and an epoch has"),
        "random state cut": (("rng",), torch.zeros(16, dtype=torch.uint8), "rng has 5056 bytes, not (16,)"),
        "random state of zeros": (("rng",), torch.zeros(5056, dtype=torch.uint8), "rng is no state of torch's random"),
        "running": (("running",), {"loss_sum": 1.0}, "running.correct is missing"),
        "running of text": (("running", "loss_sum"), "much", "running.loss_sum is a number"),
        "recipe": (("recipe",), {"size": 64}, "recipe.mean is missing"),
        "recipe's size": (("recipe", "size"), 32, "model.size is 32 by its recipe"),
        "best": (("best",), ["good"], "best[0] is a number, not 'good'"),
        "features": (("features",), {"model": "x"}, "features: "),
        "another shape": (("weights", weight), torch.zeros(5), "size mismatch"),
        "sparse": (("weights", weight), one.to_sparse(), f"{weight} is a dense tensor of real numbers, not a sparse"),
        "meta": (("weights", weight), one.to("meta"), f"{weight} is a dense tensor of real numbers, not a meta one"),
        "complex": (("weights", weight), one.to(torch.complex64), "not a complex one"),
        "no tensor": (("weights", weight), 3, f"weights.{weight} is a tensor, not 3"),
        "average": (("average", weight), one.to(torch.complex64), "not a complex one"),
        "classes": (("model", "classes"), 10**12, "class_ids has 2 entries"),
        "size": (("model", "size"), 10**9, "model.size is 64"),
        "class twice": (("class_ids",), [1, 1], "class_ids has '1' twice"),
        "options": (("options", "epochs"), "many", "options.epochs is a whole number"),
        "scaler": (("scaler",), {"scale": "big"}, "scaler.scale is a number"),
        "time": (("seconds",), float("inf"), "seconds is a number from 0, not inf"),
    }
    return {name: (replaced(content, path, value), says) for name, (path, value, says) in wrong.items()}


def test_a_right_digest_proves_no_content(run: Path, runs: list[Path]) -> None:
    content = checkpoint.decode((run / "checkpoints" / "last.pt").read_bytes(), run)
    for name, (wrong, says) in contents(content).items():
        (run / "checkpoints" / "last.pt").write_bytes(checkpoint.encode(wrong))
        with pytest.raises(CheckpointError) as caught:
            resume(run, epochs=3)
        assert says in str(caught.value), (name, str(caught.value))
        assert caught.value.exit_code == 65
        tried("last.pt", run, runs[1], name)


def test_no_value_of_a_checkpoint_is_called_a_bug(run: Path, runs: list[Path], count: Count) -> None:
    whole = checkpoint.decode((run / "checkpoints" / "last.pt").read_bytes(), run)
    values = [*JSON_VALUES, torch.zeros(2, 2), torch.zeros(2, dtype=torch.complex64), torch.zeros(2).to_sparse()]
    attacks = [(path, value) for path in paths(whole) for value in values]
    random.Random(0).shuffle(attacks)
    for path, value in attacks[: count(len(attacks), 30)]:
        (run / "checkpoints" / "last.pt").write_bytes(checkpoint.encode(replaced(whole, path, value)))
        tried("last.pt", run, runs[1], (path, value))
        fresh(run, runs[0])

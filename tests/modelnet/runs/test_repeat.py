"""The options of a run for another run (modelnet/runs/repeat.py): caches where they are now, code as the run has it."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions, train
from modelnet.runs import code as runs_code
from modelnet.runs.folder import RunFolder
from modelnet.runs.repeat import repeated_options
from pipeline import TensorCache
from pipeline.errors import CacheMissing, CheckpointError, CodeError, RunError
from tests.support.made_runs import make_run
from tests.support.own_code import NETWORK
from tests.support.splits import write_folds

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def test_a_repeat_has_the_options_of_the_run_but_its_name(cache_path: Path) -> None:
    shutil.copy(cache_path, "c.h5")
    run = make_run("r", [0.5], lr=0.3, opt="adamw", seed=5, data_seed=6)

    config = RunFolder(run).read_config()
    named = TrainOptions.from_dict(config["options"] | {"name": "r"})
    RunFolder(run).write_config(config | {"options": named.to_dict()})

    options = TrainOptions(**repeated_options(run))

    assert options == TrainOptions(Path("c.h5"), epochs=1, lr=0.3, opt="adamw", seed=5, data_seed=6)


def test_a_cache_is_taken_from_where_it_is_now(cache_path: Path) -> None:
    shutil.copy(cache_path, "c.h5")
    run = train(TrainOptions(Path("c.h5"), epochs=1)).run
    Path("data/cache").mkdir(parents=True)
    Path("c.h5").rename("data/cache/moved.h5")

    assert repeated_options(run)["cache"] == "data/cache/moved.h5"


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        (["lr", "cache"], {"threads": 1, "memory_format": "contiguous"}),
        (["batch_size", "cache"], {"memory_format": "contiguous"}),
        (["amp", "cache"], {"threads": 1}),
        (["model", "cache"], {}),
    ],
)
def test_what_a_rule_chose_is_chosen_anew_for_another_network(typed: list[str], kept: dict[str, Any]) -> None:
    run = make_run("r", [0.5], threads=1, memory_format="contiguous")

    values = repeated_options(run, typed)

    assert {name: values[name] for name in ("threads", "memory_format") if name in values} == kept


def test_a_file_of_weights_is_found_from_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run("r", [0.5], weights=Path("w.pth")).absolute()
    Path("w.pth").touch()
    monkeypatch.chdir(run.parent)

    assert repeated_options(Path("r"), typed=["cache"])["weights"] == str(run.parents[1] / "w.pth")
    monkeypatch.chdir(run.parents[1])
    assert repeated_options(run, typed=["cache"])["weights"] == "w.pth"


def test_a_cache_that_is_nowhere_matters_only_if_no_other_is_typed() -> None:
    run = make_run("r", [0.5])

    with pytest.raises(CacheMissing):
        repeated_options(run)
    assert "cache" not in repeated_options(run, typed=["cache"])


def test_code_is_the_copy_of_the_run_if_it_is_trusted(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("net.py").write_text(NETWORK)
    run = train(TrainOptions(cache_path, model="net.py:Net", epochs=1)).run
    Path("net.py").write_text("changed")
    assert repeated_options(run)["model"] == f"{run}/code/model.py:Net"

    monkeypatch.setattr(runs_code, "_allowed", set())
    monkeypatch.setenv("XDG_STATE_HOME", str(Path("elsewhere").absolute()))
    with pytest.raises(CodeError, match=r"unknown code: .* give --trust-code"):
        repeated_options(run)
    assert "model" not in repeated_options(run, typed=["model"])
    assert repeated_options(run, trust_code=True)["model"] == f"{run}/code/model.py:Net"

    RunFolder(run).code_path("model").write_text("import os")
    with pytest.raises(CheckpointError, match="the code of the run was changed"):
        repeated_options(run, trust_code=True)


def test_a_network_from_python_is_in_no_file() -> None:
    run = make_run("r", [0.5], model="python:Net")

    with pytest.raises(RunError, match=r"the run cannot be repeated: .*from Python"):
        repeated_options(run, typed=["cache"])


def test_a_split_is_the_file_while_it_is_as_it_was_and_else_the_copy(cache_path: Path) -> None:
    file = write_folds(TensorCache(cache_path), Path("s.csv"), 2)
    run = train(TrainOptions(cache_path, split=file, fold=0, epochs=1)).run
    assert repeated_options(run)["split"] == "s.csv"

    write_folds(TensorCache(cache_path), file, 3)
    assert repeated_options(run)["split"] == f"{run}/split.csv"
    file.unlink()
    assert repeated_options(run)["split"] == f"{run}/split.csv"

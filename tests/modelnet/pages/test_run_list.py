"""The list of runs (modelnet/pages/run_list.py, commands/workplace/runs.py): states, intervals, options that differ."""

import json
from pathlib import Path

import pytest

from modelnet.eval.scores import accuracy_interval
from modelnet.pages.run_list import list_runs, runs_in, runs_table
from modelnet.runs.folder import RunFolder
from pipeline.errors import RunError
from tests.support.command_line import RunCli
from tests.support.made_runs import make_run

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")

ANSWERS = [("1", "a.jpg", "1", 0.9), ("1", "b.jpg", "2", 0.8)]


def test_runs_show_the_options_in_which_they_differ_and_their_results() -> None:
    make_run("a", [0.7, 0.6], ANSWERS, lr=0.5, seed=3)
    make_run("b", [0.5], model="resnet18")

    first, second = list_runs(runs_in(Path("runs")))

    assert first.options == {"model": "modelnet", "seed": 3, "epochs": 2, "lr": 0.5}
    assert second.options == {"model": "resnet18", "seed": 0, "epochs": 1, "lr": 0.008}
    assert (first.images, first.accuracy, (first.low, first.high)) == (2, 0.5, accuracy_interval(1, 2))
    assert (second.accuracy, second.result) == (None, "training loss 0.5000")
    lines = runs_table([first, second]).splitlines()
    assert " ".join(lines[1].split()) == "runs/a finished 2/2 50.0% (9.5% to 90.5%) seed=3 epochs=2 lr=0.5"
    assert " ".join(lines[2].split()).endswith("training loss 0.5000 model=resnet18 epochs=1 lr=0.008")


def test_values_are_listed_as_they_are_typed() -> None:
    own = make_run("own", [0.5], model="net.py:Net", model_arg=("width=8", "depth=2"), crop_size=192)
    lines = runs_table(list_runs([own, make_run("plain", [0.5], crop_size=(192, 256))])).splitlines()
    assert lines[1].endswith("model=net.py:Net model-arg=width=8 depth=2 crop-size=192")
    assert lines[2].endswith("training loss 0.5000        crop-size=192x256")  # no model-arg


def test_the_state_of_a_run_is_what_its_folder_says() -> None:
    make_run("done", [0.5])
    make_run("stopped", [0.5], epochs=3)
    RunFolder(make_run("wild", [0.5], epochs=3)).write_divergence("the loss is nan in epoch 2")
    make_run("patient", [0.5, 0.6, 0.7], epochs=9, patience=3)
    make_run("impatient", [0.5, 0.6, 0.7], epochs=9, patience=2)
    (make_run("killed", [0.5], ANSWERS) / "predictions.csv").unlink()
    with RunFolder.open_for_writing(make_run("now", [0.5], epochs=3)):
        states = {Path(run.run).name: run.state for run in list_runs(runs_in(Path("runs")))}

    ended = {"done": "finished", "impatient": "finished", "wild": "diverged"}
    assert states == {**ended, "stopped": "stopped", "patient": "stopped", "killed": "stopped", "now": "training"}


def test_a_folder_that_cannot_be_read_has_its_line_and_the_others_theirs() -> None:
    good, bad = make_run("good", [0.5]), make_run("bad", [0.5])
    (bad / "config.json").write_text("{}")

    listed = list_runs([bad, good])

    assert [run.state for run in listed] == ["unreadable", "finished"]
    assert runs_table(listed).splitlines()[-1].startswith("warning: the run cannot be read: runs/bad/config.json: ")


def test_no_runs_are_an_error_that_says_what_to_type() -> None:
    with pytest.raises(RunError, match=r"no runs there: runs: .*cli\.py train"):
        runs_in(Path("runs"))


def test_the_command_lists_all_runs_or_those_that_are_named(run_cli: RunCli) -> None:
    for name in "abc":
        make_run(name, [0.5])

    assert [line.split()[0] for line in run_cli("runs").stdout.splitlines()] == ["run", "runs/a", "runs/b", "runs/c"]
    assert "the given runs, by default all in runs/:" in " ".join(run_cli("runs", "-h").stdout.split())
    listed = json.loads(run_cli("runs", "runs/a", "runs/c", "--json").stdout)
    assert [(run["run"], run["state"], run["options"]) for run in listed] == [
        ("runs/a", "finished", {}),
        ("runs/c", "finished", {}),
    ]

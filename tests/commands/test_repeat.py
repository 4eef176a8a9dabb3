"""Options from a file or a run (commands/option_groups/repeat.py): what is typed wins, what is stored counts."""

import json
from pathlib import Path
from typing import Any

import click
import pytest
import torch

from modelnet import ModelNet, TrainOptions
from modelnet.commands import lr_find
from modelnet.commands.option_groups.repeat import chosen_options
from modelnet.commands.train import command as train_command
from modelnet.options import OPTIONS
from pipeline import build_cache
from tests.support.command_line import RunCli, one_line
from tests.support.photos import save_jpeg

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def chosen(*words: str) -> TrainOptions:
    context = train_command.make_context("train", list(words))
    with context:
        return chosen_options(context)


@pytest.fixture
def config() -> Path:
    Path("o.toml").write_text('cache = "c.h5"\nlr = 0.25\nbatch_size = 4\nval_fraction = 0.5\namp = true\n')
    return Path("o.toml")


def test_what_is_typed_wins_over_the_file_and_the_file_over_defaults(config: Path) -> None:
    options = chosen("--config", "o.toml", "--lr", "0.5", "--no-amp", "-b", "8")

    assert options == TrainOptions(Path("c.h5"), lr=0.5, amp=False, batch_size=8, val_fraction=0.5)


def test_a_default_that_is_typed_wins_too(config: Path) -> None:
    assert chosen("--config", "o.toml", "--batch-size", "8").batch_size == 8


def test_an_option_of_the_file_is_left_out_by_name(config: Path) -> None:
    options = chosen("--config", "o.toml", "--without", "val-fraction", "--val", "v.h5", "--without", "--lr")

    assert options == TrainOptions(Path("c.h5"), batch_size=4, amp=True, val=Path("v.h5"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config", "o.toml", "--val", "v.h5"], "--val-fraction keeps .* --without OPTION leaves one of them out"),
        (["--val", "v.h5", "--val-fraction", "0.5"], "^--val-fraction keeps .* and --val names another"),
        (["--split", "s.csv", "--val", "v.h5"], "^--split says .*: give --fold instead of --val and --val-fraction"),
        (["--preload", "--workers", "1"], "^--preload leaves nothing to read for --workers: give one of the two"),
        (["--amp", "--amp-dtype", "float16", "--zero-grad", "never"], "^--amp-dtype float16 .*give --zero-grad"),
        (["--momentum", "-1"], "^--momentum is 0 or greater, not -1.0"),
        (["--device", "gpu"], "^--device is auto, cpu"),
        (["--config", "o.toml", "--from", "r"], "--config and --from exclude each other"),
        (["--without", "lr"], "--without leaves out an option of --config or --from"),
        (["--config", "o.toml", "--without", "learning-rate"], "--without: learning_rate is no option of training"),
    ],
)
def test_options_that_do_not_go_together_are_refused(config: Path, words: list[str], message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        chosen(*words)


def test_every_option_of_a_file_is_used(config: Path) -> None:
    whole = TrainOptions(Path("c.h5"), **{n: v for n, v in other_values().items()})
    Path("all.json").write_text(json.dumps(whole.to_dict()))

    assert chosen("--config", "all.json") == whole


def other_values() -> dict[str, Any]:
    """Return a value that is not the default for each option that has choices, is a number or a switch."""
    values: dict[str, Any] = {}
    for option in OPTIONS.values():
        if option.choices:
            values[option.name] = next(c for c in option.choices if c != option.default)
        elif option.types[0] in (int, float):
            values[option.name] = 0.75 if option.types[0] is float else 3
        elif option.types[0] is bool:
            values[option.name] = not option.default
    return values | {"preload": False, "zero_grad": "batch", "opt": "rmsprop"}


def test_lr_find_takes_what_it_uses_of_a_file_and_its_own_epochs() -> None:
    Path("o.toml").write_text('cache = "c.h5"\nepochs = 500\nlr = 0.25\nmomentum = 0.75\nval = "v.h5"\n')
    context = lr_find.command.make_context("lr-find", ["--config", "o.toml"])
    with context:
        options = chosen_options(context, used=lambda option: option.finder)

    assert options == TrainOptions(Path("c.h5"), epochs=10, momentum=0.75)


def test_a_repeat_is_the_run_and_a_typed_option_is_all_that_differs(cache_path: Path, run_cli: RunCli) -> None:
    common = ["--cache", str(cache_path), "--epochs", "1", "--val-fraction", "0.5", "--threads", "1", "--name", "a"]
    assert run_cli("train", *common, "--lr", "0.02", "--seed", "3").code == 0
    ended = run_cli("train", "--from", "runs/a", "--name", "b")
    assert (ended.code, ended.stderr.splitlines()[0]) == (0, "options of runs/a, but for those that are typed here")
    assert run_cli("train", "--config", "runs/a/config.json", "--lr", "0.04", "--name", "c").code == 0

    stored = [json.loads(Path(f"runs/{name}/config.json").read_text())["options"] for name in "abc"]
    assert stored[1] == stored[0] | {"name": "b"}
    assert stored[2] == stored[0] | {"name": "c", "lr": 0.04}
    predictions = [Path(f"runs/{name}/predictions.csv").read_bytes() for name in "abc"]
    assert predictions[0] == predictions[1] != predictions[2]


def test_a_wrong_file_ends_in_one_line_and_with_2(run_cli: RunCli) -> None:
    Path("o.toml").write_text("momentun = 0.9\n")
    ended = run_cli("train", "--config", "o.toml")

    assert ended.code == 2
    assert one_line(ended.stderr) == (
        "error: the file of options cannot be used: o.toml: momentun is no option of training; did you mean momentum?"
    )


def test_many_networks_take_their_options_from_a_file(cache_path: Path, run_cli: RunCli) -> None:
    Path("o.toml").write_text(f'cache = "{cache_path}"\nepochs = 1\nname = "g"\nseed = 5\n')
    assert run_cli("train", "--config", "o.toml", "--seeds", "1,2").code == 0

    assert sorted(path.name for path in Path("runs").glob("g*")) == [
        "g-seed-1",
        "g-seed-1-to-g-seed-2.html",
        "g-seed-2",
    ]


def test_code_from_a_run_is_trusted_only_for_from(run_cli: RunCli) -> None:
    ended = run_cli("train", "--trust-code")

    assert (ended.code, "--trust-code is for --resume and --from" in ended.stderr) == (2, True)


def test_a_cache_that_has_changed_since_the_run_is_told(cache_path: Path, photos: Path, run_cli: RunCli) -> None:
    build_cache(photos, "c.h5", size=64, workers=1)
    common = ["--cache", "c.h5", "--val", "c.h5", "--epochs", "1", "--threads", "1", "--name"]
    assert run_cli("train", *common, "a").code == 0
    assert "has changed" not in run_cli("train", "--from", "runs/a", "--name", "same").stderr
    save_jpeg(photos / "1" / "new.jpg", 70, 70, 99)
    build_cache(photos, "c.h5", size=64, workers=1)
    told = "warning: c.h5 has changed since runs/a was trained: the images are others\n"
    again = run_cli("train", "--from", "runs/a", "--name", "b")
    assert (again.code, again.stderr.count(told)) == (0, 1)
    typed = run_cli("train", "--from", "runs/a", "--cache", cache_path, "--without", "val", "--name", "c")
    assert (typed.code, "has changed" in typed.stderr) == (0, False)


def test_weights_that_have_changed_since_the_run_are_told(cache_path: Path, run_cli: RunCli) -> None:
    torch.save(ModelNet(2, 64).state_dict(), "w.pth")
    given = ["--cache", cache_path, "--weights", "w.pth", "--epochs", "1", "--threads", "1", "--name", "a"]
    assert run_cli("train", *given).code == 0
    assert "has changed" not in run_cli("train", "--from", "runs/a", "--name", "same").stderr
    torch.save(ModelNet(2, 64).state_dict(), "w.pth")
    told = "warning: w.pth has changed since runs/a was trained: the weights are others\n"
    again = run_cli("train", "--from", "runs/a", "--name", "b")
    assert (again.code, again.stderr.count(told)) == (0, 1)
    without = run_cli("train", "--from", "runs/a", "--without", "weights", "--name", "c")
    assert (without.code, "has changed" in without.stderr) == (0, False)

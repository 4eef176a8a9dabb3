"""Names of a person's own code, and arguments for it."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions
from modelnet.commands.train import command as train_command
from modelnet.options.code import code_name, parse_arguments


def test_a_file_and_a_name_in_it_are_code_and_names_of_networks_are_not() -> None:
    assert code_name("a b/net.py:Net") == (Path("a b/net.py"), "Net")
    assert [code_name(name) for name in ("resnet18", "timm:resnet18", "python:Net", "")] == [None] * 4


def test_arguments_are_literals_of_python_or_else_text() -> None:
    typed = ["width=12", "act=tanh", "sizes=(1, 2)", "flag=False", "quoted='7'", "odd=1 +", "equal=a=b"]
    expected = {"width": 12, "act": "tanh", "sizes": (1, 2), "flag": False, "quoted": "7", "odd": "1 +", "equal": "a=b"}
    assert parse_arguments(typed) == expected


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"model": "net.py"}, "named as net.py:Net"),
        ({"model": "net.py:a.b"}, "named as net.py:Net"),
        ({"model": "net.py:Net", "model_arg": ("width",)}, "given as key=value"),
        ({"model": "net.py:Net", "model_arg": ("w=1", "w=2")}, "gives w twice"),
        ({"model_arg": "width=1"}, "is a list of texts"),
        ({"augment_code": "noise"}, "names a function in a file"),
    ],
)
def test_names_and_arguments_that_mean_nothing_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainOptions(Path("c.h5"), **wrong)


def test_the_command_that_repeats_a_run_names_code_and_every_argument() -> None:
    options = TrainOptions(
        Path("c.h5"), model="my net.py:Net", model_arg=("width=12", "act=a b"), augment_code="x.py:f", lr=0.1
    )
    values = train_command.make_context("train", shlex.split(options.command())[3:]).params
    assert TrainOptions(**{name: values[name] for name in options.to_dict()}) == options
    assert TrainOptions.from_dict(options.to_dict()) == options


def test_arguments_change_nothing_of_other_networks() -> None:
    options = TrainOptions(Path("c.h5"), model_arg=("width=1",))
    assert options.idle == ["--model-arg width=1 changes nothing without --model net.py:Net"]
    assert options.resolved() == TrainOptions(Path("c.h5")).resolved()
    assert options.resolved()["model_arg"] == []


def test_a_run_of_ones_own_network_is_named_after_its_class() -> None:
    assert TrainOptions(Path("c.h5"), model="a/net.py:Net").model_in_names == "Net"

"""One declaration of an option in its groups, and all that follows: help, checks, command, sweep, resume, compare."""

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest

from modelnet import TrainOptions
from modelnet.commands import lr_find
from modelnet.commands.train import command as train_command
from modelnet.commands.train import resume_options
from modelnet.options import OPTIONS, Option, Scope
from modelnet.runs.kind import facts_of, kind_of
from modelnet.sweep.grid import parse_sweep, passes
from tests.support.made_runs import config_of

DEFAULTS = TrainOptions(Path("c.h5"))
each_option = pytest.mark.parametrize("option", OPTIONS.values(), ids=OPTIONS)


def other_value(option: Option) -> Any:
    """Return a value that the option may have and has not by default."""
    texts: dict[str, Any] = {
        "model": "resnet18",
        "augment": "flip",
        "device": "cpu",
        "name": "other",
        "crop_size": "48x64",
        "freeze": "fc",
        "model_arg": ("width=3",),
        "augment_code": "changes.py:change",
        "label_column": "species",
        "file_column": "image",
    }
    kind = option.types[0]
    if kind is bool:
        return not option.default
    if kind is str:
        return option.choices[1] if option.choices else texts[option.name]
    if kind is Path:
        return Path("other")
    return 3 if kind is int else 0.75


def typed(option: Option) -> list[str]:
    value = other_value(option)
    if isinstance(value, bool):
        return [option.flag if value else f"--no-{option.flag.removeprefix('--')}"]
    return [option.flag, value[0] if option.repeats else str(value)]


def with_other(option: Option) -> TrainOptions:
    """Return options in which this one has another value, and is used."""
    needed = {} if option.needs is None else {option.needs[0]: (option.needs[1] or ("fc",))[0]}
    return replace(DEFAULTS, **needed | {option.name: other_value(option)})


def with_default(option: Option) -> TrainOptions:
    return replace(with_other(option), **{option.name: getattr(DEFAULTS, option.name)})


def kind(options: TrainOptions) -> str:
    """Return what runs with the same options share."""
    return kind_of(facts_of(config_of(options)))


@each_option
def test_an_option_is_typed_as_it_is_declared(option: Option) -> None:
    values = train_command.make_context("train", ["--cache", "c.h5", *typed(option)]).params
    given = {name: value for name, value in values.items() if name in OPTIONS}
    assert TrainOptions(**given) == replace(DEFAULTS, **{option.name: other_value(option)})
    help_text = train_command.get_help(click.Context(train_command, max_content_width=500, terminal_width=500))
    assert f"{option.help}" in help_text


@each_option
def test_help_shows_an_option_below_the_heading_of_its_class(option: Option) -> None:
    for command in (train_command, lr_find.command):
        help_text = command.get_help(click.Context(command, max_content_width=500, terminal_width=500))
        if option.finder or command is train_command:
            section = help_text.partition(f"\n{option.heading}:\n")[2].partition("\n\n")[0]
            assert re.search(rf"{option.flag}[ ,]", section) and option.help in section


@each_option
def test_a_value_of_another_type_is_refused_by_name(option: Option) -> None:
    wrong_values: list[Any] = [{"a": 1}, float("nan"), float("inf"), -1, 10**400]
    for wrong in wrong_values:
        with pytest.raises(ValueError, match=f"^{option.name} is "):
            replace(DEFAULTS, **{option.name: wrong})


@each_option
def test_the_command_that_repeats_a_run_types_the_option(option: Option) -> None:
    command = with_other(option).command()
    assert (shlex.join(typed(option)) in command) == (option.name != "name")


@each_option
def test_a_sweep_varies_the_options_of_networks_and_of_passes(option: Option) -> None:
    value = other_value(option)
    text = f"{option.flag.removeprefix('--')}={'yes' if value is True else 'no' if value is False else value}"
    if option.scope in (Scope.NETWORK, Scope.PASS) and not option.seed:
        assert parse_sweep([text]) == {option.name: [value]}
    else:
        with pytest.raises(ValueError, match="no sweep over"):
            parse_sweep([text])


ALONE = {"freeze", "thaw_epoch", "head_lr", "layer_decay", "norm_stats"}  # of a network that trains by itself


@each_option
def test_only_options_of_a_network_share_a_pass(option: Option) -> None:
    members = [with_default(option), with_other(option)]
    shares = (option.scope is Scope.NETWORK and option.name not in ALONE) or option.name == "name"
    assert passes(members) == ([[0, 1]] if shares else [[0], [1]])


@each_option
def test_resume_takes_resumable_options_and_refuses_the_others(option: Option) -> None:
    context = train_command.make_context("train", ["--resume", "r", *typed(option)])
    change = {option.name: other_value(option)}
    if option.resumable:
        assert resume_options(context) == change
        assert DEFAULTS.resumed(change) == replace(DEFAULTS, **change)
    else:
        with pytest.raises(click.UsageError, match=f"leave out {option.flag}$"):
            resume_options(context)
        with pytest.raises(ValueError, match=f"{option.name} cannot change when a run goes on"):
            DEFAULTS.resumed(change)


@each_option
def test_runs_have_other_options_where_results_depend_on_the_option(option: Option) -> None:
    same = kind(with_default(option)) == kind(with_other(option))
    depends = option.scope in (Scope.NETWORK, Scope.PASS, Scope.GROUP) and not option.seed
    assert same != depends


@each_option
def test_lr_find_takes_the_options_of_the_run_that_is_to_follow(option: Option) -> None:
    own = {"epochs"}  # with a default of its own
    names = {parameter.name for parameter in lr_find.command.params}
    assert (option.name in names) == (option.finder or option.name in own)


def test_options_that_may_change_and_options_that_lr_find_leaves_out() -> None:
    resumable = ["cache", "val", "epochs", "device", "compile", "preload", "workers"]
    assert [o.name for o in OPTIONS.values() if o.resumable] == resumable
    left_out = {option.name for option in OPTIONS.values() if not option.finder}
    schedule = {"lr", "sched", "warmup_epochs", "decay_rate", "decay_epochs", "plateau_epochs", "thaw_epoch"}
    assert left_out == {"val", "epochs", *schedule, "model_ema", "patience", "compile", "tensorboard", "name"}


def test_a_typed_default_is_the_same_option_as_none() -> None:
    assert kind(replace(DEFAULTS, lr=0.008)) == kind(DEFAULTS)
    assert kind(replace(DEFAULTS, batch_size=9, lr=0.009)) == kind(replace(DEFAULTS, batch_size=9))
    assert kind(replace(DEFAULTS, lr=0.0081)) != kind(DEFAULTS)


def test_an_option_that_changes_nothing_makes_no_other_options() -> None:
    assert kind(replace(DEFAULTS, mixup_alpha=0.7, amp_dtype="float16")) == kind(DEFAULTS)
    mixed = replace(DEFAULTS, augment="mixup")
    assert kind(replace(mixed, mixup_alpha=0.7)) != kind(mixed)


def test_the_documentation_of_the_class_names_every_option() -> None:
    assert all(f"        {option.name}: {option.help}\n" in str(TrainOptions.__doc__) for option in OPTIONS.values())


@each_option
def test_networks_that_share_open_caches_share_all_that_names_images(option: Option) -> None:
    names_images = option.scope is Scope.IMAGES or (option.heading == "Data" and option.scope is Scope.GROUP)
    assert option.opens == (names_images or option.name in {"fold", "device", "preload"})

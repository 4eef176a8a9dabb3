"""TrainOptions: defaults, refused values, the command that repeats a run."""

import shlex
from pathlib import Path
from typing import Any

import click
import pytest

from modelnet import TrainOptions
from modelnet.commands.train import command as train_command
from modelnet.commands.train import resume_options
from modelnet.options import OPTIONS


def of_training(values: dict[str, Any]) -> dict[str, Any]:
    """Return the options of training among those of the command; no other was typed."""
    assert not any(value for name, value in values.items() if name not in (*OPTIONS, "no_split"))
    return {name: value for name, value in values.items() if name in OPTIONS}


def test_the_command_that_repeats_a_run_gives_its_options_again() -> None:
    options = TrainOptions(
        Path("a folder/c.h5"), batch_size=4, epochs=7, lr=0.01, shuffle=False, seed=3, device="cpu", threads=1
    )
    words = shlex.split(options.command())
    assert words[:3] == ["python", "cli.py", "train"]
    values = train_command.make_context("train", words[3:]).params
    assert TrainOptions(**of_training(values)) == options


def test_the_command_line_and_the_interface_have_the_same_defaults() -> None:
    values = train_command.make_context("train", ["--cache", "c.h5"]).params
    assert TrainOptions(**of_training(values)) == TrainOptions(Path("c.h5"))


def test_the_default_learning_rate_grows_with_the_batch() -> None:
    assert TrainOptions(Path("c.h5"), batch_size=1).learning_rate == 0.001
    assert TrainOptions(Path("c.h5")).learning_rate == 0.008
    assert TrainOptions(Path("c.h5"), lr=0.5).learning_rate == 0.5
    assert TrainOptions(Path("c.h5"), batch_size=2, accumulate=4).learning_rate == 0.008
    assert TrainOptions(Path("c.h5"), opt="adamw").learning_rate == 0.001


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 0},
        {"epochs": 0},
        {"workers": -1},
        {"threads": 100_000},
        {"seed": -1},
        {"lr": 0.0},
        {"lr": float("nan")},
        {"momentum": -0.1},
        {"weight_decay": float("inf")},
        {"device": "gpu"},
        {"device": "cuda:"},
        {"opt": "sdg"},
        {"augment": "flip,fog"},
        {"augment": "flip,flip"},
        {"crop_scale": 1.5},
        {"color_jitter": -0.1},
        {"crop_size": 0},
        {"mixup_alpha": 0.0},
        {"cutmix_alpha": -1.0},
        {"model_ema": 1.0},
        {"patience": 0},
        {"init": "ones"},
        {"accumulate": 0},
        {"zero_grad": "always"},
        {"sched": "linear"},
        {"warmup_epochs": -1},
        {"decay_rate": 1.5},
        {"decay_epochs": 0},
        {"plateau_epochs": 0},
        {"clip_grad": 0.0},
        {"smoothing": -0.1},
        {"class_weights": "equal"},
        {"val_fraction": 0.0},
        {"val_fraction": 1.0},
        {"val_fraction": 0.5, "val": Path("v.h5")},
        {"name": "a/b"},
        {"name": ".."},
        {"name": ""},
    ],
)
def test_impossible_values_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).replace("_", "[-_]")):
        TrainOptions(Path("c.h5"), **wrong)


def test_options_survive_the_run_folder() -> None:
    options = TrainOptions(Path("c.h5"), val=Path("v.h5"), name="first")
    assert TrainOptions.from_dict(options.to_dict()) == options
    with pytest.raises(ValueError, match="not options of a training run: 'magic' is unknown here; a newer version"):
        TrainOptions.from_dict(options.to_dict() | {"magic": 1})


def test_the_order_of_the_kinds_of_augmentation_does_not_matter() -> None:
    cache = Path("c.h5")
    assert TrainOptions(cache, augment="cutmix, crop,flip") == TrainOptions(cache, augment="flip,crop,cutmix")
    assert TrainOptions(cache, augment="crop,flip").augment == "flip,crop"
    assert TrainOptions.from_dict({"cache": "c.h5", "augment": "crop,flip"}).augmentations == ("flip", "crop")


def test_options_of_the_run_are_not_to_be_given_beside_resume() -> None:
    context = train_command.make_context("train", ["--resume", "r", "--epochs", "9", "--workers", "2"])
    assert resume_options(context) == {"epochs": 9, "workers": 2}
    for flags, shown in ((["--lr", "1"], "--lr"), (["--no-shuffle"], "--shuffle"), (["--wd", "0"], "--weight-decay")):
        with pytest.raises(click.UsageError, match=f"leave out {shown}"):
            resume_options(train_command.make_context("train", ["--resume", "r", *flags]))


def test_what_changes_nothing_beside_the_other_options_is_named() -> None:
    cache = Path("c.h5")
    assert TrainOptions(cache).idle == []
    assert TrainOptions(cache, mixup_alpha=0.5, momentum=0.9, opt="adamw", amp_dtype="float16").idle == [
        "--momentum 0.9 changes nothing without --opt sgd or rmsprop",
        "--mixup-alpha 0.5 changes nothing without --augment mixup",
        "--amp-dtype float16 changes nothing without --amp",
    ]
    used: dict[str, Any] = {
        "augment": "flip,mixup",
        "mixup_alpha": 0.5,
        "momentum": 0.9,
        "opt": "rmsprop",
        "sched": "step",
    }
    assert TrainOptions(cache, **used, decay_epochs=3, decay_rate=0.5).idle == []


def test_a_data_seed_with_which_nothing_is_drawn_is_named() -> None:
    cache, unshuffled = Path("c.h5"), TrainOptions(Path("c.h5"), shuffle=False, data_seed=5)
    assert unshuffled.idle == ["--data-seed 5 changes nothing without --shuffle or --augment"]
    assert TrainOptions(cache, shuffle=False).idle == [] == TrainOptions(cache, data_seed=5).idle
    drawings: list[dict[str, Any]] = [{"augment": "flip"}, {"augment": "mixup"}, {"augment_code": "c.py:change"}]
    for drawing in drawings:
        assert TrainOptions(cache, shuffle=False, data_seed=5, **drawing).idle == []

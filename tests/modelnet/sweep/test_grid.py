"""Which networks a group has, and which of them share a pass."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelnet import TrainOptions
from modelnet.sweep.grid import cross, label, parse_seeds, parse_sweep, passes, varied

OPTIONS = TrainOptions(Path("c.h5"))


def test_seeds_are_ranges_and_lists() -> None:
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("3,5, 8-9") == [3, 5, 8, 9]
    for wrong in ("", "a", "3-1", "-1", "0-5000"):
        with pytest.raises(ValueError, match="seeds"):
            parse_seeds(wrong)


def test_values_are_read_as_their_option_has_them() -> None:
    assert parse_sweep(["lr=0.001,1e-2", "batch-size=4,8", "wd=0", "shuffle=yes,no", "patience=none,3"]) == {
        "lr": [0.001, 0.01],
        "batch_size": [4, 8],
        "weight_decay": [0.0],
        "shuffle": [True, False],
        "patience": [None, 3],
    }
    assert parse_sweep(["model=modelnet,timm:resnet18", "weights=none,a/b.pth", "freeze=none;layer[1,2]"]) == {
        "model": ["modelnet", "timm:resnet18"],
        "weights": [None, Path("a/b.pth")],
        "freeze": [None, "layer[1,2]"],
    }
    assert parse_sweep(["augment=none;flip;flip,crop", "sched=none,cosine"]) == {
        "augment": ["", "flip", "flip,crop"],
        "sched": ["none", "cosine"],
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lr", "a sweep is given as lr=0.001,0.01, not 'lr'"),
        ("lr=", "a sweep is given as"),
        ("lr=a", "a sweep over lr needs a number, not 'a'"),
        ("batch-size=8.5", "needs a whole number, not '8.5'"),
        ("shuffle=2", "needs yes or no"),
        ("learning=3", "no sweep over 'learning'. There is accumulate, augment, "),
        ("seed=1,2", "no sweep over 'seed'; --seeds varies it"),
        ("data-seed=1,2", "--data-seeds varies it"),
        ("cache=a,b", "no sweep over 'cache'"),
        ("amp=yes,no", "no sweep over 'amp'"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError) as error:
        parse_sweep([text])
    assert said in str(error.value)
    with pytest.raises(ValueError, match="two sweeps over lr"):
        parse_sweep(["lr=1,2", "lr=3"])


def test_a_pass_has_all_networks_that_can_share_its_batches() -> None:
    members = cross(OPTIONS, [0, 1], [5, 6], {"lr": [0.1, 0.2], "batch_size": [4, 8]})
    assert len(members) == len(set(members)) == 16
    for group in passes(members):
        shared = {(members[i].data_seed, members[i].batch_size) for i in group}
        assert len(shared) == 1
        assert [(members[i].lr, members[i].seed) for i in group] == [(0.1, 0), (0.1, 1), (0.2, 0), (0.2, 1)]
    assert sorted(i for group in passes(members) for i in group) == list(range(16))


def test_networks_that_cannot_be_stacked_have_a_pass_each() -> None:
    members = cross(OPTIONS, [0, 1], None, {"model": ["modelnet", "linear", "resnet18"], "freeze": [None, "f"]})

    assert passes(members) == [[0, 1], [2], [3], [4, 5], [6], [7], [8], [9], [10], [11]]


def test_names_of_folders_have_no_characters_that_mean_something_else() -> None:
    sweep: dict[str, list[Any]] = {"weights": [Path("a/b c.pth")], "freeze": ["layer[12]|bn"], "model": ["timm:x"]}
    members = cross(replace(OPTIONS, name="my run"), [0, 1], None, sweep)

    assert members[1].name == "my run-weights-a-b-c.pth-freeze-layer-12-bn-model-timm-x-seed-1"


def test_a_setting_is_shown_as_it_is_typed() -> None:
    members = cross(OPTIONS, [0, 1], None, {"lr": [0.0003, 0.001], "clip_grad": [None, 1.0], "momentum": [0.5]})
    names = varied(members)
    assert list(dict.fromkeys(label(own, names) for own in members)) == [
        "lr=0.0003 clip-grad=none",
        "lr=0.0003 clip-grad=1.0",
        "lr=0.001 clip-grad=none",
        "lr=0.001 clip-grad=1.0",
    ]
    sizes = cross(OPTIONS, [0], None, {"crop_size": [(192, 192), "192x256"]})
    assert [label(own, ["crop_size"]) for own in sizes] == ["crop-size=192", "crop-size=192x256"]
    assert [own.name for own in cross(replace(OPTIONS, name="r"), [0], None, {"crop_size": [(192, 192)]})] == [
        "r-crop-size-192"
    ]


def test_a_setting_is_all_that_results_depend_on_but_seeds_and_folds() -> None:
    more: list[dict[str, Any]] = [{"seed": 1, "fold": 2}, {"device": "cpu"}, {"cache": Path("d.h5")}, {"amp": True}]
    more += [{"labels": Path("t.csv")}, {"model_arg": ("width=3",)}]

    found = varied([OPTIONS, *(replace(OPTIONS, **one) for one in more)])
    assert found == ["cache", "labels", "model_arg", "amp"]
    assert label(replace(OPTIONS, amp=True), found) == "cache=c.h5 labels=none model-arg=none amp=yes"

"""Which networks share an optimizer; what the optimizers do is in test_train.py, against runs alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modelnet.options import OPTIONS, Option, TrainOptions
from modelnet.sweep.optimizer import _setting  # private: a forgotten option shows only in the losses of its sweep

NAMES = {"model_arg": ("width=3",), "augment_code": "changes.py:change"}
COMPARED = [option for option in OPTIONS.values() if option.compared]


def another(option: Option) -> Any:
    if option.name in NAMES:
        return NAMES[option.name]
    if option.choices:
        return option.choices[-1]
    if option.parse is not None:
        return 64
    by_type: dict[type, Any] = {bool: not option.default, int: 7, float: 0.25, str: "flip", Path: Path("w.pth")}
    return by_type[option.types[0]]


@pytest.mark.parametrize("option", COMPARED, ids=lambda option: option.name)
def test_networks_that_differ_in_an_option_share_no_optimizer(option: Option) -> None:
    options = TrainOptions(Path("c.h5"))
    other = replace(options, **{option.name: another(option)})

    assert _setting(options, 0) != _setting(other, 1)


def test_networks_that_differ_in_their_seeds_share_an_optimizer() -> None:
    options = TrainOptions(Path("c.h5"))

    assert _setting(options, 0) == _setting(replace(options, seed=1), 1)

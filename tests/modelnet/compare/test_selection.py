"""What the best of several settings is expected to lose (selection.py), where the truth is known."""

import numpy as np
import pytest

from modelnet.compare.selection import Selection, select
from tests.support.simulated_settings import promises


def test_what_is_said_is_what_is_lost_on_average() -> None:
    said, true = promises(0, 25, settings=8, seeds=4, images=200, spread=0.0)
    assert said.mean() == pytest.approx(true.mean(), abs=0.6) and true.mean() > 1
    assert 0.2 <= np.mean(true > said) <= 0.8


def test_a_setting_that_is_far_better_loses_nothing() -> None:
    rng = np.random.default_rng(0)
    settings = [(rng.random((4, 300)) < share).astype(float) for share in (0.5, 0.9, 0.55)]
    found = select(settings)
    assert (found.best, found.settings) == (1, 3) and found.less < 0.005


def test_the_bootstrap_is_the_same_each_time_and_takes_medians() -> None:
    rng = np.random.default_rng(1)
    settings = [(rng.random((n, 60)) < 0.7).astype(float) for n in (3, 5, 2)]
    assert select(settings) == select(settings)
    settings[2][0] = 0  # a network that failed to learn
    assert select([*settings, np.ones((3, 60))], np.nanmedian).best == 3


def test_the_sentence_says_what_to_expect_and_what_it_lacks() -> None:
    assert str(Selection(0, 32, 0.0141, False)) == "chosen among 32 on these images: expect about 1.4 points less"
    alone = "expect at least about 1.4 points less; one seed a setting: its luck comes on top"
    assert str(Selection(0, 32, 0.0141, True)).endswith(alone)

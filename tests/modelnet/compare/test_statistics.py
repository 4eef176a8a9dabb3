"""Intervals, p-values and numbers needed: against SciPy and published formulas, and by how often they are right."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control, t, ttest_ind, ttest_rel

from modelnet.compare.statistics import Difference, compare_accuracies, compare_losses, estimate, holm, round_up
from tests.support.simulated_folds import FoldWorld, draw_folds
from tests.support.simulated_runs import World, draw, rates

Values = NDArray[np.float64]


def with_flips(only_first: int, only_second: int, both: int, neither: int) -> tuple[Values, Values]:
    """Return which images two networks get right, (1, images) each."""
    first = [1.0] * only_first + [0.0] * only_second + [1.0] * both + [0.0] * neither
    second = [0.0] * only_first + [1.0] * only_second + [1.0] * both + [0.0] * neither
    return np.array([first]), np.array([second])


def known(found: Difference) -> tuple[float, float, float]:
    """Return both ends of an interval, and p."""
    assert found.low is not None and found.high is not None and found.p is not None
    return found.low, found.high, found.p


def test_the_interval_of_two_networks_is_that_of_bonett_and_price() -> None:
    found = compare_accuracies(*with_flips(17, 29, 60, 47))
    of_first, of_second, count = 18 / 155, 30 / 155, 155
    middle, error = of_second - of_first, np.sqrt((of_first + of_second - (of_second - of_first) ** 2) / count)
    assert found.value == pytest.approx(12 / 153)
    assert [found.low, found.high] == pytest.approx([middle - 1.959964 * error, middle + 1.959964 * error])


@pytest.mark.parametrize("flips", range(12))
def test_few_flips_are_a_difference_where_they_are_one_in_the_exact_test(flips: int) -> None:
    found = compare_accuracies(*with_flips(0, flips, 90, 63 - flips))
    exact = binomtest(0, flips).pvalue if flips else 1.0
    low, high, _ = known(found)
    assert (low > 0) == (exact < 0.05)
    assert low < found.value < high


def test_p_is_below_a_twentieth_exactly_where_the_interval_excludes_0() -> None:
    rng = np.random.default_rng(0)
    sides = set()
    for _ in range(60):
        runs, images = rng.choice([1, 3, 8], 2), int(rng.integers(2, 40))
        chances = rng.random(2)
        first, second = ((rng.random((n, images)) < p).astype(float) for n, p in zip(runs, chances, strict=True))
        for found in (compare_accuracies(first, second), compare_losses(first, second)):
            low, high, p = known(found)
            assert low <= found.value <= high and (p < 0.05) == (not low <= 0 <= high)
            sides.add(p < 0.05)
        low, high, _ = known(compare_accuracies(first, second))
        assert -1 <= low <= high <= 1
    assert sides == {True, False}


def test_what_never_varied_is_not_certain() -> None:
    right = np.ones((8, 20))
    low, high, p = known(compare_accuracies(right, right))
    assert high == -low == pytest.approx(0.126, abs=0.001) and p == 1
    first = right.copy()
    first[:3, 0] = 0
    few = compare_accuracies(right, first)
    low, high, p = known(few)
    assert few.value == pytest.approx(-0.01875) and low < -0.1 and high > 0.05 and p > 0.5
    low, high, _ = known(compare_accuracies(np.zeros((3, 3)), np.ones((3, 3))))
    assert low < 0 and high == 1


def test_two_runs_of_a_side_are_too_few_and_one_is_a_network() -> None:
    rng = np.random.default_rng(0)
    one, two, three = (rng.integers(0, 2, (runs, 50)).astype(float) for runs in (1, 2, 3))
    for first, second in ((one, two), (two, two), (two, three), (three, two)):
        for found in (compare_accuracies(first, second), compare_losses(first, second)):
            assert found.value == pytest.approx(second.mean() - first.mean())
            assert found.low is found.high is found.p is found.runs_needed is None
    assert compare_accuracies(one, three).p is not None


def test_runs_whose_images_all_agree_are_compared_as_by_a_t_test() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, (6, 1)), rng.normal(1, 1, (6, 1))
    many_1, many_2 = np.repeat(first, 40, axis=1), np.repeat(second, 40, axis=1)
    low, high, p = known(compare_losses(many_1, many_2, same_seeds=True))
    paired = ttest_rel(second, first)
    assert [p, low, high] == pytest.approx([paired.pvalue.item(), *np.ravel(paired.confidence_interval())])
    low, high, _ = known(compare_losses(many_1, many_2))
    error = np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 6)
    width, welch, equal = (high - low) / 2 / error, ttest_ind(second, first, equal_var=False).df.item(), 10
    assert (low + high) / 2 == pytest.approx((second - first).mean())
    assert t.isf(0.025, equal) <= width + 1e-9 and width <= t.isf(0.025, welch) + 1e-9


def test_the_variance_is_that_of_the_model_it_is_drawn_from() -> None:
    rng = np.random.default_rng(4)
    draws, runs, images, of_seed, of_image, of_both = 2000, 5, 60, 0.3, 1.0, 1.5
    sides = [
        of_seed * rng.standard_normal((draws, runs, 1)) + of_both * rng.standard_normal((draws, runs, images))
        for _ in range(2)
    ]
    found = estimate(sides[0], sides[1] + of_image * rng.standard_normal((draws, 1, images)), rights=False)
    expected = 2 * of_seed**2 / runs + of_image**2 / images + 2 * of_both**2 / (runs * images)
    assert found.value.var() == pytest.approx(expected, rel=0.1)
    assert (found.images - found.noise_T.sum(0) + found.seeds_T.sum(0)).mean() == pytest.approx(expected, rel=0.03)


def test_a_stack_is_compared_as_its_members_are() -> None:
    drawn = draw(np.random.default_rng(5), World(), 5, 40, 4)
    first, second = drawn.first_DKN.astype(float), drawn.second_DKN.astype(float)
    together = estimate(first, second)
    for i, p in enumerate(together.p()):
        alone = compare_accuracies(first[i], second[i])
        assert alone.p == pytest.approx(p) and alone.value == pytest.approx(together.value[i])


def test_runs_with_the_same_seeds_tell_more_where_the_seed_has_its_share() -> None:
    rng = np.random.default_rng(2)
    luck_K1 = rng.normal(0, 1, (8, 1))
    first = luck_K1 + rng.normal(0, 0.5, (8, 50))
    second = first + rng.normal(0.2, 0.2, (8, 50))
    alone, paired = compare_losses(first, second), compare_losses(first, second, same_seeds=True)
    assert paired.value == pytest.approx(alone.value)
    assert known(paired)[0] > 0 > known(alone)[0]


def test_no_number_is_named_that_could_not_be_told_or_is_there_already() -> None:
    alike = np.repeat(np.random.default_rng(0).random((1, 60)) < 0.6, 8, axis=0).astype(float)
    other = alike.copy()
    other[:, :3] = 1 - other[:, :3]
    assert compare_accuracies(alike, other).runs_needed is None  # images differ, seeds do not
    assert compare_accuracies(*with_flips(1, 0, 19, 0)).images_needed is None  # one image says too little
    rng = np.random.default_rng(1)
    for _ in range(50):
        runs_K1 = rng.normal(0, 0.4, (2, 8, 1))
        first, second = (rng.random((2, 8, 100)) < 0.5 + runs_K1).astype(float)
        found = compare_accuracies(first, second, comparisons=19)
        assert found.runs_needed is None or found.runs_needed > 8
        networks = compare_accuracies(first[:1], second[:1], comparisons=19)
        assert networks.images_needed is None or networks.images_needed > 100


def test_more_is_needed_among_several_comparisons() -> None:
    flips = with_flips(20, 28, 60, 45)
    alone, among = compare_accuracies(*flips), compare_accuracies(*flips, comparisons=10)
    assert (alone.low, alone.high, alone.p) == (among.low, among.high, among.p)
    assert among.images_needed is not None and alone.images_needed is not None
    assert among.images_needed > 1.5 * alone.images_needed


def test_numbers_are_rounded_up_to_two_digits() -> None:
    assert round_up(np.array([9.2, 10, 99.5, 101, 150, 15300.1, np.inf])).tolist() == [
        *[10, 10, 100, 110, 150, 16000],
        np.inf,
    ]


@pytest.mark.parametrize(
    "world",
    [
        World((0.5, 0.5)),
        World((0.9, 0.9), same_seeds=True),
        World((0.7, 0.7), spreads=(0.02, 0.07)),
        World((0.99, 1.0), spreads=(0.02, 0.02)),
    ],
    ids=["spread", "same seeds", "two spreads", "all right"],
)
def test_intervals_claims_and_numbers_hold_what_they_promise(world: World) -> None:
    """Few and with room; tests/soak/test_calibration.py has many."""
    for rate in rates(1, world, 400, 60, [(1, 1), (3, 3), (8, 8), (3, 16)]).values():
        assert rate.held >= 0.91
        assert rate.named < 0.03 or 0.65 < rate.shown < 0.95
    same = rates(
        2, World(world.accuracies[:1] * 2, world.spreads, 0, world.same_seeds), 400, 60, [(3, 3), (8, 8), (3, 16)]
    )
    assert max(rate.claimed for rate in same.values()) <= 0.08


def test_holm_rejects_as_the_procedure_step_by_step_does() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        p_values = rng.uniform(0, 0.1, 6).tolist()
        adjusted = holm(p_values)
        rejected: set[int] = set()
        for left, index in zip(range(6, 0, -1), np.argsort(p_values).tolist(), strict=True):
            if p_values[index] > 0.05 / left:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(adjusted) if p <= 0.05} == rejected
        assert (np.array(adjusted) >= false_discovery_control(p_values) - 1e-12).all()


def test_folds_that_share_training_images_make_the_interval_wider() -> None:
    """Equal options that see other features: which one is better depends on the training images."""
    rng, world = np.random.default_rng(0), FoldWorld(images=100, features=12, units=12)
    pairs = [draw_folds(rng, world) for _ in range(60)]
    claims = [sum(known(compare_accuracies(*pair, folds=folds))[2] < 0.05 for pair in pairs) for folds in (1, 5)]
    assert claims[1] <= 5 and claims[1] < claims[0]
    wide, narrow = (estimate(*pairs[0], folds=folds) for folds in (5, 1))
    assert wide._images_alone(1.0) == pytest.approx(narrow._images_alone(1.0) * 2.25)
    one, other = (side[:1] for side in pairs[0])
    assert known(compare_accuracies(one, other, folds=5)) == known(compare_accuracies(one, other))


def test_a_difference_of_five_points_is_found_over_folds() -> None:
    rng, world = np.random.default_rng(1), FoldWorld(400, 5, 4, 20, 20, 1.2, 0.38, 1.0)
    found = [compare_accuracies(*draw_folds(rng, world), folds=5) for _ in range(10)]
    assert np.mean([one.value for one in found]) == pytest.approx(0.05, abs=0.01)
    assert sum(known(one)[2] < 0.05 for one in found) >= 8

"""Intervals and tests: against SciPy and published values, and by how often they are right."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, norm, ttest_ind, ttest_rel

from modelnet.compare.statistics import holm, mcnemar, paired_bootstrap, paired_bootstrap_of_two, variance_of_sum

Values = NDArray[np.float64]


def with_flips(only_first: int, only_second: int, both: int, neither: int) -> tuple[Values, Values]:
    first = [1.0] * only_first + [0.0] * only_second + [1.0] * both + [0.0] * neither
    second = [0.0] * only_first + [1.0] * only_second + [1.0] * both + [0.0] * neither
    return np.array(first), np.array(second)


def measured(rng: np.random.Generator, ease_N: Values, runs: int, seed_luck: float, image_luck: float) -> Values:
    """Draw runs that are right where the ease of an image, luck of the run and of both together are above 0."""
    luck_KN = seed_luck * rng.standard_normal((runs, 1)) + image_luck * rng.standard_normal((runs, len(ease_N)))
    return (ease_N + luck_KN > 0).astype(float)


@pytest.mark.parametrize(("only_first", "only_second"), [(6, 16), (0, 5), (86, 150), (7, 7), (1, 0), (0, 0)])
def test_mcnemar_is_twice_the_binomial_tail(only_first: int, only_second: int) -> None:
    test = mcnemar(*with_flips(only_first, only_second, 20, 10))
    differ = only_first + only_second
    tail = sum(math.comb(differ, k) for k in range(min(only_first, only_second) + 1)) / 2**differ
    assert (test.only_first, test.only_second) == (only_first, only_second)
    assert test.p == pytest.approx(min(1.0, 2 * tail))


def test_the_interval_of_two_networks_is_that_of_bonett_and_price() -> None:
    first, second = with_flips(17, 29, 60, 47)
    found = paired_bootstrap_of_two(first, second)
    of_first, of_second, count = 18 / 155, 30 / 155, 155
    middle, error = of_second - of_first, np.sqrt((of_first + of_second - (of_second - of_first) ** 2) / count)
    assert found.value == pytest.approx(12 / 153)
    assert [found.low, found.high] == pytest.approx([middle - 1.96 * error, middle + 1.96 * error], abs=1.2 / count)


@pytest.mark.parametrize("flips", range(12))
def test_few_flips_are_a_difference_in_the_interval_where_they_are_one_in_the_exact_test(flips: int) -> None:
    first, second = with_flips(0, flips, 90, 63 - flips)
    found = paired_bootstrap_of_two(first, second)
    assert (found.low > 0) == (found.p < 0.05)
    assert found.high > found.value >= 0 and found.low < found.value


def test_runs_whose_images_all_agree_are_compared_as_by_a_t_test() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(0, 1, (6, 1)), rng.normal(1, 1, (6, 1))
    many = [np.repeat(values, 40, axis=1) for values in (first, second)]
    for same_seeds, test in ((False, ttest_ind(first, second, equal_var=False)), (True, ttest_rel(first, second))):
        found = paired_bootstrap(many[0], many[1], same_seeds)
        assert found.value == pytest.approx((second - first).mean())
        assert found.p == pytest.approx(test.pvalue.item(), rel=0.02)
        width = test.confidence_interval().high - test.confidence_interval().low
        assert found.high - found.low == pytest.approx(width.item(), rel=0.15)


def test_the_variance_is_that_of_the_model_it_is_drawn_from() -> None:
    rng = np.random.default_rng(4)
    runs, images, of_seed, of_image, of_both = 5, 60, 0.3, 1.0, 1.5
    drawn, estimates = [], []
    for _ in range(800):
        terms = [
            of_seed * rng.standard_normal((runs, 1)) + of_both * rng.standard_normal((runs, images)) for _ in range(2)
        ]
        terms[1] = terms[1] + of_image * rng.standard_normal(images)
        drawn.append(terms[0].mean() + terms[1].mean())
        estimates.append(variance_of_sum(terms).total)
    expected = 2 * of_seed**2 / runs + of_image**2 / images + 2 * of_both**2 / (runs * images)
    assert np.var(drawn) == pytest.approx(expected, rel=0.15)
    assert np.mean(estimates) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("runs", [2, 4, 12])
@pytest.mark.parametrize("same_seeds", [False, True])
def test_between_runs_of_the_same_options_a_difference_is_claimed_once_in_twenty_at_most(
    runs: int, same_seeds: bool
) -> None:
    rng, times, claimed = np.random.default_rng(runs), 300, 0
    for _ in range(times):
        ease_N = rng.normal(0.5, 1, 150)
        first, second = (measured(rng, ease_N, runs, 0.2, 0.8) for _ in range(2))
        found = paired_bootstrap(first, second, same_seeds, resamples=400)
        claimed += not found.low <= 0 <= found.high
    assert claimed <= 0.08 * times


def test_the_interval_holds_the_true_difference_nineteen_times_in_twenty() -> None:
    rng, times, held = np.random.default_rng(1), 300, 0
    for _ in range(times):
        ease_N, liking_N = rng.normal(0.5, 1, 150), rng.normal(0.3, 0.5, 150)  # for an image, of the second options
        first, second = measured(rng, ease_N, 6, 0.2, 0.8), measured(rng, ease_N + liking_N, 6, 0.2, 0.8)
        true = norm.cdf(0.8 / np.sqrt(1.25 + 0.04 + 0.64)) - norm.cdf(0.5 / np.sqrt(1 + 0.04 + 0.64))
        found = paired_bootstrap(first, second, resamples=400)
        held += found.low <= true <= found.high
    assert 0.91 * times <= held <= 0.99 * times


def test_runs_with_the_same_seeds_tell_more_where_the_seed_has_its_share() -> None:
    rng = np.random.default_rng(2)
    luck_K1 = rng.normal(0, 1, (8, 1))
    first = luck_K1 + rng.normal(0, 0.5, (8, 50))
    second = first + rng.normal(0.2, 0.2, (8, 50))
    alone, paired = paired_bootstrap(first, second), paired_bootstrap(first, second, same_seeds=True)
    assert paired.value == alone.value
    assert paired.low > 0 > alone.low


@pytest.mark.parametrize("what", ["images", "runs"])
def test_as_many_images_or_runs_as_are_said_to_be_needed_show_the_difference_four_times_in_five(what: str) -> None:
    rng, shift, runs, images = np.random.default_rng(6), 0.2, 8, 120
    luck = 0.05 if what == "images" else 0.2

    def both(runs: int, images: int) -> list[Values]:
        ease_N = rng.normal(0, 1, images)
        return [-measured(rng, ease_N, runs, luck, 1), measured(rng, ease_N + shift, runs, luck, 1)]

    true = norm.cdf(shift / np.sqrt(2 + luck**2)) - 0.5
    needed = [variance_of_sum(both(runs, images)).needed(true)[what == "runs"] for _ in range(60)]
    middle = int(np.median([count for count in needed if count is not None]))
    pilots = [both(runs, middle) if what == "images" else both(middle, images) for _ in range(200)]
    shown = sum(paired_bootstrap(-first, second, resamples=300).low > 0 for first, second in pilots)
    assert 0.65 * 200 < shown < 0.93 * 200, middle


def test_what_no_number_could_show_is_not_said_to_be_shown_by_any() -> None:
    rng = np.random.default_rng(0)
    runs = np.repeat(rng.normal(0, 1, (3, 1)), 30, axis=1)
    assert paired_bootstrap(runs, runs[::-1] + 0.01).images_needed is None
    images = np.repeat(rng.normal(0, 1, (1, 30)), 3, axis=0)
    assert variance_of_sum([images]).needed(0.01)[1] is None
    same = paired_bootstrap(runs, runs, same_seeds=True)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_the_same_values_give_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(0, 1, (2, 3, 40))
    assert paired_bootstrap(*values) == paired_bootstrap(*values)


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

"""Runs of which the truth is known: simulated pairs of sides, and what repeating them with more runs or images shows.

A run is right about an image where accuracy, ease of the image, luck of the run and luck of both together add up to
more than 0. Runs of both sides see the same images. Arrays start with an axis of the comparisons that are drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from modelnet.compare.statistics import Estimate, Values, estimate

_OF_BOTH = 0.8  # standard deviation of what a run makes of an image; that of the ease is 1
_SHARED = 0.5  # correlation of the luck of two runs with the same seeds
_X, _WEIGHTS = np.polynomial.hermite_e.hermegauss(80)


@dataclass(frozen=True)
class World:
    """Two sides.

    Attributes:
        accuracies: that their options have on all images that could be, over all seeds.
        spreads: standard deviation of the runs' accuracies around 50 %; around a it is 4 a (1 - a) times as large.
        liking: standard deviation of how much easier or harder an image is for the second options.
        same_seeds: whether the runs of both sides share half of their luck.
    """

    accuracies: tuple[float, float] = (0.5, 0.5)
    spreads: tuple[float, float] = (0.07, 0.07)
    liking: float = 0.0
    same_seeds: bool = False

    def of_side(self, side: int) -> tuple[float, float, float]:
        """Return threshold, standard deviation of the runs' luck, and of all luck together."""
        accuracy = min(max(self.accuracies[side], 1e-9), 1 - 1e-9)
        base = np.sqrt(1 + _OF_BOTH**2 + side * self.liking**2)
        at = float(ndtri(accuracy))
        share = self.spreads[side] * 4 * accuracy * (1 - accuracy) / (np.exp(-(at**2) / 2) / np.sqrt(2 * np.pi))
        luck = base * share / np.sqrt(max(1 - share**2, 0.1))
        scale = float(np.hypot(base, luck))
        return at * scale, float(luck), scale


@dataclass(frozen=True)
class Drawn:
    """Simulated comparisons.

    Attributes:
        first_DKN, second_DKN: 1 where a run is right.
        true_1_DK, true_2_DK: accuracy of each network on all images that could be.
    """

    first_DKN: NDArray[np.float32]
    second_DKN: NDArray[np.float32]
    true_1_DK: Values
    true_2_DK: Values

    def estimate(self, first: int, second: int, same_seeds: bool) -> Estimate:
        """Compare the first runs of each side."""
        return estimate(self.first_DKN[:, :first], self.second_DKN[:, :second], same_seeds)  # type: ignore[arg-type]


def draw(rng: np.random.Generator, world: World, draws: int, images: int, runs: int) -> Drawn:
    """Draw comparisons of as many runs on both sides."""

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape, dtype=np.float32)

    ease = normal(draws, 1, images)
    luck = normal(draws, runs, 1)
    sides = []
    for side in (0, 1):
        threshold, spread, _ = world.of_side(side)
        if side:
            new = normal(draws, runs, 1)
            luck = np.float32(_SHARED) * luck + np.float32(np.sqrt(1 - _SHARED**2)) * new if world.same_seeds else new
            ease = ease + np.float32(world.liking) * normal(draws, 1, images)
        least_DK1 = -threshold - spread * luck
        right = normal(draws, runs, images)
        right *= _OF_BOTH
        right += ease
        true = ndtr(-least_DK1[..., 0] / np.sqrt(1 + _OF_BOTH**2 + side * world.liking**2))
        sides.append(((right > least_DK1).astype(np.float32), true.astype(float)))
    if world.accuracies[1] == 1:
        sides[1] = np.ones_like(sides[1][0]), np.ones_like(sides[1][1])
    return Drawn(sides[0][0], sides[1][0], sides[0][1], sides[1][1])


def shown_by_runs(
    rng: np.random.Generator, world: World, pilot: Estimate, runs: Values, level: float
) -> NDArray[np.bool_]:
    """Repeat each comparison with other runs, as many a side, where the difference is the one that was seen.

    What an estimate is made of is drawn from its own distributions: as many arrays would be too many.

    Returns:
        whether a difference is claimed.
    """
    images, seeds_T, noise_T = _variances(world, np.abs(pilot.value))
    count = pilot.count
    of_runs_T = (seeds_T + noise_T / count) / runs
    noise_T = noise_T / (runs * count)
    value = np.abs(pilot.value) + rng.standard_normal(runs.shape) * np.sqrt(images / count + of_runs_T.sum(0))
    shape = of_runs_T.shape
    again = replace(
        pilot,
        value=value,
        center=value,
        images=(images / count + noise_T.sum(0)) * rng.chisquare(count - 1, runs.shape) / (count - 1),
        seeds_T=of_runs_T * rng.chisquare(np.broadcast_to(runs - 1, shape)) / (runs - 1),
        noise_T=noise_T,
        runs_T=np.broadcast_to(runs, shape),
    )
    shown: NDArray[np.bool_] = value > again.margin(level)
    return shown


def shown_by_images(
    rng: np.random.Generator, world: World, pilot: Estimate, middle: Values, images: Values, level: float
) -> NDArray[np.bool_]:
    """Compare two networks again on other images, where their difference is the one that was seen.

    Args:
        rng, world: to draw from.
        pilot: the comparisons.
        middle: of the accuracies that both networks have on all images that could be.
        images: as many.
        level: of the test.
    """
    size = np.abs(pilot.value)
    base = [np.hypot(1, _OF_BOTH), np.sqrt(1 + _OF_BOTH**2 + world.liking**2)]
    high = np.minimum(middle + size / 2, 1 - 1e-9)
    low = np.maximum(high - size, 1e-9)
    both = np.minimum(_both(high, low, 1 / (base[0] * base[1])), low)
    count = images.astype(int)
    more = rng.binomial(count, np.clip(high - both, 0, 1))
    less = rng.binomial(count - more, np.clip((low - both) / (1 - high + both), 0, 1))
    center = (more - less) / (count + 2)
    square = (more + less + 2) / (count + 2)
    shown: NDArray[np.bool_] = center > -ndtri(level / 2) * np.sqrt((square - center**2) / (count + 2))
    return shown


def _both(first: Values, second: Values, correlation: float) -> Values:
    """Return how probable it is that two normal variables are both in the parts of these probabilities."""
    shared, own = np.sqrt(correlation), np.sqrt(1 - correlation)
    at_1, at_2 = ((ndtri(np.clip(p, 1e-12, 1 - 1e-12))[..., None] + shared * _X) / own for p in (first, second))
    both: Values = (ndtr(at_1) * ndtr(at_2) * _WEIGHTS).sum(-1) / _WEIGHTS.sum()
    return both


def _variances(world: World, size: Values) -> tuple[Values, Values, Values]:
    """Return the variances of an image, a run and an image in a run, where sides differ by sizes around the first."""
    high = np.minimum(world.accuracies[0] + size / 2, 1.0)
    low = high - size
    (_, luck_1, scale_1), (_, luck_2, scale_2) = world.of_side(0), world.of_side(1)
    crossed, liking = scale_1 * scale_2, world.liking**2
    image = [_both(high, high, 1 / scale_1**2) - high**2, _both(low, low, (1 + liking) / scale_2**2) - low**2]
    images = np.maximum(sum(image) - 2 * (_both(high, low, 1 / crossed) - high * low), 0)
    seeds = [
        _both(a, a, luck**2 / scale**2) - a**2 for a, luck, scale in ((high, luck_1, scale_1), (low, luck_2, scale_2))
    ]
    noise = [a * (1 - a) - i - s for a, i, s in zip((high, low), image, seeds, strict=True)]
    if world.same_seeds:
        shared = _SHARED * luck_1 * luck_2
        seed = sum(seeds) - 2 * (_both(high, low, shared / crossed) - high * low)
        total = high * (1 - high) + low * (1 - low) - 2 * (_both(high, low, (1 + shared) / crossed) - high * low)
        seeds, noise = [seed], [total - images - seed]
    return images, np.maximum(np.stack(seeds), 0), np.maximum(np.stack(noise), 1e-9)


LEVEL = 0.05
_NUMBERS_AT_ONCE = 500_000
_STACKED = ("value", "center", "images", "seeds_T", "noise_T", "differing", "square")


@dataclass(frozen=True)
class Rates:
    """How often a comparison is right.

    Attributes:
        held: share of the intervals that hold the true difference.
        claimed: share that excludes 0.
        named: share that does not, and names a number of runs or images instead.
        shown: of these numbers, the share that shows the difference that it is named for when it is tried.
    """

    held: float
    claimed: float
    named: float
    shown: float


def rates(
    seed: int | Sequence[int], world: World, draws: int, images: int, sides: list[tuple[int, int]]
) -> dict[tuple[int, int], Rates]:
    """Compare sides of these numbers of runs, as often as `draws` says.

    Args:
        seed: of the random numbers.
        world: what the sides are drawn from.
        draws: comparisons of each.
        images: that the sides are compared on.
        sides: runs of the first and of the second.
    """
    rng = np.random.default_rng(seed)
    most = max(max(runs) for runs in sides)
    at_once = max(1, min(draws, _NUMBERS_AT_ONCE // (most * images)))
    found: dict[tuple[int, int], list[Estimate]] = {runs: [] for runs in sides}
    first, second = [], []
    for start in range(0, draws, at_once):
        drawn = draw(rng, world, min(at_once, draws - start), images, most)
        first.append(drawn.true_1_DK[:, 0])
        second.append(drawn.true_2_DK[:, 0])
        for runs, parts in found.items():
            parts.append(drawn.estimate(*runs, same_seeds=world.same_seeds and runs[0] == runs[1] > 1))
    networks = np.concatenate(first), np.concatenate(second)
    return {runs: _rates(rng, world, _joined(parts), networks, runs) for runs, parts in found.items()}


def _rates(
    rng: np.random.Generator, world: World, found: Estimate, networks: tuple[Values, Values], runs: tuple[int, int]
) -> Rates:
    margin = found.margin()
    true_1, true_2 = (
        network if count == 1 else accuracy
        for network, accuracy, count in zip(networks, world.accuracies, runs, strict=True)
    )
    held = np.abs(true_2 - true_1 - found.center) <= margin
    claimed = np.abs(found.center) > margin
    needed = np.full(margin.shape, np.inf)
    open_ = ~claimed & (found.value != 0)
    if world.accuracies[1] < 1 and runs == (1, 1):
        needed[open_] = _of_some(found, open_).images_needed(LEVEL)
    elif world.accuracies[1] < 1 and 1 not in runs and (runs[0] == runs[1] or not world.same_seeds):
        needed[open_] = _of_some(found, open_).runs_needed(LEVEL)
    named = np.isfinite(needed)
    pilot, numbers = _of_some(found, named), needed[named]
    if runs == (1, 1):
        shown = shown_by_images(rng, world, pilot, (networks[0] + networks[1])[named] / 2, numbers, LEVEL)
    else:
        shown = shown_by_runs(rng, world, pilot, numbers, LEVEL) if named.any() else named[:0]
    return Rates(held.mean(), claimed.mean(), named.mean(), shown.mean() if named.any() else np.nan)


def _joined(parts: list[Estimate]) -> Estimate:
    values: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts], axis=-1) for name in _STACKED
    }
    return replace(parts[0], **values)


def _of_some(found: Estimate, some: NDArray[np.bool_]) -> Estimate:
    values: dict[str, Any] = {name: getattr(found, name)[..., some] for name in _STACKED}
    return replace(found, **values)

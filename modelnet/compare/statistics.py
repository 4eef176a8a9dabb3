"""Say how far chance may reach in a difference of two sides, and how many runs or images would show it.

In the arrays a row is a run (a seed) and a column an image, the same images in all. `estimate` also takes stacks of
such arrays, with leading axes of their own: a simulation needs them. docs/comparing.md gives the reasons.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtri, stdtrit

Values = NDArray[np.float64]

CONFIDENCE, POWER = 0.95, 0.8
FEWEST_RUNS = 3  # runs of a side for a claim about its options: two say too little about the spread of seeds
MOST_RUNS, MOST_IMAGES = 10_000, 1e12  # larger numbers are not searched
_LEAST_P = 1e-16
_IMAGES_LIMITS = 0.9, 0.1  # confidence of the upper and lower limit of the variance between images
_MOST_DOUBT = 2  # largest ratio between the numbers of runs from the two limits; above it, no number is given
_CORRECTION = 0.5  # of Welch's correction (2) to the degrees of freedom
_NO_DIFFERENCE = 1e-9


@dataclass(frozen=True)
class Difference:
    """How far the second of two sides is above the first, and how far chance reaches.

    Attributes:
        value: mean of the second less mean of the first.
        low, high: its 95 % interval; None where a side has too few runs.
        p: how probable a difference as large is where there is none; below 0.05 exactly where the interval excludes 0.
        images_needed: to show a difference of this size four times in five, for two networks; else None.
        runs_needed: likewise, runs a side with as many images, for two groups; None where it cannot be told.
    """

    value: float
    low: float | None
    high: float | None
    p: float | None
    images_needed: int | None = None
    runs_needed: int | None = None


@dataclass(frozen=True)
class Estimate:
    """A difference of two sides, and the sources of its variance. Every value may be a stack.

    Attributes:
        value: mean of the second side less mean of the first.
        center: what the interval lies around.
        images: variance of `center` that comes of the images, with the runs' noise in it.
        freedom: degrees of freedom with which `images` is known.
        seeds_T: variance that comes of the runs, with their noise in it; a value for each side with several runs, or
            one for the pairs of runs.
        noise_T: the part of both that is what a run makes of a single image.
        runs_T: how many runs these are of.
        count: of images.
        differing: of images whose results differ.
        square: mean square of the differences of the images.
        sharing: factor on the variance that comes of the images, where networks of several folds judge them.
    """

    value: Values
    center: Values
    images: Values
    freedom: float
    seeds_T: Values
    noise_T: Values
    runs_T: Values
    count: int
    differing: Values
    square: Values
    sharing: float = 1.0

    def margin(self, level: float | Values = 1 - CONFIDENCE) -> Values:
        """Return half of the interval's width."""
        return self._margin(self._images_alone(1.0), self.seeds_T, self.runs_T, level)

    def p(self) -> Values:
        """Return the level at which the interval ends at 0."""
        size = np.abs(self.center)
        p = _least(lambda level: self.margin(level) <= size, _LEAST_P, 1.0, self.value.shape)
        return np.where(size < _NO_DIFFERENCE, 1.0, p)

    def images_needed(self, level: float) -> Values:
        """Return how many images would show the difference of two networks at a level.

        Returns:
            inf where fewer than two images differ: that says too little.
        """
        size, square = np.abs(self.value), self.square
        spread = np.maximum(square - size**2, _NO_DIFFERENCE)

        def enough(count: Values) -> Any:
            missed = ndtri(POWER) * np.sqrt(spread / count)  # largest underestimation of the difference
            fewer = np.maximum(square - missed * size * (1 - square) / spread, 0)  # images that differ then
            center, images = _with_two_added(np.maximum(size - missed, 0), fewer, count, np.ones_like(size))
            return (center > 0) & (center >= -ndtri(level / 2) * np.sqrt(images))

        needed = _least(enough, self.count + 1.0, MOST_IMAGES, size.shape)
        return round_up(np.where(self.differing < 2, np.inf, needed))

    def runs_needed(self, level: float) -> Values:
        """Return how many runs a side would show the difference of two groups at a level.

        Returns:
            inf where no number would, and where the images' part of the variance is too uncertain to tell.
        """
        known = np.maximum(self.differing, 1.0)  # few images that differ say little about how much images differ
        most, least = (
            self._runs_needed(level, self._images_alone(known / chdtri(known, part))) for part in _IMAGES_LIMITS
        )
        return round_up(np.where(most <= _MOST_DOUBT * least, np.sqrt(most * least), np.inf))

    def _runs_needed(self, level: float, images: Values) -> Values:
        freedom = _freedom(self.seeds_T, self.runs_T)
        raised = freedom / chdtri(freedom, 0.5)  # with few runs, the variance is usually underestimated
        of_one_run_T = self.seeds_T * _as_column(self.runs_T, self.seeds_T) * raised
        size = np.abs(self.value)

        def enough(runs: Values) -> Any:
            seeds_T = of_one_run_T / runs
            margin = self._margin(images, seeds_T, np.broadcast_to(runs, seeds_T.shape), level)
            return size >= margin + ndtri(POWER) * np.sqrt(images + seeds_T.sum(0))

        return _least(enough, float(self.runs_T.max()) + 1, MOST_RUNS, self.value.shape)

    def _images_alone(self, factor: float | Values) -> Values:
        """Return the variance that comes of the images, to train and to validate on, without the noise of the runs."""
        alone: Values = np.maximum(self.images * factor - self.noise_T.sum(0), 0) * self.sharing
        return alone

    def _margin(self, images: Values, seeds_T: Values, runs_T: Values, level: float | Values) -> Values:
        """Combine quantiles of Student's t as Banerjee (1960) does: never too narrow, whatever share each part has."""
        squares = stdtrit(self.freedom, level / 2) ** 2 * images
        if len(seeds_T):
            squares = squares + stdtrit(_freedom(seeds_T, runs_T), level / 2) ** 2 * seeds_T.sum(0)
        width: Values = np.sqrt(squares)
        return width


def estimate(
    first_KN: Values, second_LN: Values, same_seeds: bool = False, rights: bool = True, folds: int = 1
) -> Estimate:
    """Estimate a difference and the sources of its variance; every run has predicted every image.

    Args:
        first_KN, second_LN: a value a run and image.
        same_seeds: whether the runs of both sides are in the same order of the same seeds: then two that began alike
            are compared with each other, which takes away the luck that they share.
        rights: whether the values are 1 for right and 0 for wrong. Then images may differ that none of these few
            happened to be, and two are added, as Bonett and Price (2012) do for two networks.
        folds: that a run has networks of. They share training images, and other ones would give another difference: a
            factor 1 + K / (K - 1) counts that, as Nadeau and Bengio (2003) do. One run a side is about its networks,
            and their training images are what they are.
    """
    terms = [second_LN - first_KN] if same_seeds else [-first_KN, second_LN]
    per_image_N = sum((term_KN.mean(-2, dtype=float) for term_KN in terms), np.zeros(()))
    count = int(first_KN.shape[-1])
    value, square = per_image_N.mean(-1), (per_image_N**2).mean(-1)
    differing = (np.abs(per_image_N) > _NO_DIFFERENCE).sum(-1).astype(float)
    if rights:  # they weigh what an image that differs weighs here, half an image counted in that all runs disagree on
        weight = (0.5 + count * square) / (0.5 + differing)
        center, images = _with_two_added(value, square, float(count), weight)
    else:
        weight, center = np.zeros_like(value), value
        images = np.maximum(square - value**2, 0) / (count - 1)
    of_terms = [(*_of_runs(term_KN), term_KN.shape[-2]) for term_KN in terms if term_KN.shape[-2] > 1]
    none = np.zeros((0, *value.shape))
    shrunk = (count / (count + 2 * weight)) ** 2
    return Estimate(
        value,
        center,
        images,
        math.inf if rights else count - 1,
        np.stack([term[0] * shrunk for term in of_terms]) if of_terms else none,
        np.stack([term[1] * shrunk for term in of_terms]) if of_terms else none,
        np.array([term[2] for term in of_terms], float),
        count,
        differing,
        square,
        1 + folds / (folds - 1) if folds > 1 and of_terms else 1.0,
    )


def compare_accuracies(
    first_KN: Values, second_LN: Values, same_seeds: bool = False, comparisons: int = 1, folds: int = 1
) -> Difference:
    """Compare how often two sides are right.

    Args:
        first_KN, second_LN, same_seeds, folds: as for `estimate`.
        comparisons: made at once: what is needed is for the level that the least p-value of so many is held against.
    """
    if too_few(len(first_KN), len(second_LN)):
        return _unknown(first_KN, second_LN)
    found = estimate(first_KN, second_LN, same_seeds, folds=folds)
    margin, level = found.margin(), (1 - CONFIDENCE) / comparisons
    low, high = max(-1.0, float(found.center - margin)), min(1.0, float(found.center + margin))
    images = runs = math.inf
    value = float(found.value) if abs(found.value) > _NO_DIFFERENCE else 0.0
    if value:
        if not len(found.runs_T):
            images = float(found.images_needed(level))
        elif len(first_KN) > 1 < len(second_LN):
            runs = float(found.runs_needed(level))
    return Difference(value, low, high, float(found.p()), _whole(images), _whole(runs))


def compare_losses(first_KN: Values, second_LN: Values, same_seeds: bool = False, folds: int = 1) -> Difference:
    """Compare the losses of two sides; arguments as for `estimate`."""
    if too_few(len(first_KN), len(second_LN)):
        return _unknown(first_KN, second_LN)
    found = estimate(first_KN, second_LN, same_seeds, rights=False, folds=folds)
    margin = found.margin()
    return Difference(float(found.value), float(found.center - margin), float(found.center + margin), float(found.p()))


def too_few(*runs: int) -> bool:
    """Say whether a side has too few runs for a claim about its options; one run is a claim about its network."""
    return any(1 < count < FEWEST_RUNS for count in runs)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that may each be held against 0.05 although there are several (Holm 1979), in the same order."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted


def round_up(values: Values) -> Values:
    """Round numbers up to whole ones of two digits."""
    unit = 10 ** np.maximum(np.floor(np.log10(values)) - 1, 0)
    with np.errstate(invalid="ignore"):
        return np.where(np.isfinite(values), np.ceil(values / unit - _NO_DIFFERENCE) * unit, np.inf)


def _unknown(first_KN: Values, second_LN: Values) -> Difference:
    return Difference(float(second_LN.mean() - first_KN.mean()), None, None, None)


def _whole(number: float) -> int | None:
    return int(number) if math.isfinite(number) else None


def _with_two_added(value: Values, square: Values, count: float | Values, weight: Values) -> tuple[Values, Values]:
    """Return the mean and its variance after adding two images of a weight: each side alone gets one right."""
    total = count + 2 * weight
    center = value * count / total
    return center, np.maximum((count * square + 2 * weight) / total - center**2, 0) / total


def _of_runs(values_KN: Values) -> tuple[Values, Values]:
    """Return the variance of a mean over runs, and its part from the interaction of run and image."""
    runs, images = values_KN.shape[-2:]
    means_K, means_N = values_KN.mean(-1, dtype=float), values_KN.mean(-2, dtype=float)
    squares = np.einsum("...kn,...kn->...", values_KN, values_KN)
    rest = squares - images * (means_K**2).sum(-1) - runs * (means_N**2).sum(-1) + runs * images * means_K.mean(-1) ** 2
    return means_K.var(-1, ddof=1) / runs, np.maximum(rest, 0) / ((runs - 1) * (images - 1) * runs * images)


def _freedom(seeds_T: Values, runs_T: Values) -> Values:
    """Return the degrees of freedom of the sum of the runs' variances.

    They lie between Satterthwaite's (too few where both sides scatter alike) and Welch's of 1947 (too many where one
    scatters far more). Where the smaller side seems to scatter little, that is likely its luck: they are never more
    than for equal scatter, so that 3 runs against 16 are not too sure. Of one term they are its own.
    """
    runs_T = _as_column(runs_T, seeds_T)
    equal = (1 / runs_T).sum(0) ** 2 / (1 / (runs_T**2 * (runs_T - 1))).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = seeds_T.sum(0) ** 2 / (seeds_T**2 / (runs_T - 1 + _CORRECTION)).sum(0) - _CORRECTION
    least: Values = runs_T.min(0) - 1
    freedom: Values = np.clip(np.nan_to_num(between, nan=0.0), least, equal)
    return freedom


def _as_column(runs_T: Values, like_T: Values) -> Values:
    """Give numbers, one a term, the axes of a stack."""
    return runs_T.reshape(-1, *[1] * (like_T.ndim - 1)) if runs_T.ndim == 1 else runs_T


def _least(enough: Callable[[Values], Any], low: float, high: float, shape: tuple[int, ...]) -> Values:
    """Return the least number between two for which it is enough, for each of a stack; inf where none is."""
    lows, highs = np.full(shape, low), np.full(shape, high)
    never = ~enough(highs)
    for _ in range(45):
        middles = np.sqrt(lows * highs)
        good = enough(middles)
        lows, highs = np.where(good, lows, middles), np.where(good, middles, highs)
    return np.where(never, np.inf, highs)

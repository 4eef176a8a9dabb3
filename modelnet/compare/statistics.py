"""What chance alone may do to a difference: intervals over images and seeds, McNemar's test, how much would be needed.

In the arrays a row is a run (a seed) and a column an image, the same images in all.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

CONFIDENCE, POWER = 0.95, 0.8
RESAMPLES = 10_000
_NUMBERS_AT_ONCE = 4_000_000
_NOTHING = 1e-12  # of a standard error: rounding


@dataclass(frozen=True)
class Difference:
    """How far the second of two is above the first, and how far chance reaches.

    Attributes:
        value: mean of the second less mean of the first.
        low, high: its 95 % interval.
        p: how probable a difference as large is where there is none.
        images_needed: to show a difference of this size four times in five, with as many runs; None where no number of
            images would do.
        runs_needed: likewise, runs a side, with as many images; None also where a side has one run.
    """

    value: float
    low: float
    high: float
    p: float
    images_needed: int | None
    runs_needed: int | None


@dataclass(frozen=True)
class McNemar:
    """Of the images that only one of two networks gets right, has each its half?

    Attributes:
        only_first, only_second: images that this one alone gets right.
        p: two-sided and exact, from the binomial distribution.
    """

    only_first: int
    only_second: int
    p: float


def mcnemar(first_N: Values, second_N: Values) -> McNemar:
    """Test whether two networks are right equally often.

    Args:
        first_N, second_N: 1 where the network is right about an image, else 0.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first_N > second_N).sum()), int((first_N < second_N).sum())
    differ = only_first + only_second
    return McNemar(only_first, only_second, float(binomtest(only_first, differ).pvalue) if differ else 1.0)


def paired_bootstrap(
    first_KN: Values, second_LN: Values, same_seeds: bool = False, resamples: int = RESAMPLES
) -> Difference:
    """Compare two sides that were measured on the same images, by drawing images, and runs where there are several.

    Drawn at once, images and runs scatter too much: what a run makes of an image counts three times, and on real
    photographs it is the largest part (Owen 2007, "The pigeonhole bootstrap"). Drawn from few, runs scatter too
    little. So the drawn differences give the interval its shape, and `variance_of_sum` with Student's t its width.

    Args:
        first_KN, second_LN: a value a run and image: 1 for right and 0 for wrong, or a loss.
        same_seeds: whether the runs of both sides are in the same order of the same seeds: then two that began alike
            are drawn together, which takes away the luck that they share.
        resamples: how often to draw. The same values give the same interval.
    """
    from scipy.stats import norm, t

    terms = [second_LN - first_KN] if same_seeds else [-first_KN, second_LN]
    value = float(second_LN.mean() - first_KN.mean())
    variance = variance_of_sum(terms)
    error = math.sqrt(variance.total)
    if error < _NOTHING:
        return Difference(value, value, value, 1.0 if abs(value) < _NOTHING else 0.0, None, None)
    tail = (1 - CONFIDENCE) / 2
    drawn_R = _drawn_sums(terms, resamples) - value
    width = error / drawn_R.std() * t.isf(tail, variance.freedom) / norm.isf(tail)
    low, high = (float(value + width * q) for q in np.quantile(drawn_R, (tail, 1 - tail)))
    p = float(2 * t.sf(abs(value) / error, variance.freedom))
    return Difference(value, low, high, p, *variance.needed(value))


def paired_bootstrap_of_two(first_N: Values, second_N: Values, resamples: int = RESAMPLES) -> Difference:
    """Compare how often two networks are right, by drawing images.

    Where few images flip, drawing among them is too sure: no flip among 20 images would give an interval without
    width. So two images are added, one that only the first gets right and one that only the second does (Bonett and
    Price 2012); interval and McNemar's test agree then. `value` and `p` are those of the images alone.

    Args:
        first_N, second_N: 1 where the network is right about an image, else 0.
    """
    added = paired_bootstrap(np.append(first_N, [1, 0])[None], np.append(second_N, [0, 1])[None], resamples=resamples)
    value = float(second_N.mean() - first_N.mean())
    needed = variance_of_sum([(second_N - first_N)[None]]).needed(value)
    return Difference(value, added.low, added.high, mcnemar(first_N, second_N).p, *needed)


def _drawn_sums(terms: Sequence[Values], resamples: int) -> Values:
    """Return (resamples,) sums of the terms' means: each time of other images, and in each term of other runs."""
    rng = np.random.default_rng(0)
    images = terms[0].shape[1]
    drawn: list[Values] = []
    for start in range(0, resamples, at_once := max(1, _NUMBERS_AT_ONCE // images)):
        count = min(at_once, resamples - start)
        places = rng.integers(0, images, (count, images)) + np.arange(count)[:, None] * images
        times_RN = np.bincount(places.ravel(), minlength=count * images).reshape(count, images) / images
        sums_R = np.zeros(count)
        for term_KN in terms:
            runs = len(term_KN)
            times_RK = rng.multinomial(runs, [1 / runs] * runs, count) / runs
            sums_R += (times_RK * (times_RN @ term_KN.T)).sum(1)
        drawn.append(sums_R)
    return np.concatenate(drawn)


@dataclass(frozen=True)
class Variance:
    """What makes the difference of two sides vary.

    Attributes:
        seeds: scatter of the runs' means; 0 for a side of one run, where it is unknown.
        images: scatter of the images' differences.
        both: what a run makes of a single image, which is part of the two others.
        freedom: degrees of freedom with which their sum is known.
        runs: a side (their harmonic mean) that these are for; 0 where a side has one alone.
        count: of images, likewise.
    """

    seeds: float
    images: float
    both: float
    freedom: float
    runs: float
    count: int

    @property
    def total(self) -> float:
        """Variance of the difference, if other images and other seeds had been."""
        return max(0.0, self.seeds - self.both) + max(0.0, self.images - self.both) + self.both

    def needed(self, value: float) -> tuple[int | None, int | None]:
        """Return how many images, or else how many runs a side, would show a difference of `value` with `POWER`."""
        of_images, of_seeds = max(self.images, self.both), max(self.seeds, self.both)
        left = _enough(value, self.freedom) - (of_seeds - self.both)
        images = math.ceil(self.count * of_images / left) if left > 0 else None
        if self.runs == 0:
            return images, None
        runs, freedom = self.runs, self.freedom
        for _ in range(20):  # with more runs their scatter is known better: settles within a few rounds
            left = _enough(value, freedom) - (of_images - self.both)
            if left <= 0:
                return images, None
            runs = max(2.0, self.runs * of_seeds / left)
            freedom = self.freedom * (runs - 1) / (self.runs - 1)
        return images, math.ceil(runs)


def _enough(value: float, freedom: float) -> float:
    """Return the variance with which a difference of `value` is shown with the wanted power."""
    from scipy.stats import t

    return float((value / (t.isf((1 - CONFIDENCE) / 2, freedom) + t.isf(1 - POWER, freedom))) ** 2)


def variance_of_sum(terms: Sequence[Values]) -> Variance:
    """Estimate what makes a sum of means vary, where every run has seen every image.

    Args:
        terms: (runs, images) each, independent in their runs.
    """
    per_image_N = sum((term_KN.mean(0) for term_KN in terms), np.zeros(terms[0].shape[1]))
    count = len(per_image_N)
    images = float(per_image_N.var(ddof=1)) / count
    of_terms = [(len(term_KN), *_of_seeds(term_KN)) for term_KN in terms]
    seeds, both = sum(term[1] for term in of_terms), sum(term[2] for term in of_terms)
    runs = len(terms) / sum(1 / term[0] for term in of_terms) if min(term[0] for term in of_terms) > 1 else 0.0
    variance = Variance(seeds, images, both, count - 1, runs, count)
    doubt = images**2 / (count - 1) + sum(seed**2 / (runs - 1) for runs, seed, _ in of_terms if runs > 1)
    if doubt == 0:
        return variance
    return replace(variance, freedom=variance.total**2 / doubt)  # Satterthwaite's approximation


def _of_seeds(values_KN: Values) -> tuple[float, float]:
    """Return the variance of a mean over runs, and the part of it that is what a run makes of single images."""
    runs, images = values_KN.shape
    if runs == 1:
        return 0.0, 0.0
    means_K = values_KN.mean(1)
    rest_KN = values_KN - means_K[:, None] - values_KN.mean(0) + values_KN.mean()
    return float(means_K.var(ddof=1)) / runs, float((rest_KN**2).sum()) / ((runs - 1) * (images - 1)) / (runs * images)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that may each be held against 0.05 although there are several (Holm 1979), in the same order."""
    adjusted, least = [0.0] * len(p_values), 0.0
    for place, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        least = max(least, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = least
    return adjusted

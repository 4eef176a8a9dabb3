"""Settings of which the truth is known: several options, each with several seeds, on the same images."""

import numpy as np
from scipy.special import ndtr, ndtri

from modelnet.compare.selection import select
from modelnet.compare.statistics import Values

_LUCK, _OF_BOTH = 0.15, 0.8  # standard deviation of a seed's luck, and of what it makes of an image; of the ease 1


def draw_settings(
    rng: np.random.Generator, settings: int, seeds: int, images: int, spread: float
) -> tuple[Values, Values]:
    """Draw settings whose accuracies lie around 80 %.

    Args:
        rng: to draw from.
        settings, seeds, images: how many.
        spread: of the settings, on the scale on which the ease of images has 1; 0 makes all of them equal.

    Returns:
        (settings, seeds, images) 1 where a network is right; (settings,) accuracy on all images that could be.
    """
    good_S = ndtri(0.8) * np.sqrt(1 + _OF_BOTH**2) + spread * rng.standard_normal(settings)
    luck_SR = _LUCK * rng.standard_normal((settings, seeds))
    own = _OF_BOTH * rng.standard_normal((settings, seeds, images), dtype=np.float32)
    right = (good_S[:, None, None] + luck_SR[..., None] + rng.standard_normal(images) + own) > 0
    return right.astype(float), ndtr(good_S / np.sqrt(1 + _OF_BOTH**2 + _LUCK**2))


def promises(seed: int, count: int, settings: int, seeds: int, images: int, spread: float) -> tuple[Values, Values]:
    """Choose the best setting often.

    Returns:
        (count,) points that are to be expected less, as it is said, and as it is true of the setting chosen.
    """
    rng, said, true = np.random.default_rng(seed), np.empty(count), np.empty(count)
    for i in range(count):
        right, truth = draw_settings(rng, settings, seeds, images, spread)
        found = select(list(right), draws=100, seed=i)
        said[i], true[i] = found.less, right[found.best].mean() - truth[found.best]
    return 100 * said, 100 * true

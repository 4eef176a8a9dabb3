"""Comparisons over folds whose truth is known: small networks that really train on the images that folds share.

A network is a layer of random units and a layer fitted by least squares, to training images that are drawn again with
replacement, so that seeds differ. Two options see different features. Equal options see features of the same
distribution, so neither is better on average over all sets of images; on one set of training images one of them is.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


@dataclass(frozen=True)
class FoldWorld:
    """What both options are trained on.

    Attributes:
        images, folds, seeds: numbers of them; seeds of a side.
        features, units: of a network.
        signal: how far the classes are apart, in standard deviations; more makes images easier.
        gain: by how much further apart the second options see them.
        shared: the share of its features that the second options have in common with the first, 0..1.
    """

    images: int = 200
    folds: int = 5
    seeds: int = 4
    features: int = 30
    units: int = 30
    signal: float = 1.0
    gain: float = 0.0
    shared: float = 0.0


def draw_folds(rng: np.random.Generator, world: FoldWorld) -> tuple[Values, Values]:
    """Train the networks of both options, and return which images they get right: (seeds, images) each.

    Each image is judged by the networks of its fold, which were fitted without it.
    """
    truth = np.where(rng.random(world.images) < 0.5, -1.0, 1.0)
    ease = 1 + 0.6 * rng.standard_normal(world.images)  # of an image, for both options
    fold = rng.permutation(np.arange(world.images) % world.folds)
    noise = rng.standard_normal((2, world.images, world.features))
    common = round(world.shared * world.features)
    noise[1, :, :common] = noise[0, :, :common]
    sides = []
    for side, own in enumerate(noise):
        apart = (world.signal + side * world.gain) * ease * truth / np.sqrt(world.features)
        seen = own + apart[:, None]
        sides.append(np.array([_out_of_fold(rng, world, seen, truth, fold) for _ in range(world.seeds)]))
    return sides[0], sides[1]


def _out_of_fold(
    rng: np.random.Generator, world: FoldWorld, seen: Values, truth: Values, fold: NDArray[np.int64]
) -> Values:
    right = np.empty(world.images)
    for number in range(world.folds):
        weights = rng.standard_normal((world.features, world.units)) / np.sqrt(world.features)
        units = np.c_[np.tanh(seen @ weights), np.ones(world.images)]
        rows = np.flatnonzero(fold != number)
        rows = rows[rng.integers(0, len(rows), len(rows))]
        squares = units[rows].T @ units[rows] + 3 * np.eye(world.units + 1)
        said = units @ np.linalg.solve(squares, units[rows].T @ truth[rows])
        right[fold == number] = ((said > 0) == (truth > 0))[fold == number]
    return right

"""Random numbers that follow from a purpose, a seed, an epoch and a row alone: whatever the batch, worker or rank."""

from operator import index

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor

NUMBERS = 8  # an image, for each purpose


def seeded_generator(*key: int) -> torch.Generator:
    """Return a CPU generator whose numbers follow from a tuple of integers, unlike those of neighbouring tuples."""
    digest = xxhash.xxh3_64_intdigest(repr(tuple(map(index, key))).encode())
    return torch.Generator("cpu").manual_seed(digest >> 1)


def uniform(purpose: str, seed: int, epoch: int, rows_B: Tensor) -> Tensor:
    """Return (B, 8) float32 random numbers, 0 <= number < 1: SplitMix64 of a counter.

    Args:
        purpose: "augment", say; another one gives numbers that have nothing to do with these.
        seed: of the run.
        epoch: from 0.
        rows_B: (B,) int64 on the CPU.
    """
    key = np.uint64(xxhash.xxh3_64_intdigest(repr((purpose, index(seed), index(epoch))).encode()))
    numbers = np.arange(1, NUMBERS + 1, dtype=np.uint64)
    z: NDArray[np.uint64] = rows_B.numpy().astype(np.uint64)[:, None] * np.uint64(NUMBERS) + numbers
    z = key + z * np.uint64(0x9E3779B97F4A7C15)  # wraps around, as it should
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return torch.from_numpy((z >> np.uint64(40)).astype(np.float32) / np.float32(2**24))

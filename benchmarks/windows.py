"""How mixed batches are when shards are read in turn and shuffled within a window, by simulation.

A batch of a global shuffle is the oracle: 256 images of 1,000 classes hold 226 classes on average, and two images of
a batch meet again in the next epoch as often as chance has it.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.dataset import Workplace
from benchmarks.tables import Table

IMAGES, CLASSES, SHARDS, BATCH = 1_000_000, 1000, 1000, 256
WINDOWS = (1, 4, 16)


def classes_a_batch(labels: NDArray[np.int64], order: NDArray[np.int64]) -> float:
    """Return the mean number of classes in a batch of an order, over its first 500 batches."""
    batches = labels[order[: 500 * BATCH]].reshape(-1, BATCH)
    return float(np.mean([len(np.unique(batch)) for batch in batches]))


def windowed(random: np.random.Generator, shards_at_once: int) -> NDArray[np.int64]:
    """Return an order that goes through the shards in random order and shuffles so many of them together."""
    places = np.arange(IMAGES).reshape(SHARDS, -1)[random.permutation(SHARDS)]
    whole = places[: SHARDS // shards_at_once * shards_at_once]
    parts = whole.reshape(-1, shards_at_once * (IMAGES // SHARDS))
    return np.concatenate([random.permutation(part) for part in parts])


def meeting_again(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    """Return how many pairs of images share a batch in both of two orders, over what chance would have."""
    batches = len(first) // BATCH
    batch_of = np.full(IMAGES, -1)
    batch_of[second[: batches * BATCH]] = np.repeat(np.arange(batches), BATCH)
    again = batch_of[first[: batches * BATCH]]
    shared = (np.repeat(np.arange(batches), BATCH) * batches + again)[again >= 0]
    _, together = np.unique(shared, return_counts=True)
    pairs = (together * (together - 1) // 2).sum()
    return float(pairs / (batches * BATCH * (BATCH - 1) / 2 * (BATCH - 1) / (IMAGES - 1)))


def measure(work: Workplace) -> list[Table]:
    """Compare windows with a global shuffle."""
    work.say("windows")
    random = np.random.default_rng(0)
    by_hash = random.integers(0, CLASSES, IMAGES)
    by_class = np.sort(by_hash)
    table = Table(
        f"Classes in a batch of {BATCH}, and pairs that meet again: {IMAGES:,} images, {SHARDS:,} shards, simulated",
        ("placed by hash", "placed by class", "a pair meets again"),
    )
    orders = {"globally": (random.permutation(IMAGES), random.permutation(IMAGES))}
    orders |= {
        f"within {at_once} shard{'s' if at_once > 1 else ''}": (windowed(random, at_once), windowed(random, at_once))
        for at_once in WINDOWS
    }
    for name, (order, again) in orders.items():
        mixed = [f"{classes_a_batch(labels, order):.0f}" for labels in (by_hash, by_class)]
        table.add(name, *mixed, f"× {meeting_again(order, again):.1f}")
    return [table]

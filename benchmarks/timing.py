"""Rounds in which every system has its turn, and what they say: medians, spread, ratios of the same round."""

import contextlib
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from torch import Tensor

EPOCH_SECONDS = 1.5


class Measured(NamedTuple):
    """One figure, measured once a round. Ratios compare rounds, not medians: what slows a machine slows both."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def spread(self) -> str:
        """Lowest and highest, as "3,900–4,400"."""
        return f"{number(min(self.values))}–{number(max(self.values))}"

    def over(self, other: "Measured") -> float:
        """How many times `other` this is: the median over the rounds of the ratio within a round."""
        return statistics.median(a / b for a, b in zip(self.values, other.values, strict=True))

    def plus(self, other: "Measured") -> "Measured":
        """Add round by round."""
        return Measured(tuple(a + b for a, b in zip(self.values, other.values, strict=True)))


def interleave(
    measures: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 1, between: Callable[[], object] = dict
) -> dict[str, Measured]:
    """Measure everything once a round, each round in another order.

    Args:
        measures: a figure by name.
        rounds: that count.
        warm_up: rounds before them that do not.
        between: called after each measure, outside of what it measures.
    """
    order = random.Random(0)
    values: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(warm_up + rounds):
        for name in order.sample(sorted(measures), len(measures)):
            figure = measures[name]()
            between()
            if turn >= warm_up:
                values[name].append(figure)
    return {name: Measured(tuple(figures)) for name, figures in values.items()}


def seconds(work: Callable[[], object]) -> float:
    """Return how long a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def images_a_second(batches: Iterable[Tensor], limit: float = EPOCH_SECONDS) -> float:
    """Read an epoch, or as much of it as `limit` seconds allow, and return images/s; starting the epoch counts."""
    images = 0
    start = time.perf_counter()
    end = start
    for batch in batches:
        images += len(batch)
        end = time.perf_counter()
        if end - start > limit:
            break
    return images / (end - start)


def number(value: float) -> str:
    """Three digits that matter: 0.0123, 4.56, 78.9, 12,300."""
    if value == 0 or abs(value) >= 1e15:
        return f"{value:g}"
    digits = 2 - len(str(int(abs(value)))) + 1 if abs(value) >= 1 else 3
    while abs(value) < 1 and abs(value) * 10**digits < 100 and digits < 6:
        digits += 1
    rounded = round(value, digits)
    return f"{rounded:,.{max(0, digits)}f}"


@contextlib.contextmanager
def busy_process() -> Iterator[None]:
    """Keep one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()

"""File names by the million, packed into one buffer: an object for each takes five times the memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PackedNames(Sequence[bytes]):
    """Byte strings in order, of which none changes; more can be put behind them.

    They also cost no more in processes that are forked: counting references to objects would copy their memory.
    """

    def __init__(self, names: Iterable[bytes] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])  # (n + 1,): name i lies between ends i and i + 1
        self.extend(names)

    def append(self, name: bytes) -> None:
        """Put a name behind the others."""
        self._bytes += name
        self._ends.append(len(self._bytes))

    def extend(self, names: Iterable[bytes]) -> None:
        """Put names behind the others."""
        for name in names:
            self.append(name)

    def take(self, places: NDArray[np.int64]) -> "PackedNames":
        """Return the names of these places, in their order."""
        return PackedNames(self[place] for place in places.tolist())

    def longest(self) -> int:
        """Return how many bytes the longest name has; 0 where there is none."""
        return int(self._lengths().max(initial=0))

    def table(self, first: int = 0, end: int | None = None) -> NDArray[np.bytes_]:
        """Return the names from `first` up to `end` as fixed-length bytes, as wide as the longest, at least 1."""
        lengths = self._lengths()[first:end]
        width = max(1, int(lengths.max(initial=0)))
        padded = np.zeros((len(lengths), width), np.uint8)
        start = self._ends[first]
        padded[np.arange(width) < lengths[:, None]] = np.frombuffer(self._bytes, np.uint8)[
            start : start + lengths.sum()
        ]
        return padded.view(f"S{width}").reshape(-1)

    def _lengths(self) -> NDArray[np.int64]:
        ends = np.frombuffer(self._ends, np.int64)
        return ends[1:] - ends[:-1]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[one] for one in range(len(self))[place]]
        if place < 0:
            place = range(len(self))[place]
        return bytes(self._bytes[self._ends[place] : self._ends[place + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(self._bytes[start:end]) for start, end in pairwise(self._ends))

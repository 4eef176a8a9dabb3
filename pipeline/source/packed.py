"""Pack millions of file names into one buffer: an object for each takes five times the memory."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray


class PackedNames(Sequence[bytes]):
    """An append-only sequence of byte strings.

    Forked processes share its memory: counting references to single objects would copy it.
    """

    def __init__(self, names: Iterable[bytes] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])  # (n + 1,): name i lies between ends i and i + 1
        self.extend(names)

    def append(self, name: bytes) -> None:
        """Append a name."""
        self._bytes += name
        self._ends.append(len(self._bytes))

    def extend(self, names: Iterable[bytes]) -> None:
        """Append names."""
        for name in names:
            self.append(name)

    def take(self, positions: NDArray[np.int64]) -> "PackedNames":
        """Return the names at these positions, in their order."""
        return PackedNames(self[position] for position in positions.tolist())

    def longest(self) -> int:
        """Return the length of the longest name in bytes; 0 if there are none."""
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

    def __getitem__(self, position: Any) -> Any:
        if isinstance(position, slice):
            return [self[i] for i in range(len(self))[position]]
        if position < 0:
            position = range(len(self))[position]
        return bytes(self._bytes[self._ends[position] : self._ends[position + 1]])

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(self._bytes[start:end]) for start, end in pairwise(self._ends))

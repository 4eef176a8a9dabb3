"""Find images that are the same, by content, or nearly the same, by perceptual hash."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MOST_PAIRS = 10_000  # pairs that are stored; images that all look alike give millions
_CROWD = 256  # largest number of keys in a band before more of their bits are compared
_FEWEST_BITS = 16
_MOST_COMPARED = 10**8  # pairs: a few seconds
NEAR_BITS = 3  # hashes that differ in at most so many of 64 bits are near duplicates


def digest_items(digests: NDArray[np.uint8]) -> NDArray[np.void]:
    """View digests, (n, 32), as (n,) items that can be compared, sorted and looked up."""
    return np.ascontiguousarray(digests).view(np.dtype((np.void, 32))).ravel()


def exact_groups(source_sha256: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Group the rows whose files have the same content.

    Args:
        source_sha256: (N, 32) uint8.

    Returns:
        Groups of two rows or more, by their first; each in ascending order.
    """
    digests = np.ascontiguousarray(source_sha256)
    groups = []
    for run in _runs(digests.view(np.uint64)[:, 0]):  # eight bytes of each digest search, all 32 decide
        while len(run) > 1:
            same = (digests[run] == digests[run[0]]).all(axis=1)
            if same.sum() > 1:
                groups.append(run[same])
            run = run[~same]
    return sorted(groups, key=lambda group: int(group[0]))


def near_pairs(hashes: NDArray[np.uint64], skip: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Find the pairs of rows whose hashes differ in at most `NEAR_BITS` bits.

    Args:
        hashes: (N,) uint64, from `image_hash`.
        skip: (N,) bool, rows to leave out (blank images all look alike).

    Returns:
        (a, b) with a < b, sorted, at most `MOST_PAIRS`: ten thousand drawings on white may all be near each other.
    """
    rows = np.flatnonzero(~skip)
    found: set[tuple[int, int]] = set()
    for a, b in near_edges(hashes[rows]):
        found.update(zip(rows[a].tolist(), rows[b].tolist(), strict=True))
        if len(found) >= MOST_PAIRS:
            break
    return sorted(found)[:MOST_PAIRS]


def near_edges(
    hashes: NDArray[np.uint64], crowd: int = _CROWD
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs of positions (a, b), a < b, whose hashes are near, many at a time; a pair may come again.

    Args:
        hashes: (N,) uint64, from `image_hash`. Make them different first: N equal ones are N² / 2 pairs.
        crowd: largest number of hashes with an equal band of bits that are compared one by one.
    """
    for a, b in _candidates(hashes, 64, crowd):
        near = np.bitwise_count(hashes[a] ^ hashes[b]) <= NEAR_BITS
        yield a[near], b[near]


def near_rows_across(hashes: NDArray[np.uint64], others: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which images are near copies of an image of another set.

    Args:
        hashes: (N,) uint64, from `image_hash`.
        others: (M,) uint64, of the other set. Leave blank images out: they all look alike.

    Returns:
        (N,) bool. At most about `_MOST_COMPARED` pairs are compared; the rest counts as different.
    """
    ours, inverse = np.unique(hashes, return_inverse=True)
    theirs = np.unique(others)
    near = np.isin(ours, theirs)
    keys = np.concatenate([ours, theirs])
    compared = 0
    for a, b in _candidates(keys, 64):  # a < b, and ours stand before theirs
        across = (a < len(ours)) & (b >= len(ours))
        a, b = a[across], b[across]
        near[a[np.bitwise_count(keys[a] ^ keys[b]) <= NEAR_BITS]] = True
        compared += len(across)
        if compared > _MOST_COMPARED:
            break
    return near[inverse]


def _candidates(
    keys: NDArray[np.uint64], bits: int, crowd: int = _CROWD
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield pairs of positions (a, b), a < b, many at a time: every near pair, and others.

    A near pair is equal in at least one of NEAR_BITS + 1 bands of bits, so only keys that share a band are paired.
    Where many keys share a band (a white sky), the rest of their bits is divided in the same way.

    Args:
        keys: (n,) uint64; only the low `bits` count.
        bits: number of bits.
    """
    width = bits // (NEAR_BITS + 1)
    for band in range(NEAR_BITS + 1):
        low = band * width
        shared = (keys >> np.uint64(low)) & np.uint64((1 << width) - 1)
        shared = shared.astype(np.uint16)  # sorted fastest; a width is 16 bits or fewer
        crowded = (
            np.bincount(shared, minlength=1 << width) > crowd if bits > _FEWEST_BITS else np.zeros(1 << width, bool)
        )
        few = np.flatnonzero(~crowded[shared])
        for a, b in _sharing(shared[few]):
            yield few[a], few[b]
        for value in np.flatnonzero(crowded).tolist():
            many = np.flatnonzero(shared == value)
            below = keys[many] & np.uint64((1 << low) - 1)
            above = keys[many] >> np.uint64(low + width)
            for a, b in _candidates(below | above << np.uint64(low), bits - width, crowd):
                yield many[a], many[b]


def _sharing(keys: NDArray[np.generic]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield all pairs of positions (a, b), a < b, with the same key, many at a time."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    places = np.arange(len(keys))
    for distance in range(1, len(keys)):
        places = places[: np.searchsorted(places, len(keys) - distance)]
        places = places[ordered[places] == ordered[places + distance]]
        if not len(places):
            return
        yield order[places], order[places + distance]


def _runs(keys: NDArray[np.generic]) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of each key that occurs more than once, ascending."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(keys) else order
    ends = np.append(starts[1:], len(keys))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        yield order[start:end]

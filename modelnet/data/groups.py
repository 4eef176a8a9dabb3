"""Which images must stay on one side of a split: exact copies, near copies, and groups that a person names."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from modelnet.data.split_table import image_names
from pipeline.errors import OptionsError, SourceError
from pipeline.format.duplicates import digest_items, near_edges
from pipeline.format.header import describe_shard
from pipeline.format.paths import base_path
from pipeline.format.sharded import Reader, ShardedReader, open_reader
from pipeline.format.tables import blank_images
from pipeline.source.tables.match import values_of_cache
from pipeline.text import counted, show_path

_CROWD = 4096  # hashes that share a band of bits are compared one by one up to here: faster than to divide them
_MOST_EDGES = 4_000_000  # that are kept before they are merged


@dataclass(frozen=True)
class NamedGroups:
    """Groups that a table or a pattern names.

    Attributes:
        kind: names what they are, "patient".
        codes: (N,) int64, the position in `names` of each image's group; -1 where it has none.
        names: of the groups.
        notes: what a person should know of them.
    """

    kind: str
    codes: NDArray[np.int64]
    names: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Groups:
    """The images of a cache in groups that stay together; an image that stands alone is a group of one.

    Attributes:
        of: (N,) int64, each image's group, 0..G-1.
        sizes: (G,) int64, the number of its images.
        names: (G,) empty where an image stands alone.
        keys: (G,) from which the side of a group follows: its name, or the smallest SHA-256 of its images. So a group
            keeps its side when other images come.
    """

    of: NDArray[np.int64]
    sizes: NDArray[np.int64]
    names: list[str]
    keys: list[str]

    def __len__(self) -> int:
        return len(self.sizes)


def open_to_divide(path: Path) -> Reader:
    """Open a cache, or all shards of one.

    Raises:
        OptionsError: it is one shard of several, so copies of its images may be in the others.
        CacheError: the cache cannot be used.
    """
    reader = open_reader(path)
    shard = None if isinstance(reader, ShardedReader) else reader.header.shard
    if shard is not None and shard.count > 1:
        whole = f"Give all of them: {show_path(base_path(reader.path))}"
        raise OptionsError("a part of a cache is not divided", reader.path, f"it is {describe_shard(shard)}", whole)
    return reader


def groups_by_table(reader: Reader, path: Path, column: str) -> NamedGroups:
    """Return the groups that a column of a table gives to the images of a cache.

    Raises:
        SourceError, TableDamaged, AccessDenied, WorkerDied, StorageError: as `values_of_cache`.
    """
    matched = values_of_cache(reader, path, column, flag="--group")
    names = matched.column.texts
    codes = matched.codes
    notes = list(matched.notes())
    if "" in names:
        empty = codes == names.index("")
        notes += [f"{counted(int(empty.sum()), 'image')} without {column}: each is a group of its own"] * bool(
            empty.any()
        )
        codes = np.where(empty, -1, codes)
    return NamedGroups(column, codes, names, notes)


def groups_by_pattern(reader: Reader, pattern: str) -> NamedGroups:
    """Return the groups by what a regular expression finds in "class/name": its group 1, or else the whole match.

    Raises:
        OptionsError: it is no regular expression.
        SourceError: it matches no image.
    """
    try:
        search = re.compile(pattern).search
    except re.error as error:
        raise OptionsError(
            "--group-by cannot be used", None, f"{pattern!r} is no regular expression", str(error)
        ) from error
    codes, position = np.full(reader.num_images, -1), dict[str, int]()
    labels = reader.table("labels").tolist()
    for row, (label, name) in enumerate(zip(labels, reader.table("filenames").tolist(), strict=True)):
        if found := search(f"{reader.class_ids[label]}/{os.fsdecode(name)}"):
            text = (found[1] or found[0]) if found.re.groups else found[0]
            if text:  # an expression as "x*" matches everywhere, and finds nothing
                codes[row] = position.setdefault(text, len(position))
    alone = np.flatnonzero(codes < 0)
    if len(alone) == len(codes):
        first = image_names(reader, alone[:1])
        advice = f"It is searched in names like {first[0]}" if first else ""
        raise SourceError("the images cannot be grouped", reader.path, f"{pattern!r} is in none of their names", advice)
    notes = (
        [f"{counted(len(alone), 'image')} without a match of {pattern!r}: each is a group of its own"]
        if len(alone)
        else []
    )
    return NamedGroups("name", codes, list(position), notes)


def near_copies(reader: Reader) -> NDArray[np.int64]:
    """Return (N,) int64, the number of each image's set of near copies; copies of copies are in one set.

    All stored hashes are compared. Blank images all look alike, so each is a set of its own.
    """
    alone = blank_images(reader.notes, reader.num_images)
    hashes, inverse = np.unique(reader.table("image_hash"), return_inverse=True)
    # a blank image may have the hash of another one: only hashes of images that are not blank are compared
    used = np.unique(inverse[~alone])
    joined = connected(len(used), near_edges(hashes[used], _CROWD))
    number = np.zeros(len(hashes), np.int64)
    number[used] = joined
    return np.where(alone, len(used) + np.arange(len(alone)), number[inverse])


def equal_pixels(reader: Reader) -> NDArray[np.int64]:
    """Return (N,) int64, the number of each image's set of images with the same decoded pixels."""
    pixels = np.stack([reader.table("row_hash"), reader.table("image_hash")], axis=1)
    return np.unique(pixels, axis=0, return_inverse=True)[1].ravel()


def group_images(reader: Reader, named: Sequence[NamedGroups] = (), near: NDArray[np.int64] | None = None) -> Groups:
    """Join images that share a content, decoded pixels, a named group or, where `near` is given, a look.

    Args:
        reader: of the cache.
        named: groups that a person names; an image may be in one of each.
        near: (N,) int64, from `near_copies`.
    """
    digests = digest_items(reader.table("source_sha256"))
    order = np.argsort(digests, kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    codes = [np.unique(digests, return_inverse=True)[1], equal_pixels(reader)]
    codes += [groups.codes for groups in named] + ([] if near is None else [near])
    of = connected(reader.num_images, map(_sharing, codes))
    sizes = np.bincount(of)
    first = [digests[row].tobytes().hex() for row in order[_least(of, rank, len(sizes))].tolist()]
    names = [f"copies-{digest[:16]}" if size > 1 else "" for digest, size in zip(first, sizes.tolist(), strict=True)]
    keys = first
    kinds = [groups.kind for groups in named]
    for number, groups in reversed(list(enumerate(named))):
        again = kinds[:number].count(groups.kind)  # two tables may both have a column of this name
        kind = f"{groups.kind}{f'-{again + 1}' if again else ''}=" if len(named) > 1 else ""
        ordered = sorted(range(len(groups.names)), key=groups.names.__getitem__)
        place = np.empty(len(ordered), np.int64)
        place[ordered] = np.arange(len(ordered))
        rows = np.flatnonzero(groups.codes >= 0)
        least = _least(of[rows], place[groups.codes[rows]], len(sizes))
        for group in np.flatnonzero(least < len(ordered)).tolist():
            names[group] = keys[group] = kind + groups.names[ordered[least[group]]]
    return Groups(of, sizes, names, keys)


def connected(count: int, edges: Iterable[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> NDArray[np.int64]:
    """Return (count,) int64, the number of each node's connected component.

    Args:
        count: of nodes.
        edges: pairs of nodes, many at a time.
    """
    of, waiting, size = np.arange(count), list[tuple[NDArray[np.int64], NDArray[np.int64]]](), 0
    for edge in edges:
        if len(edge[0]):
            waiting.append(edge)
            size += len(edge[0])
        if size > _MOST_EDGES:
            of, waiting, size = _merged(of, waiting), [], 0
    return _merged(of, waiting)


def _merged(of: NDArray[np.int64], edges: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> NDArray[np.int64]:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    a, b = (of[np.concatenate([edge[side] for edge in edges] or [of[:0]])] for side in (0, 1))
    graph = coo_array((np.ones(len(a), bool), (a, b)), shape=(len(of), len(of)))
    found: NDArray[np.int64] = connected_components(graph, directed=False)[1][of].astype(np.int64)
    return found


def _sharing(codes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return an edge from the first image of each code to every image that has it; -1 is no code."""
    rows = np.flatnonzero(codes >= 0)
    _, first, inverse = np.unique(codes[rows], return_index=True, return_inverse=True)
    return rows[first][inverse], rows


def _least(of: NDArray[np.int64], values: NDArray[np.int64], groups: int) -> NDArray[np.int64]:
    """Return (groups,) int64, the smallest value of each group; a huge one where it has none."""
    least = np.full(groups, np.iinfo(np.int64).max)
    np.minimum.at(least, of, values)
    return least

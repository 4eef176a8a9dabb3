"""Choose how many shards a cache has, and which of them are built."""

import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.build.output import refuse_place
from pipeline.errors import OutputError
from pipeline.format.header import MOST_SHARDS
from pipeline.format.paths import shards_at, shards_pattern
from pipeline.source.partition import shards_for


@dataclass(frozen=True)
class ShardChoice:
    """The shards that a build was asked for.

    Attributes:
        shards: number of shards.
        rows_per_shard: chooses the number at the first build; later builds keep it.
        only: build only this shard.

    Raises:
        ValueError: impossible numbers.
    """

    shards: int | None = None
    rows_per_shard: int | None = None
    only: int | None = None

    def __post_init__(self) -> None:
        if (self.shards is None) == (self.rows_per_shard is None):
            raise ValueError("the number of shards is needed, or the rows a shard, and not both")
        for name, number in (("shards", self.shards), ("rows a shard", self.rows_per_shard)):
            if number is not None and number < 1:
                raise ValueError(f"the number of {name} is 1 or more, not {number}")
        if (self.shards or 0) > MOST_SHARDS:
            raise ValueError(f"a set has at most {MOST_SHARDS} shards, not {self.shards}")
        if self.only is not None and not 0 <= self.only < (self.shards or 0):
            raise ValueError(f"a shard of {self.shards or 'a set'} is 0 to {(self.shards or 1) - 1}, not {self.only}")

    @classmethod
    def of(cls, shards: int | None, rows_per_shard: int | None, shard: str | None) -> "ShardChoice | None":
        """Read the options of the command line; None without any about shards.

        Args:
            shards, rows_per_shard: as above.
            shard: "3/64".

        Raises:
            ValueError: impossible numbers.
        """
        if shard is None:
            return None if shards is None and rows_per_shard is None else cls(shards, rows_per_shard)
        index, _, count = shard.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise ValueError(f"--shard is a number and how many there are, as in 3/64, not {shard!r}")
        if shards not in (None, int(count)) or rows_per_shard is not None:
            raise ValueError("--shard I/K says how many shards there are; leave out --shards and --rows-per-shard")
        return cls(int(count), None, int(index))


def choose_count(path: Path, choice: ShardChoice, images: int) -> int:
    """Return the number of the shards that are there, or else the number to build.

    Raises:
        OutputError: there are shards of another number, or a whole cache of that name.
    """
    what = "the cache cannot be created"
    there = list(shards_at(path))
    count = choice.shards or (there[0] if there else shards_for(images, choice.rows_per_shard or 1))
    if other := [number for number in there if number != count]:
        why = f"there is a set of {other[0]} shards of that name, {shards_pattern(path, other[0]).name}"
        raise OutputError(what, path, why, f"Give --shards {other[0]} or another --out, or delete those files")
    if os.path.lexists(path) and not there:
        refuse_place(path)
        why = "there is a cache of that name in one file"
        raise OutputError(what, path, why, "Give another --out, or delete that file")
    return count

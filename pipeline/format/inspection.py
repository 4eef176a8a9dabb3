"""Inspect the images of a cache: copies, near copies, images that are tiny, blank or of several frames."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from pipeline.format.duplicates import exact_groups
from pipeline.format.sharded import Reader
from pipeline.text import show_path, titled_lines


def inspect_images(reader: Reader) -> "Inspection":
    """Inspect the images of a cache, by its tables."""

    def name(row: int) -> str:
        return image_name(reader.class_folders[int(reader.table("labels")[row])], reader.table("filenames")[row])

    return Inspection(
        same_content=[[name(row) for row in group] for group in exact_groups(reader.table("source_sha256"))],
        nearly_alike=[(name(a), name(b)) for a, b in reader.table("alike").tolist()],
        notes=[(name(row), note) for row, note in reader.notes],
    )


@dataclass
class Inspection:
    """Images to look at before training on them; names are "class/name".

    Attributes:
        same_content: groups of images whose files have the same bytes.
        nearly_alike: pairs that look alike (copies that were scaled or compressed again), at most 10,000.
        notes: (image, note): tiny, blank, animated, of several pages.
    """

    same_content: list[list[str]] = field(default_factory=list)
    nearly_alike: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)

    def summary(self) -> str:
        """Return one line; empty if there is nothing to see."""
        parts = [
            (len(self.same_content), "group", "groups", " with the same content"),
            (len(self.nearly_alike), "pair", "pairs", " nearly alike"),
            (len(self.notes), "tiny, blank or of several frames", "tiny, blank or of several frames", ""),
        ]
        return ", ".join(f"{n} {one if n == 1 else many}{rest}" for n, one, many, rest in parts if n)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, as `info --json` shows them."""
        return {"same_content": self.same_content, "nearly_alike": self.nearly_alike, "remarks": self.notes}

    def lines(self) -> Iterator[str]:
        """Yield all entries, a line each."""
        yield from titled_lines("same content", [" = ".join(map(show_path, group)) for group in self.same_content])
        yield from titled_lines("nearly alike", [" ~ ".join(map(show_path, pair)) for pair in self.nearly_alike])
        yield from titled_lines("remarkable", [f"{show_path(name)}: {note}" for name, note in self.notes])


def image_name(folder: bytes, name: bytes) -> str:
    """Return the name of an image: "class/name"."""
    return os.fsdecode(folder + b"/" + name)

"""Which classes of a source are cached, how many images of each, and what a person calls them."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.source.collected import Files, Found
from pipeline.text import shorten, show_path

LONGEST_NAME = 200  # characters of a class's readable name
_SHOWN = 5


@dataclass(frozen=True)
class Choice:
    """Which classes of a source are cached, and how many images of each.

    A class of several folders is as if they lay in a folder of its name: its images are named "folder/image".

    Attributes:
        classes: folders, each a class; where these and `merged` are empty, all folders are.
        merged: classes made of folders: (name, folders).
        per_class: images of each class at most; a hash of class and name decides which, so that images that are
            added push out few, and a smaller number takes a part of what a larger one takes. None for all.

    Raises:
        ValueError: a folder or a class is named twice, or `per_class` is no number from 1.
    """

    classes: tuple[str, ...] = ()
    merged: tuple[tuple[str, tuple[str, ...]], ...] = ()
    per_class: int | None = None

    def __post_init__(self) -> None:
        if self.per_class is not None and self.per_class < 1:
            raise ValueError(f"per_class is a number of images from 1, not {self.per_class}")
        names = [*self.classes, *(name for name, _ in self.merged)]
        folders = [*self.classes, *(folder for _, several in self.merged for folder in several)]
        if "" in names or "" in folders or not all(folders for _, folders in self.merged):
            raise ValueError("a class or folder without a name")
        for kind, values in (("class", names), ("folder", folders)):
            for value in values:
                if values.count(value) > 1:
                    raise ValueError(f"the {kind} {value} is asked for twice")
                if "/" in value or value in (".", ".."):
                    raise ValueError(f"the {kind} {value} is no name of a folder")

    @property
    def folders(self) -> frozenset[bytes] | None:
        """The class folders to be read; None for all."""
        folders = [*self.classes, *(folder for _, several in self.merged for folder in several)]
        return frozenset(map(os.fsencode, folders)) if folders else None


def parse_choice(classes: str | None, merged: Sequence[str], per_class: int | None) -> Choice:
    """Read what was typed: "n03873416,n01728572", and for each class of several "snake=n01728572,n01740131".

    Raises:
        ValueError: it is not of that form.
    """
    for text in merged:
        if "=" not in text:
            raise ValueError(f"--class takes NAME=FOLDER,FOLDER,…, not {text!r}; for single folders there is --classes")
    several = [text.partition("=") for text in merged]
    return Choice(
        classes=tuple(classes.split(",")) if classes is not None else (),
        merged=tuple((name, tuple(folders.split(","))) for name, _, folders in several),
        per_class=per_class,
    )


def refuse_missing(found: Found, choice: Choice, where: "str | os.PathLike[str]") -> None:
    """See that every class that was asked for is there.

    Raises:
        SourceError: says which are not, and what there is.
    """
    missing = (choice.folders or frozenset()) - set(found.files)
    if missing:
        what = "class" if len(missing) == 1 else "classes"
        there = _some(set(found.files) | found.unwanted) or "none"
        why = f"it has no {what} {_some(missing)}; there are {there}"
        raise SourceError("no images to read", where, why, "A class is the name of its folder")


def _some(folders: Collection[bytes]) -> str:
    return shorten([show_path(folder) for folder in sorted(folders)], _SHOWN)


def merge_classes(found: Found, choice: Choice) -> None:
    """Leave in `found` the classes that were chosen, under their names; those of several folders put together."""
    if choice.folders is None:
        return
    files = {os.fsencode(name): found.files[os.fsencode(name)] for name in choice.classes}
    owners = {folder: name for name, folders in choice.merged for folder in folders}
    for name, folders in choice.merged:
        merged = files[os.fsencode(name)] = Files()
        for folder in sorted(map(os.fsencode, folders)):
            merged.add_all(found.files[folder], folder)
    found.failed = [
        f._replace(class_id=owners[str(f.class_id)], name=f"{f.class_id}/{f.name}") if str(f.class_id) in owners else f
        for f in found.failed
    ]
    found.files = files


def choose(folder: bytes, names: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """Return the positions, in order, of the `count` names that a hash of class and name puts first."""
    if len(names) <= count:
        return np.arange(len(names))
    hashes = np.array([xxhash.xxh3_64_intdigest(folder + b"/" + name) for name in names], np.uint64)
    return np.sort(np.argsort(hashes, kind="stable")[:count])

"""Choose classes of a source, and how many images of each, from Python or as typed on the command line."""

import os
import re
import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np
import xxhash
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.source.collected import ClassImages, Collected
from pipeline.source.tables.labels import Labels
from pipeline.text import shorten, show_path

LONGEST_NAME = 200  # characters of a class's readable name
_SHOWN = 5


@dataclass(frozen=True)
class Choice:
    """A choice of classes, and of how many images of each are cached.

    A class made of several folders has the images that a folder holding them would have, named "folder/image".

    Attributes:
        classes: folders, each a class; where these and `merged` are empty, all folders are.
        merged: classes made of folders: (name, folders).
        labels: where the classes are, if not in folders.
        per_class: the most images of each class; None for all. A hash of class and name chooses them. So added images
            replace few of the chosen ones, and a smaller number chooses a subset of those of a larger one.

    Raises:
        ValueError: a folder or a class is named twice, or `per_class` is no number from 1.
    """

    classes: tuple[str, ...] = ()
    merged: tuple[tuple[str, tuple[str, ...]], ...] = ()
    per_class: int | None = None
    labels: Labels = field(default_factory=Labels)

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
                if set(value) & set("/\0") or value in (".", ".."):
                    raise ValueError(f"the {kind} {show_path(value)} is no name of a folder")

    @property
    def folders(self) -> frozenset[bytes] | None:
        """The class folders to be read; None for all."""
        folders = [*self.classes, *(folder for _, several in self.merged for folder in several)]
        return frozenset(map(os.fsencode, folders)) if folders else None


def parse_choice(
    classes: str | None, merged: Sequence[str], per_class: int | None, labels: Labels | None = None
) -> Choice:
    """Parse the options --classes, "n03873416,n01728572", and --class, "snake=n01728572,n01740131".

    A name that holds a comma, or as a class's name "=", is put in double quotes, or a backslash before the character.

    Raises:
        ValueError: it is not of that form.
    """
    several = [_parse(text, ",=") for text in merged]
    for text, marked in zip(merged, several, strict=True):
        if ("=", True) not in marked:
            raise ValueError(f"--class takes NAME=FOLDER,FOLDER,…, not {text!r}; for single folders there is --classes")
    ends = [marked.index(("=", True)) for marked in several]
    return Choice(
        classes=_split(_parse(classes, ",")) if classes is not None else (),
        merged=tuple((_text(m[:end]), _split(m[end + 1 :])) for m, end in zip(several, ends, strict=True)),
        per_class=per_class,
        labels=labels or Labels(),
    )


_Marked = list[tuple[str, bool]]  # characters, and whether each separates names


def _parse(text: str, separators: str) -> _Marked:
    """Mark the characters that separate names; quotes and backslashes that only protect them are taken away."""
    marked: _Marked = []
    quoted, rest = False, iter(text)
    for character in rest:
        begins = not marked or marked[-1][1]
        if quoted and character == '"':
            quoted = False
        elif begins and not quoted and character == '"':
            quoted = True
        elif character == "\\":
            following = next(rest, "")
            marked += [("\\", False)] if following not in tuple(',="\\') else []
            marked += [(following, False)] if following else []
        else:
            marked.append((character, not quoted and character in separators))
    if quoted:
        raise ValueError(f"a quote is not closed in {text!r}")
    return marked


def _text(marked: _Marked) -> str:
    return "".join(character for character, _ in marked)


def _split(marked: _Marked) -> tuple[str, ...]:
    ends = [position for position, mark in enumerate(marked) if mark == (",", True)]
    return tuple(_text(marked[a:b]) for a, b in zip([0, *(end + 1 for end in ends)], [*ends, None], strict=True))


def typed_classes(folders: Collection[bytes]) -> str:
    """Return how `--classes` is typed for these folders, in a shell."""
    names = [show_path(folder) for folder in sorted(folders)]
    quoted = [f'"{name}"' if "," in name else name for name in names[:_SHOWN]]
    if any('"' in name or "\\" in name for name in names):
        quoted = [re.sub(r'([,"\\])', r"\\\1", name) for name in names[:_SHOWN]]
    return "--classes " + shlex.quote(",".join(quoted) + (",…" if len(names) > _SHOWN else ""))


def refuse_missing(collected: Collected, choice: Choice, where: "str | os.PathLike[str]") -> None:
    """Refuse a choice of classes that the source does not have.

    Raises:
        SourceError: names the missing classes, and those that are there.
    """
    missing = (choice.folders or frozenset()) - set(collected.files)
    if missing:
        what = "class" if len(missing) == 1 else "classes"
        there = _shortened(set(collected.files) | collected.unwanted) or "none"
        why = f"it has no {what} {_shortened(missing)}; there are {there}"
        odd = any(b"," in folder for folder in collected.unwanted)
        advice = "; put a name with a comma in double quotes" if odd else ""
        what = "a label of the table" if collected.uses_labels else "the name of its folder"
        raise SourceError("no images to read", where, why, f"A class is {what}{advice}")


def _shortened(folders: Collection[bytes]) -> str:
    return shorten([show_path(folder) for folder in sorted(folders)], _SHOWN)


def merge_classes(collected: Collected, choice: Choice) -> None:
    """Keep only the chosen classes, under their names, and merge those made of several folders."""
    if choice.folders is None:
        return
    files = {os.fsencode(name): collected.files[os.fsencode(name)] for name in choice.classes}
    owners = {folder: name for name, folders in choice.merged for folder in folders}
    for name, folders in choice.merged:
        merged = files[os.fsencode(name)] = ClassImages()
        for folder in sorted(map(os.fsencode, folders)):
            merged.add_all(collected.files[folder], folder)
    collected.failed = [
        f._replace(class_id=owners[str(f.class_id)], name=f"{f.class_id}/{f.name}") if str(f.class_id) in owners else f
        for f in collected.failed
    ]
    collected.files = files


def choose(folder: bytes, names: Sequence[bytes], count: int) -> NDArray[np.int64]:
    """Return the positions, in order, of the `count` names that a hash of class and name puts first."""
    if len(names) <= count:
        return np.arange(len(names))
    hashes = np.array([xxhash.xxh3_64_intdigest(folder + b"/" + name) for name in names], np.uint64)
    return np.sort(np.argsort(hashes, kind="stable")[:count])

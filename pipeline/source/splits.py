"""Refuse training, validation and test images that lie together: mixed, nothing could be validated."""

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable

from pipeline.errors import SourceError
from pipeline.source.contents import Contents
from pipeline.source.selection import typed_classes
from pipeline.text import show_path

_NAMES = {
    b"train": (b"train", b"training"),
    b"val": (b"val", b"valid", b"validation"),
    b"test": (b"test", b"testing"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
_WORD = re.compile(rb"[a-z]+")
_NO_CLASSES = "no classes to read"


def refuse_split_folders(contents: Contents, prefix: bytes) -> None:
    """Refuse a source with two or more folders, side by side at any depth, that are named as splits are.

    Args:
        contents: of the source.
        prefix: the folder of its class folders, "" or "folder/".

    Raises:
        SourceError: names them, and what to build instead.
    """
    splits: dict[bytes, set[bytes]] = defaultdict(set)
    for folder in contents.image_folders:
        while folder and folder.startswith(prefix):
            outer, _, name = folder.rpartition(b"/")
            if name.lower() in _SPLIT_OF:
                splits[outer].add(name)
            folder = outer
    for folder in contents.folders:
        outer, _, name = folder.rpartition(b"/")
        if name.lower() in _SPLIT_OF and outer in splits:
            splits[outer].add(name)
    outer, names = min(splits.items(), key=lambda item: (len(item[1]) < 2, item[0]), default=(b"", set[bytes]()))
    if len(names) > 1:
        shown = [os.path.join(outer, name) for name in sorted(names, key=_split_order)]
        why = f"it looks like {' and '.join(show_path(path) + '/' for path in shown)}"
        raise SourceError(_NO_CLASSES, contents.where, why, _advice(contents, prefix, outer, shown))


def _split_order(name: bytes) -> tuple[int, bytes]:
    return list(_NAMES).index(_SPLIT_OF[name.lower()]), name


def _advice(contents: Contents, prefix: bytes, outer: bytes, paths: list[bytes]) -> str:
    """Say what to build, and how to name the classes if these folders are classes."""
    tops = {folder[len(prefix) :].partition(b"/")[0] for folder in contents.image_folders if folder.startswith(prefix)}
    tops.discard(b"")
    first = show_path(os.path.join(os.fsencode(contents.where), paths[0]))
    if outer == prefix[:-1]:
        return f"Build each: build-cache {first}. If they are classes, name them: {typed_classes(tops)}"
    if len(tops) == 1:
        return f"Build each: build-cache {first}. If {show_path(outer)} is a class, name it: {typed_classes(tops)}"
    splits = " and ".join(f"{show_path(path.rpartition(b'/')[2])}/CLASS/" for path in paths)
    return f"Sort the images into {splits}, and build each; to build all together: {typed_classes(tops)}"


def refuse_split_archives(archives: Iterable[bytes], where: str, wanted: Collection[bytes] | None = None) -> None:
    """Refuse archives whose names say that some are to train on and others to validate on.

    Args:
        archives: their paths; a word of the name decides: imagenet1k-train-0003.tar.
        where: the folder or archive that holds them, for errors.
        wanted: the classes asked for: archives of these names are classes.

    Raises:
        SourceError: names one archive of each split.
    """
    examples: dict[bytes, bytes] = {}
    for path in sorted(archives):
        name = path.rpartition(b"/")[2]
        if wanted is None or os.path.splitext(name)[0] not in wanted:
            for word in _WORD.findall(name.lower()):
                if word in _SPLIT_OF:
                    examples.setdefault(_SPLIT_OF[word], name)
    if len(examples) > 1:
        raise SourceError(
            _NO_CLASSES,
            where,
            f"it holds archives of several sources: {' and '.join(map(show_path, sorted(examples.values())))}",
            "Build each; where it is of several archives, put them, or links to them, into a folder of its own",
        )

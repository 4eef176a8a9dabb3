"""Refuse training, validation and test images that lie together: mixed, nothing could be validated."""

import os
import re
import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable

from pipeline.errors import SourceError
from pipeline.source.contents import Contents
from pipeline.source.selection import typed_classes
from pipeline.text import show_path

_NAMES = {
    b"train": (b"train", b"training"),
    b"val": (b"val", b"valid", b"validation", b"dev", b"eval"),
    b"test": (b"test", b"testing"),
}
_SPLIT_OF = {name: split for split, names in _NAMES.items() for name in names}
_WORD = re.compile(rb"[a-z]+")
_SAYS_NOTHING = {b"set", b"sets", b"data", b"dataset", b"images", b"imgs", b"img", b"photos", b"split"}
_PLAIN = re.compile(rb"[a-z0-9 ._-]+")
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
            if _split_of(name):
                splits[outer].add(name)
            folder = outer
    for folder in contents.folders:
        outer, _, name = folder.rpartition(b"/")
        if outer in splits and _split_of(name):
            splits[outer].add(name)
    several = [(outer, names) for outer, names in sorted(splits.items()) if _are_several(names)]
    for outer, names in several[:1]:
        shown = [os.path.join(outer, name) for name in sorted(names, key=_split_order)]
        why = f"it looks like {' and '.join(show_path(path) + '/' for path in shown)}"
        raise SourceError(_NO_CLASSES, contents.where, why, _advice(contents, prefix, outer, shown))


def _split_of(name: bytes) -> bytes:
    """Return the split that a folder is named as, like train, Train2017 or test_set; empty for other names."""
    if not _PLAIN.fullmatch(name.lower()):
        return b""
    words = set(_WORD.findall(name.lower())) - _SAYS_NOTHING
    return _SPLIT_OF.get(words.pop(), b"") if len(words) == 1 else b""


def is_test_folder(path: bytes) -> bool:
    """Tell a folder that is, or lies in one that is named as that of test images: test, test_images."""
    return any(_split_of(name) == b"test" for name in path.split(b"/"))


def _are_several(names: set[bytes]) -> bool:
    """Tell different splits, or plain names of splits; but train1 and train2 may be classes."""
    return len(set(map(_split_of, names))) > 1 or sum(name.lower() in _SPLIT_OF for name in names) > 1


def _split_order(name: bytes) -> tuple[int, bytes]:
    return list(_NAMES).index(_split_of(name)), name


def _advice(contents: Contents, prefix: bytes, outer: bytes, paths: list[bytes]) -> str:
    """Say what to build, and how to name the classes if these folders are classes."""
    tops = {folder[len(prefix) :].partition(b"/")[0] for folder in contents.image_folders if folder.startswith(prefix)}
    tops.discard(b"")
    first = shlex.quote(show_path(os.path.join(os.fsencode(contents.where), paths[0])))
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
            "Build each by itself. If one has several archives, put them, or links to them, into a folder of their own",
        )

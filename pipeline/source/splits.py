"""Training, validation and test images that lie together are several sources: mixed, nothing could be validated."""

import re
from collections.abc import Iterable

from pipeline.errors import SourceError
from pipeline.text import show_path

_KINDS = {
    b"train": (b"train", b"training"),
    b"val": (b"val", b"valid", b"validation"),
    b"test": (b"test", b"testing"),
}
_KIND_OF = {word: kind for kind, words in _KINDS.items() for word in words}
_WORD = re.compile(rb"[a-z]+")


def all_are_splits(folders: Iterable[bytes]) -> bool:
    """Tell whether these are called train, val and the like, and nothing else."""
    return all(folder.lower() in _KIND_OF for folder in folders)


def refuse_splits(archives: Iterable[bytes], where: str) -> None:
    """Refuse archives whose names say that some are to train on and others to validate on.

    Args:
        archives: their paths; a word of the name decides: imagenet1k-train-0003.tar.
        where: they lie.

    Raises:
        SourceError: it names one of each kind.
    """
    examples: dict[bytes, bytes] = {}
    for path in sorted(archives):
        name = path.rpartition(b"/")[2]
        words = _WORD.findall(name.lower())
        for kind in {_KIND_OF[word] for word in words if word in _KIND_OF}:
            examples.setdefault(kind, name)
    if len(examples) > 1:
        shown = " and ".join(map(show_path, sorted(examples.values())))
        raise SourceError(
            "no classes to read",
            where,
            f"it holds archives of several sources: {shown}",
            "Build each; where it is of several archives, put them, or links to them, into a folder of its own",
        )

"""How the names within an archive say what its classes are."""

import json
import os

from pipeline.source.archive_index import Listing
from pipeline.source.collected import hidden

KAGGLE = b"ILSVRC/Data/CLS-LOC/train"  # of ImageNet as Kaggle distributes it
_LONGEST_CLASS = 255  # bytes, as of a folder


def class_folders_below(listing: Listing, inside: bytes) -> tuple[bytes, set[bytes]]:
    """Find the folder that holds the class folders, and all of these, also those without images.

    It is `inside` where that is given, else that of Kaggle's layout, else the outermost one that is not just a
    single folder around folders.

    Returns:
        The folder, empty or ending in "/"; the names of the class folders.
    """
    holding = {os.path.dirname(image) for image in listing.images}
    if inside:
        prefix = inside + b"/"
    elif any(folder.startswith(KAGGLE + b"/") for folder in holding):
        prefix = KAGGLE + b"/"
    else:
        prefix = b""
        tops = _tops(listing.folders, prefix)
        while len(tops) == 1 and not {prefix[:-1], prefix + min(tops)} & holding and holding:
            prefix += tops.pop() + b"/"
            tops = _tops(listing.folders, prefix)
    return prefix, _tops(listing.folders, prefix)


def _tops(folders: set[bytes], prefix: bytes) -> set[bytes]:
    below = (folder[len(prefix) :] for folder in folders if folder.startswith(prefix))
    return {top for folder in below if (top := folder.partition(b"/")[0])}


def sample_key(name: bytes) -> bytes:
    """Return what the files of a WebDataset sample have in common: the name up to its first dot."""
    folder, slash, base = name.rpartition(b"/")
    return folder + slash + base.partition(b".")[0]


def plain_name(name: bytes) -> bytes:
    """Return what an image is called that is its sample's only one: the key and one suffix."""
    return sample_key(name) + b"." + name.rpartition(b".")[2]


def label_of(data: bytes, kind: bytes) -> bytes:
    """Return the class that a `.cls`, or the "label" of a `.json`, names; empty where it names none."""
    if kind == b".json":
        try:
            found = json.loads(data)
        except ValueError:
            return b""
        value = found.get("label") if isinstance(found, dict) else None
        data = str(value).encode() if isinstance(value, int | str) and not isinstance(value, bool) else b""
    label = data.strip()
    fits = 0 < len(label) <= _LONGEST_CLASS and not hidden(label) and not set(label) & set(b"/\0\n")
    return label if fits else b""

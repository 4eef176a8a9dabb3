"""What a look at a source finds, before it is put in order, and which names are those of images."""

import os
from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import show_path
from pipeline.sources import SUFFIXES, Failed, Stat

OUTSIDE = "outside a class folder"
NOT_REGULAR = "not a regular file"


class Files:
    """The images of one class folder, in columns."""

    def __init__(self) -> None:
        self.names: list[bytes] = []
        self.stats = array("q")

    def sorted(self) -> tuple[list[bytes], NDArray[np.int64]]:
        """Return names in byte order and their (n, 4) stats."""
        order = sorted(range(len(self.names)), key=self.names.__getitem__)
        return [self.names[i] for i in order], np.array(self.stats, np.int64).reshape(-1, len(Stat._fields))[order]


@dataclass
class Found:
    """Images by class folder, and what else there was; see `Scan`."""

    files: dict[bytes, Files] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    left_out_named: list[tuple[str, str]] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)


def hidden(name: bytes) -> bool:
    """Tell names that no person chose for images."""
    return name.startswith(b".") or name == b"__MACOSX"


def not_an_image_name(name: bytes) -> str:
    """Say why a file is left out by its name alone; empty where it is not."""
    if name.startswith(b"."):
        return "hidden file"
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUFFIXES:
        return ""
    return f"suffix {show_path(suffix)}" if suffix else "no suffix"

"""The parts that are written in C, where they were compiled: no compiler, no installation, and they are not there."""

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def compiled(name: str, folder: Path = Path(__file__).parent) -> ctypes.CDLL | None:
    """Load what became of `<name>.c`, or None where it was not compiled.

    Its functions hold no interpreter lock and know nothing of Python: whoever calls them vouches for every address.
    """
    for suffix in EXTENSION_SUFFIXES:
        library = folder / f"{name}{suffix}"
        if library.is_file():
            return ctypes.CDLL(str(library))
    return None

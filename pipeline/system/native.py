"""Load the C code, if it was compiled: without a compiler or an installation there is none."""

import ctypes
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path


def compiled(name: str, folder: Path = Path(__file__).parent) -> ctypes.CDLL | None:
    """Load the library compiled from `<name>.c`; None if it was not compiled.

    Its functions hold no interpreter lock and know nothing of Python: whoever calls them vouches for every address.
    """
    for suffix in (".so", *EXTENSION_SUFFIXES):  # as setup.py names it; as earlier versions did
        library = folder / f"{name}{suffix}"
        if library.is_file():
            return ctypes.CDLL(str(library))
    return None

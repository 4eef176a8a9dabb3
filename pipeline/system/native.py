"""Load the C code, if it was compiled: without a compiler or an installation there is none."""

import ctypes
from pathlib import Path


def compiled(name: str, folder: Path = Path(__file__).parent) -> ctypes.CDLL | None:
    """Load the library compiled from `<name>.c`; None if it was not compiled.

    Its functions hold no interpreter lock and know nothing of Python: whoever calls them vouches for every address.
    """
    library = folder / f"{name}.so"  # as setup.py names it
    return ctypes.CDLL(str(library)) if library.is_file() else None

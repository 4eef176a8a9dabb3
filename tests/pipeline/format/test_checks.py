"""Opening a cache (`checks`, `header`, `reader`) needs NumPy alone; what is refused stands in test_format_page.py."""

import subprocess
import sys
from pathlib import Path

from tests.support.command_line import REPOSITORY

OPEN = """
import sys
from pathlib import Path
import pipeline
from pipeline.format.reader import CacheReader

assert CacheReader(Path(sys.argv[1])).header.num_images == 8
assert not {"torch", "PIL", "simplejpeg", "h5py", "multiprocessing"} & sys.modules.keys(), sorted(sys.modules)
"""


def test_a_cache_is_opened_without_torch_a_decoder_or_the_hdf5_library(cache_path: Path) -> None:
    subprocess.run([sys.executable, "-c", OPEN, cache_path], cwd=REPOSITORY, check=True)

"""Opening a cache (`checks`, `header`, `reader`) needs NumPy alone; what is refused stands in test_format_page.py."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipeline import TensorCache, verify_cache
from pipeline.errors import PipelineError
from pipeline.format import reader, sharded
from pipeline.format.sharded import open_reader
from pipeline.system import files
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


TOLD = {
    errno.EACCES: (77, "permission denied"),
    errno.EMFILE: (71, r"Too many open files\. Raise the limit \(ulimit -n\)"),
    errno.ENOMEM: (71, r"Cannot allocate memory\. Raise the limits of memory \(ulimit -v, ulimit -d\)"),
    errno.ENODEV: (74, r"its file system cannot map files into memory\. Copy the cache to another one"),
    errno.EIO: (74, "Input/output error"),
}


@pytest.mark.parametrize("number", TOLD)
@pytest.mark.parametrize("where", ["open a file", "map a file", "map shards", "begin an epoch", "verify"])
def test_the_system_refuses_or_fails_with_one_text_wherever_it_does(
    where: str, number: int, copy: Path, shards_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise OSError(number, os.strerror(number))

    cache = TensorCache(copy)
    os.utime(copy, (1, 1))  # so that the next epoch reads its tables again
    path = shards_path if where == "map shards" else copy
    if where == "open a file":
        monkeypatch.setattr(files, "open_for_reading", fail)
    elif where == "map a file":
        monkeypatch.setattr("pipeline.format.reader.mmap.mmap", fail)
    elif where == "map shards":
        monkeypatch.setattr(sharded, "map_together", fail)
    elif where == "begin an epoch":
        monkeypatch.setattr(reader, "outside_digest", fail)
    code, text = TOLD[number]

    with pytest.raises(PipelineError, match=rf"the cache cannot be read: .*{path.stem}.*: {text}$") as told:
        if where == "begin an epoch":
            cache.look_again()
        elif where == "verify":
            list(verify_cache(path, progress=lambda *_: monkeypatch.setattr(files, "read_at", fail)))
        else:
            open_reader(path)
    assert told.value.exit_code == code

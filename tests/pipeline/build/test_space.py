"""A disk that turns out to be too small is refused in the same words, whatever is built (`space`)."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from pipeline import build_cache
from pipeline.build.features import write_features
from pipeline.errors import OutputError
from pipeline.format.features import Features
from pipeline.format.sharded import open_reader
from pipeline.system import files
from tests.support.builds import InThisProcess


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("content", ["images", "features"])
def test_a_file_that_the_system_does_not_let_grow_is_refused_alike(
    content: str, number: int, shared_photos: Path, cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, size: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "reserve", full)
    path, features = tmp_path / "new.h5", Features("drawn", "", 200, "0" * 64, "0" * 64)

    said = rf"new\.h5: needs [\d.]+ kB: {os.strerror(number)}\. Free some space, or give another --out$"
    with pytest.raises(OutputError, match=f"^the cache cannot be created: .*{said}"):
        if content == "images":
            build_cache(shared_photos, path, size=8, executor=InThisProcess())
        else:
            write_features(open_reader(cache_path), path, features, lambda a, b: np.ones((b - a, 200), np.float32))
    assert not [*tmp_path.glob("new.h5.[!l]*")]

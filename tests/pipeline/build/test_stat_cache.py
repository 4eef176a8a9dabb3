"""What stat data vouch for: the files and the cache that they were taken of, and nothing else."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.build import worker
from pipeline.build.build import build_cache
from pipeline.build.report import BuildReport
from pipeline.build.stat_cache import distrust, read_stats, write_stats
from pipeline.format.reader import CacheReader
from tests.support.builds import InThisProcess, note_reads
from tests.support.photos import SIZE, settle


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "c.h5"


def rebuilt(photos: Path, out: Path) -> BuildReport:
    return build_cache(photos, out, size=SIZE, executor=InThisProcess())


def refused(*_: object) -> Any:
    raise AssertionError("an image was decoded")


def test_the_numbers_that_were_written_are_read_until_they_are_distrusted(photos: Path, out: Path) -> None:
    (photos / "1" / "broken.JPEG").write_bytes(b"not a JPEG")
    rebuilt(photos, out)
    cache = CacheReader(out)
    rows, failed = np.arange(32).reshape(8, 4), np.arange(-4, 0).reshape(1, 4)

    write_stats(out, cache.header, rows, failed)

    np.testing.assert_array_equal(read_stats(cache), np.concatenate([rows, failed]))
    distrust(out)
    assert read_stats(cache) is None
    distrust(out)  # where there is none, nothing is left to do


def test_numbers_for_another_count_of_files_vouch_for_nothing(photos: Path, out: Path) -> None:
    rebuilt(photos, out)
    cache = CacheReader(out)

    write_stats(out, cache.header, np.zeros((7, 4), np.int64))

    assert read_stats(cache) is None


def change_in_secret(path: Path) -> None:
    """As `cp -p` does: same size, same mtime."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-40] ^= 0x01
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_files_written_just_before_the_build_are_read_once_more(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt(photos, out)  # the files are too new for their stat data to tell of a change within the same tick
    settle(photos)
    read = note_reads(monkeypatch)

    assert rebuilt(photos, out).up_to_date and len(read) == 8
    assert rebuilt(photos, out).up_to_date and len(read) == 8

    change_in_secret(photos / "1" / "n03874293_7.JPEG")
    assert rebuilt(photos, out).why == "class 1: 1 changed"


@pytest.mark.parametrize("harm", ["deleted", "damaged", "empty", "of another cache", "the cache was touched"])
def test_without_stat_data_every_image_is_read_and_none_decoded(
    harm: str, settled_photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt(settled_photos, out)
    stat = out.with_name("c.h5.stat")
    if harm == "deleted":
        stat.unlink()
    elif harm == "damaged":
        data = bytearray(stat.read_bytes())
        data[-30] ^= 1
        stat.write_bytes(data)
    elif harm == "empty":
        stat.write_bytes(b"")
    elif harm == "of another cache":
        rebuilt(settled_photos, tmp_path / "other.h5")
        shutil.copy(tmp_path / "other.h5.stat", stat)
    else:
        out.touch()
    read = note_reads(monkeypatch)
    monkeypatch.setattr(worker, "decode", refused)
    checked: list[int] = []
    real = CacheReader.row_is_good

    def noting(cache: CacheReader, row: int) -> bool:
        checked.append(row)
        return real(cache, row)

    monkeypatch.setattr(CacheReader, "row_is_good", noting)

    assert rebuilt(settled_photos, out).up_to_date
    assert len(read) == 9 and sorted(checked) == list(range(8))
    assert rebuilt(settled_photos, out).up_to_date and len(read) == 9

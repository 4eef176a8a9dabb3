"""Reading an image whole, and the stat data by which it is taken for unchanged later."""

import os
import time
from pathlib import Path

import pytest

from pipeline.build.build import build_cache
from pipeline.source.reader import UNSETTLED, ChangedWhileReading, Stat, read_image, stat_of
from tests.support.builds import InThisProcess, appending_read
from tests.support.photos import picture


def test_a_file_that_grows_while_it_is_read_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "changing.jpg"
    path.write_bytes(b"abc")
    monkeypatch.setattr(os, "read", appending_read(1))

    data, _ = read_image(os.fsencode(path))

    assert data == b"abc!"


def test_a_file_that_is_overwritten_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    real, before = os.read, [b"abc", b"xyz"]

    def read(fd: int, count: int) -> bytes:
        data = real(fd, count)
        if data == before[0]:
            time.sleep(0.02)  # until a change shows in the time stamps
            path.write_bytes(before[1])
        return data

    monkeypatch.setattr(os, "read", read)

    assert read_image(os.fsencode(path))[0] == b"xyz"


def test_a_file_that_changes_again_and_again_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "changing.jpg"
    path.write_bytes(b"abc")
    monkeypatch.setattr(os, "read", appending_read(1000))

    with pytest.raises(ChangedWhileReading, match="changed while reading"):
        read_image(os.fsencode(path))


def test_the_stat_of_a_file_counts_only_once_it_has_settled(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.jpg")

    assert read_image(os.fsencode(path)) == (path.read_bytes(), UNSETTLED)

    time.sleep(2.1)
    assert read_image(os.fsencode(path)) == (path.read_bytes(), stat_of(path.stat()))


def test_reading_never_blocks_on_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 2**29 + 1)

    with pytest.raises(OSError, match="not a regular file"):
        read_image(os.fsencode(tmp_path / "fifo.jpg"))
    with pytest.raises(OSError, match="not a regular file"):
        read_image(os.fsencode(tmp_path))
    with pytest.raises(OSError, match="at most 536870912 are read"):
        read_image(os.fsencode(tmp_path / "huge.jpg"))


@pytest.mark.parametrize("seconds", [2**33, 2**34, 2**40, -(2**40)])
def test_a_file_of_any_date_is_built_and_then_up_to_date(seconds: int, photos: Path, tmp_path: Path) -> None:
    image = photos / "1" / "n03874293_7.JPEG"
    try:
        os.utime(image, (seconds, seconds))
    except (OSError, OverflowError):
        pytest.skip("this file system has no such dates")

    build_cache(photos, tmp_path / "c.h5", size=8, executor=InThisProcess())

    assert build_cache(photos, tmp_path / "c.h5", size=8, executor=InThisProcess()).up_to_date


def test_inodes_and_times_of_more_than_63_bits_stay_apart() -> None:
    def stat(inode: int, nanoseconds: int) -> Stat:
        fields = {"st_size": 1, "st_mtime_ns": nanoseconds, "st_ctime_ns": 1, "st_ino": inode}
        return stat_of(type("Stat", (), fields)())

    numbers = [0, 2**63 - 1, 2**63, 2**64 - 1]
    stats = {stat(inode, when) for inode in numbers for when in (*numbers, -1 - 2**62)}

    assert len(stats) == 20
    assert all(-(2**63) <= number < 2**63 for one in stats for number in one)

"""What a file system cannot do, and what is a courtesy only, ends no build (`output`, `lock`, `partial`, `files`)."""

import errno
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial as partial_function
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import pytest
import torch

from pipeline import build_cache, build_shards
from pipeline.build import lock, partial, stat_cache
from pipeline.errors import CacheDamaged, OutputError, StorageError
from pipeline.format import reader as cache_reader
from pipeline.format.header import OPEN_FLAG
from pipeline.format.reader import CacheReader
from pipeline.inspect.verify import verify_cache
from pipeline.load.cache import TensorCache
from pipeline.system import files
from tests.support.builds import names_in
from tests.support.command_line import REPOSITORY
from tests.support.photos import SIZE


def failing(number: int) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.fixture
def cache(photos: Path, out: Path) -> Path:
    """Return a small cache of `photos`."""
    build_cache(photos, out, size=16, workers=1)
    return out


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_that_cannot_sync_or_reserve_holds_a_cache(
    number: int, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    monkeypatch.setattr(os, "posix_fallocate", failing(number))

    assert build_cache(photos, out, size=16, workers=1).warnings == []
    assert build_cache(photos, out, size=16, workers=1).up_to_date


@pytest.mark.parametrize("call", ["fsync", "posix_fallocate"])
def test_a_disk_that_fails_is_no_courtesy(call: str, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, call, failing(errno.EIO))

    with pytest.raises(StorageError):
        build_cache(photos, out, size=16, workers=1)


def test_a_resumed_file_keeps_its_size_where_it_cannot_be_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "posix_fallocate", failing(errno.EINVAL))
    fd = files.create(tmp_path / "f")
    for size, expected in ((10, 10), (5, 10), (20, 20)):
        files.reserve(fd, size)
        assert os.fstat(fd).st_size == expected
    os.close(fd)


def test_files_that_cannot_be_mapped_are_refused_before_the_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_decoding: None
) -> None:
    monkeypatch.setattr(partial, "mmap", SimpleNamespace(**vars(mmap) | {"mmap": failing(errno.ENODEV)}))

    with pytest.raises(OutputError, match=r"its file system cannot map files into memory\. Give --out") as refused:
        build_cache(photos, tmp_path / "new" / "folder" / "c.h5", size=16, workers=1)

    assert refused.value.exit_code == 73 and names_in(tmp_path) == {"photos"}


def test_a_cache_that_cannot_be_mapped_says_so(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_reader, "mmap", SimpleNamespace(**vars(mmap) | {"mmap": failing(errno.ENODEV)}))

    with pytest.raises(StorageError, match=r"its file system cannot map files into memory\. Copy the cache"):
        CacheReader(cache)


@pytest.mark.parametrize("build", [build_cache, partial_function(build_shards, shards=2)])
@pytest.mark.parametrize("what", ["lock", "room", "source"])
def test_a_build_that_fails_at_its_start_leaves_no_folder(
    what: str, build: Callable[..., Any], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if what == "lock":
        monkeypatch.setattr(lock, "_open_and_lock", failing(errno.ENOSPC))
    elif what == "room":
        monkeypatch.setattr(os, "posix_fallocate", failing(errno.ENOSPC))
    else:
        for photo in photos.rglob("*.JPEG"):
            photo.write_bytes(b"no image")

    with pytest.raises(Exception, match=r"cannot be created|none of its files") as refused:
        build(photos, tmp_path / "data" / "cache" / "c.h5", size=16, workers=1)

    assert refused.value.exit_code == (66 if what == "source" else 73)  # type: ignore[attr-defined]
    assert names_in(tmp_path) == {"photos"}


def test_who_holds_the_lock_is_said_as_a_courtesy(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_ourselves", failing(errno.ENOSPC))

    assert build_cache(photos, out, size=16, workers=1).cached == 8


@pytest.mark.parametrize("seconds", [2**34, 2**33, -(2**31)])
def test_a_file_of_any_date_is_cached_and_found_unchanged(seconds: int, photos: Path, out: Path) -> None:
    for photo in photos.rglob("*.JPEG"):
        try:
            os.utime(photo, (seconds, seconds))
        except OverflowError:
            os.utime(photo, ns=(seconds * 10**9, seconds * 10**9))

    assert build_cache(photos, out, size=16, workers=1).cached == 8
    assert build_cache(photos, out, size=16, workers=1).up_to_date


@pytest.mark.parametrize("inode", [2**63, 2**64 - 1])
def test_any_inode_fits_the_stat_file(inode: int, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.stat

    def stat(path: Path, **options: Any) -> Any:
        found = real(path, **options)
        return SimpleNamespace(
            st_size=found.st_size,
            st_ino=inode,
            st_mtime_ns=found.st_mtime_ns + 2**63,
            st_ctime_ns=found.st_ctime_ns,
            st_mode=found.st_mode,
        )

    reader = CacheReader(cache)
    stats = stat_cache.read_stats(reader)
    assert stats is not None
    monkeypatch.setattr(Path, "stat", stat)
    stat_cache.write_stats(cache, reader.header, stats)

    again = stat_cache.read_stats(reader)
    assert again is not None and (again == stats).all()


def test_a_program_that_opens_a_cache_to_write_does_no_harm(cache: Path) -> None:
    """Case 29: the HDF5 library sets a bit while the file is open, and changes its times."""
    tensors = TensorCache(cache)
    first = tensors.read(torch.arange(2)).clone()
    before = cache.read_bytes()

    with h5py.File(cache, "r+"):
        assert [i for i, (a, b) in enumerate(zip(before, cache.read_bytes(), strict=True)) if a != b] == [OPEN_FLAG]
        assert CacheReader(cache).num_images == 8
        tensors.look_again()
        assert (tensors.read(torch.arange(2)) == first).all()
    tensors.look_again()

    assert (tensors.read(torch.arange(2)) == first).all() and cache.read_bytes() == before
    assert list(verify_cache(cache)) == []


def test_a_program_that_was_killed_leaves_its_bit_and_the_cache_is_whole(photos: Path, cache: Path) -> None:
    data = bytearray(cache.read_bytes())
    data[OPEN_FLAG] |= 1
    cache.write_bytes(data)

    assert CacheReader(cache).num_images == 8
    assert list(verify_cache(cache)) == []
    assert build_cache(photos, cache, workers=1).up_to_date


@pytest.mark.parametrize("bit", range(1, 8))
def test_any_other_bit_of_that_byte_is_damage(bit: int, cache: Path) -> None:
    data = bytearray(cache.read_bytes())
    data[OPEN_FLAG] |= 1 << bit
    cache.write_bytes(data)

    with pytest.raises(CacheDamaged):
        CacheReader(cache)


@pytest.mark.parametrize("blocks", [1, 100, 800])
def test_a_limit_of_file_sizes_is_met_before_any_decoding(blocks: int, photos: Path, tmp_path: Path) -> None:
    """`ulimit -f`: blocks of 1 KiB; the cache needs more than 800."""
    cli = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", str(photos), "--size", str(SIZE * 2)]
    limited = ["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "bash", *cli, "--out", str(tmp_path / "d" / "c.h5")]

    ended = subprocess.run(limited, capture_output=True, text=True)

    assert ended.returncode == 73 and "File too large" in ended.stderr and ended.stderr.count("\n") == 1, ended.stderr
    assert names_in(tmp_path) == {"photos"}

"""A cache of features: what is said where it fails or is damaged (`features`, `output`, `header`)."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import TensorCache, verify_cache
from pipeline.build.features import write_features
from pipeline.build.output import storage_errors
from pipeline.errors import CacheDamaged, PipelineError
from pipeline.format.features import Features
from pipeline.format.header import IMAGES_OFFSET
from pipeline.format.sharded import open_reader
from pipeline.system import files
from tests.support.command_line import RunCli

LENGTH = 200


def write(images: Path, path: Path) -> None:
    features = Features("drawn", "", LENGTH, "0" * 64, "0" * 64)
    write_features(open_reader(images), path, features, lambda a, b: np.ones((b - a, LENGTH), np.float32))


@pytest.fixture
def features_path(cache_path: Path, tmp_path: Path) -> Path:
    """Return a cache of features of `cache_path`."""
    write(cache_path, tmp_path / "f.h5")
    return tmp_path / "f.h5"


def damage(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("content", "number", "code", "text"),
    [
        ("images", errno.ENOSPC, 74, "No space left on device. Fix it, then run build-cache again; it continues where"),
        ("features", errno.ENOSPC, 74, "No space left on device. Fix it, then run build-features again; it begins"),
        ("images", errno.EMFILE, 71, "Raise the limit (ulimit -n), or use fewer --workers, and run build-cache again"),
        ("features", errno.EMFILE, 71, "Raise the limit (ulimit -n) and run build-features again"),
        ("images", errno.EAGAIN, 71, "Raise the limit (ulimit -u), or use fewer --workers, and run build-cache again"),
        ("features", errno.ENOMEM, 71, "Raise the limit (ulimit -v, ulimit -d) and run build-features again"),
    ],
)
def test_a_build_that_the_system_stops_names_the_command_that_goes_on(
    content: str, number: int, code: int, text: str
) -> None:
    with pytest.raises(PipelineError) as told, storage_errors(Path("c.h5"), content):
        raise OSError(number, os.strerror(number))

    assert told.value.exit_code == code and text in str(told.value)


def test_a_disk_that_fails_ends_a_build_of_features_with_its_command(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(files, "sync", fail)

    with pytest.raises(PipelineError, match="then run build-features again; it begins anew"):
        write(cache_path, tmp_path / "f.h5")


def test_a_damaged_row_of_features_is_mended_by_the_command_that_built_it(features_path: Path, run_cli: RunCli) -> None:
    damage(features_path, IMAGES_OFFSET + 3 * LENGTH * 4)

    with pytest.raises(CacheDamaged, match=r"Run build-features again; it computes all rows anew$"):
        TensorCache(features_path).read(torch.arange(8))
    ended = run_cli("verify", features_path)
    assert (ended.code, ended.stderr) == (65, "Run build-features again; it computes all rows anew.\n")


def test_damaged_features_are_replaced_by_the_command_that_built_them(features_path: Path) -> None:
    whole = features_path.read_bytes()

    features_path.write_bytes(whole[:-1])
    with pytest.raises(CacheDamaged, match=r"expected\. Run build-features again$"):
        list(verify_cache(features_path))
    features_path.write_bytes(whole)
    damage(features_path, len(whole) - 1)
    with pytest.raises(CacheDamaged, match=r"do not match their digest\. Run build-features again$"):
        list(verify_cache(features_path))
    damage(features_path, 40)
    with pytest.raises(CacheDamaged, match=r"does not match its checksum\. Build it again$"):
        list(verify_cache(features_path))

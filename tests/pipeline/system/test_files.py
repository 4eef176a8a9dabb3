"""File operations do all they say, and what is only a hint never fails."""

import os
from pathlib import Path

import pytest

from pipeline.system import files


@pytest.mark.parametrize("known", [True, False])
def test_starting_to_write_back_changes_no_byte_and_raises_nothing(
    known: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not known:  # as where the system has no such call
        monkeypatch.setattr(files, "_begin_writing", None)
    fd = files.create(tmp_path / "file")
    files.write_all(fd, b"0123456789", 5)
    files.begin_writing(fd, 10, 5)
    os.close(fd)
    files.begin_writing(fd, 10, 5)  # a descriptor that is closed

    assert (tmp_path / "file").read_bytes() == bytes(5) + b"0123456789"


def test_a_short_write_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:3], offset))
    fd = files.create(tmp_path / "file")
    files.write_all(fd, b"0123456789", 2)
    os.close(fd)

    assert (tmp_path / "file").read_bytes() == bytes(2) + b"0123456789"

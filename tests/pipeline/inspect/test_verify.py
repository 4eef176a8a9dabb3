"""Damage of any kind is found, and named (`verify`)."""

import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from pipeline.build.build import build_cache
from pipeline.errors import CacheDamaged, CacheMissing, StorageError, WorkerDied
from pipeline.format.checks import read_header
from pipeline.format.reader import outside_digest
from pipeline.inspect import verify
from pipeline.inspect.verify import verify_cache
from pipeline.system import files
from tests.support.builds import InThisProcess
from tests.support.command_line import REPOSITORY
from tests.support.photos import SIZE, make_photos

ROW_BYTES = 3 * SIZE * SIZE * 4


def flip(path: Path, *places: int) -> None:
    data = bytearray(path.read_bytes())
    for place in places:
        data[place] ^= 0x10
    path.write_bytes(data)


def test_a_cache_as_it_was_built_has_no_damage(cache_path: Path) -> None:
    seen: list[tuple[int, int]] = []

    assert list(verify_cache(cache_path, lambda done, total: seen.append((done, total)))) == []

    assert seen == [(row + 1, 8) for row in range(8)]


def test_a_cache_that_another_program_has_open_for_writing_has_no_damage(copy: Path) -> None:
    with h5py.File(copy, "r+"):  # which locks it
        assert list(verify_cache(copy)) == []


def test_every_damaged_row_is_named_and_no_other(copy: Path) -> None:
    flip(copy, 8192, 8192 + 3 * ROW_BYTES - 1, 8192 + 7 * ROW_BYTES + 500)

    found = list(verify_cache(copy))

    assert [damage.row for damage in found] == [0, 2, 7]
    assert [str(damage) for damage in found] == [
        "row 0 (class 1, n03874293_1030.JPEG) is not as it was written",
        "row 2 (class 1, n03874293_7.JPEG) is not as it was written",
        "row 7 (class 2, n03874293_775.JPEG) is not as it was written",
    ]


@pytest.mark.parametrize("place", [20, 4096, 5200, 8191])
def test_damaged_header_or_tables_are_not_believed_at_all(place: int, copy: Path) -> None:
    flip(copy, place)

    with pytest.raises(CacheDamaged):
        list(verify_cache(copy))


def test_a_missing_cache_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CacheMissing):
        list(verify_cache(tmp_path / "c.h5"))


@pytest.mark.parametrize("all_of_it", [True, False])
def test_what_verify_finds_the_next_build_rebuilds_and_nothing_else(all_of_it: bool, tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "photos"), tmp_path / "c.h5"
    build_cache(photos, out, size=SIZE, executor=InThisProcess())
    good = out.read_bytes()
    before = out.stat()
    with out.open("r+b") as file:  # damage that no time stamp shows, as a disk's own
        file.seek(8192 + 5 * ROW_BYTES)
        file.write(b"\x55" * 10)
    assert (tmp_path / "c.h5.stat").exists() and out.stat().st_ino == before.st_ino

    damage = verify_cache(out)
    assert next(damage).row == 5
    if all_of_it:
        assert not list(damage)
    else:
        del damage  # the caller has heard enough

    report = build_cache(photos, out, size=SIZE, executor=InThisProcess())
    assert (report.why, report.decoded, report.copied) == ("class 2: 1 damaged", 1, 7)
    assert out.read_bytes() == good


def test_damage_without_a_trace_in_time_stamps_is_found_and_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = make_photos(tmp_path / "photos"), tmp_path / "c.h5"
    build_cache(photos, out, size=SIZE, executor=InThisProcess())
    real = files.read_at
    first_row = real(files.open_for_reading(out), ROW_BYTES, 8192)
    monkeypatch.setattr(
        files, "read_at", lambda fd, count, offset: first_row if count == ROW_BYTES else real(fd, count, offset)
    )

    assert [damage.row for damage in verify_cache(out)] == list(range(1, 8))
    assert not (tmp_path / "c.h5.stat").exists()


def test_a_failing_disk_is_an_ordinary_error(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.read_at

    def failing(fd: int, count: int, offset: int) -> bytes:
        if offset == 8192 + 3 * ROW_BYTES:
            raise OSError(5, "Input/output error")
        return real(fd, count, offset)

    monkeypatch.setattr(files, "read_at", failing)

    with pytest.raises(StorageError, match="Input/output error") as failed:
        list(verify_cache(copy))
    assert failed.value.exit_code == 74


# --- the HDF5 library's view --------------------------------------------------------------------------------------


def forge_view(monkeypatch: pytest.MonkeyPatch, program: str, seconds: int = 60) -> None:
    """Let the process that asks the HDF5 library run another program."""
    real = verify.subprocess.run  # type: ignore[attr-defined]

    def run(command: list[str], **options: object) -> object:
        return real([command[0], "-c", verify._START + program, *command[3:]], **options)

    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setattr(verify, "_CPU_SECONDS", seconds)


def test_another_view_of_the_hdf5_library_is_told_by_dataset(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = "import json, sys; from pipeline.format.hdf5 import describe; view = describe(sys.argv[1]); "
    program += "view['labels']['offset'] += 8; del view['failed']; view['more'] = {}; print(json.dumps(view))"
    stat = cache_path.with_name(cache_path.name + ".stat").read_bytes()
    forge_view(monkeypatch, program)

    found = list(verify_cache(cache_path))
    cache_path.with_name(cache_path.name + ".stat").write_bytes(stat)

    assert [damage.row for damage in found] == [-1, -1, -1]
    assert [str(damage).split(" as ")[0] for damage in found] == [
        f"the HDF5 library sees {name}" for name in ("failed", "labels", "more")
    ]


def test_attributes_that_contradict_the_header_are_told(copy: Path) -> None:
    with h5py.File(copy, "r+") as file:
        file["images"].attrs.modify("mean", np.array([0.1, 0.2, 0.3]))
    fd = files.open_for_writing(copy)
    header = read_header(fd, copy)
    files.write_all(fd, replace(header, digest=outside_digest(fd, header)).encode(), 0)  # as a forger would
    os.close(fd)

    (damage,) = verify_cache(copy)

    assert "the HDF5 library sees images as " in str(damage)
    assert "'mean': ['<f8', [0.1, 0.2, 0.3]]" in str(damage) and "'mean': ['<f8', [0.5, 0.5, 0.5]]" in str(damage)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("while True: pass", "it was ended by SIGXCPU"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by SIGKILL"),
        ("bytearray(10**10)", "MemoryError"),
        ("raise OSError('no file signature')", "OSError: no file signature"),
    ],
)
def test_a_library_that_hangs_crashes_or_devours_memory_is_told(
    program: str, why: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forge_view(monkeypatch, program, seconds=1 if "while" in program else 10)

    assert [str(damage) for damage in verify_cache(copy)] == [f"the HDF5 library cannot read it: {why}"]


def test_lower_limits_of_the_system_are_no_damage(cache_path: Path) -> None:
    command = f"ulimit -t 50; ulimit -d 3000000; exec {shlex.quote(sys.executable)} cli.py verify {cache_path}"
    as_anyone = ["setpriv", "--bounding-set=-sys_resource"] if os.geteuid() == 0 and shutil.which("setpriv") else []

    ended = subprocess.run(
        [*as_anyone, "bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("start", "why"),
    [
        ("raise ModuleNotFoundError(\"No module named 'h5py'\")", "ModuleNotFoundError: No module named 'h5py'"),
        ("import os; os.kill(os.getpid(), 9)", "it was ended by SIGKILL"),
        ("import time; time.sleep(60)", "it has not answered within 1 s"),
        ("print('started', flush=True); import time; time.sleep(60)", "it has not answered within 1 s"),
    ],
)
def test_a_library_that_cannot_be_asked_is_no_damage(
    start: str, why: str, cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "_START", start + "\n")
    monkeypatch.setattr(verify, "_WALL_SECONDS", 1 if "sleep" in start else 60)

    with pytest.raises(WorkerDied, match=f"cannot be checked by the HDF5 library: .*: {why}") as died:
        list(verify_cache(cache_path))
    assert died.value.exit_code == 71 and cache_path.with_name(cache_path.name + ".stat").exists()


def test_damage_on_a_medium_that_cannot_be_written_is_told_all_the_same(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(copy, 8192 + 2 * ROW_BYTES + 5)

    def read_only(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "remove", read_only)

    assert [damage.row for damage in verify_cache(copy)] == [2]

"""Cores that a process may use, and the memory of its workers (`processes`); builds test the rest of workers."""

import os
import resource
import sys
from pathlib import Path

import pytest

from pipeline import build_cache, build_shards
from pipeline.shards.local import builders
from pipeline.system import processes
from pipeline.system.processes import local_pool, usable_cores
from tests.support.command_line import REPOSITORY
from tests.support.photos import save_jpeg

linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
SIDE = 640  # 8 rows of float32: 39 MB
LIMIT = 36_000_000


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no process to cores")
def test_a_process_that_is_bound_to_a_core_uses_one() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


def test_where_processes_are_not_bound_all_cores_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    for count, usable in ((3, 3), (None, 1)):
        monkeypatch.setattr(os, "cpu_count", lambda count=count: count)
        assert usable_cores() == usable


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        (["200000 100000\n"], 2),
        (["150000 100000\n"], 2),
        (["50000 100000\n"], 1),
        (["max 100000\n"], 8),
        (["1600000 100000\n"], 8),
        (["300000\n", "100000\n"], 3),  # the first version of control groups has a file for each
        (["-1\n", "100000\n"], 8),
        (["300000\n"], 8),
        (["no number\n", "100000\n"], 8),
    ],
)
def test_a_container_with_a_share_of_processor_time_uses_as_many_cores(
    files: list[str], usable: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, text in zip(paths, files, strict=True):
        path.write_text(text)
    monkeypatch.setattr(processes, "_QUOTAS", (("/nowhere/cpu.max",), tuple(map(str, paths))))
    monkeypatch.setattr(processes, "bound_cores", lambda: list(range(8)))

    assert usable_cores() == usable


def test_no_other_module_counts_the_cores_of_the_machine() -> None:
    """`doctor` shows them beside the usable ones."""
    counts = ("cpu_count", "sched_getaffinity")
    found = {
        path.relative_to(REPOSITORY).as_posix()
        for package in ("pipeline", "modelnet", "benchmarks")
        for path in (REPOSITORY / package).rglob("*.py")
        if any(name in path.read_text("utf-8") for name in counts)
    }
    assert found == {"pipeline/system/processes.py", "modelnet/training/machine.py"}


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker have less memory than a cache of `SIDE` is large."""
    monkeypatch.setattr(processes, "BYTES_AN_IMAGE", LIMIT)


@linux
def test_a_cache_larger_than_a_workers_memory_gives_its_rows_to_the_next(
    photos: Path, out: Path, little_memory: None
) -> None:
    build_cache(photos, out, size=SIDE, workers=1)
    assert out.stat().st_size > LIMIT
    save_jpeg(photos / "1" / "new.jpg", 40, 40, 99)

    report = build_cache(photos, out, workers=1)
    again = build_cache(photos, out, workers=1, mean=(0.485, 0.456, 0.406))

    assert (report.copied, report.decoded, again.copied, again.decoded) == (8, 1, 9, 0)


@linux
def test_shards_larger_than_a_workers_memory_are_built_and_found_fresh(
    photos: Path, out: Path, little_memory: None
) -> None:
    built = build_shards(photos, out, 1, size=SIDE, workers=1)
    assert built.file_bytes > LIMIT

    assert build_shards(photos, out, 1, workers=1).up_to_date


@linux
def test_those_that_build_shards_have_no_limit_for_one_image() -> None:
    here = resource.getrlimit(resource.RLIMIT_DATA)

    with builders(1) as pool:
        assert pool.submit(resource.getrlimit, resource.RLIMIT_DATA).result() == here
    with local_pool(1) as pool:
        assert pool.submit(resource.getrlimit, resource.RLIMIT_DATA).result()[0] < 10**11

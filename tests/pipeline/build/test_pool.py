"""Every wait of a build has an end, for a worker that never answers and for a stop."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline import build_cache
from pipeline.build import pool, worker
from pipeline.build.lock import build_lock
from pipeline.build.worker import Item
from pipeline.decode.decode import decode
from pipeline.source.reader import PARQUET, Member, Stat
from tests.support.command_line import REPOSITORY

STOPPED = """
import os, signal, sys
from pipeline import build_cache
from pipeline.build import pool, worker

def stop(*_):
    os.kill(os.getpid(), signal.SIGSTOP)

worker.decode = stop
pool._GRACE_SECONDS = 1
build_cache(sys.argv[1], sys.argv[2], size=16, workers=2, progress=lambda *_: print("begun", flush=True))
"""


def test_images_of_a_row_group_are_read_by_one_worker() -> None:
    stat = Stat(1, 1, 1, 1)
    rows = [Item(i, Member(b"t.parquet", stat, i, i // 100, 0, PARQUET, i % 100)) for i in range(250)]
    files = [Item(i, b"%d.jpg" % i) for i in range(250, 270)]

    chunks = list(pool.chunks_of(iter(rows + files), 1000))

    assert [len(chunk) for chunk in chunks] == [100, 100, 50, 8, 8, 4]
    assert [item for chunk in chunks for item in chunk] == rows + files
    assert [len(chunk) for chunk in pool.chunks_of(iter(rows), 60)] == [60, 40, 60, 40, 50]
    assert [len(chunk) for chunk in pool.chunks_of(iter(files), 3)] == [3, 3, 3, 3, 3, 3, 2]


def test_few_large_chunks_are_in_work_at_once() -> None:
    """A crash makes all of them suspects, which are done one by one. `_has_room` is private: only a crash shows it."""
    item: Any = None
    large, small = [[item] * 128], [[item] * 8]

    assert [pool._has_room(large * count, ahead=12) for count in (3, 4, 5)] == [True, True, False]
    assert [pool._has_room(small * count, ahead=12) for count in (5, 11, 12)] == [True, True, False]
    assert pool._has_room([], ahead=1) and not pool._has_room([[item]], ahead=1)


def test_a_worker_that_never_answers_fails_its_image_alone(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No limit of its own ends a process that is stopped, or waits for a disk that is gone."""
    name = "n01740131_12.JPEG"
    data = (photos / "2" / name).read_bytes()

    def stop_at_one(content: bytes, recipe: Any) -> Any:
        if content == data:
            os.kill(os.getpid(), signal.SIGSTOP)
        return decode(content, recipe)

    monkeypatch.setattr(worker, "decode", stop_at_one)
    monkeypatch.setattr(pool, "_patience", lambda chunks: 1.5)  # in place of minutes

    report = build_cache(photos, out, size=16, workers=2)

    assert [(f.name, f.reason, f.transient) for f in report.failed] == [
        (name, "its decoder crashed, or took over 60 s", True)
    ]
    assert report.cached == 7


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stop_ends_a_build_whose_workers_hang(number: int, photos: Path, out: Path) -> None:
    command = [sys.executable, "-c", STOPPED, str(photos), str(out)]
    how: dict[str, Any] = {"cwd": REPOSITORY, "stderr": subprocess.DEVNULL, "text": True, "start_new_session": True}
    with subprocess.Popen(command, stdout=subprocess.PIPE, **how) as build:
        assert build.stdout is not None and build.stdout.readline() == "begun\n"
        time.sleep(1)  # until workers have stopped themselves
        build.send_signal(number)

        assert build.wait(timeout=30) != 0
    with pytest.raises(ProcessLookupError):
        for _ in range(50):  # its workers die with it
            os.killpg(build.pid, 0)
            time.sleep(0.1)


def test_a_stop_ends_the_wait_for_another_build(photos: Path, out: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", str(photos), "--out", str(out), "--wait"]
    with build_lock(out), subprocess.Popen(command, stderr=subprocess.PIPE) as waiting:
        time.sleep(2)
        assert waiting.poll() is None
        waiting.send_signal(signal.SIGINT)
        assert waiting.wait(timeout=30) == 130

"""A real scheduler with two real workers; and what happens when they are gone."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from pipeline.errors import WorkerDied
from pipeline.shards import dask
from pipeline.shards.build import build_shards
from pipeline.shards.dask import dask_executor
from tests.support.command_line import REPOSITORY
from tests.support.photos import SIZE, make_photos, save_jpeg


class Cluster(NamedTuple):
    """A scheduler and its workers, processes on this machine."""

    address: str
    workers: dict[str, "subprocess.Popen[bytes]"]
    scheduler: "subprocess.Popen[bytes]"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Start a scheduler and the workers alice and bob, with a thread each."""
    file = tmp_path / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        with (tmp_path / "cluster.log").open("ab") as log:
            command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard", "--scheduler-file", str(file)]
            return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)

    workers = {
        name: start("worker", "--name", name, "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
        for name in ("alice", "bob")
    }
    scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
    try:
        while not file.exists():
            assert scheduler.poll() is None, (tmp_path / "cluster.log").read_text()
            time.sleep(0.05)
        yield Cluster(json.loads(file.read_text())["address"], workers, scheduler)
    finally:
        for process in (*workers.values(), scheduler):
            process.kill()
            process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.h5")}


def _both_have_noted(folder: Path) -> bool:
    noted = 0
    for journal in folder.glob("*.journal"):
        with contextlib.suppress(FileNotFoundError):  # its shard has just been published
            noted += journal.read_bytes().count(b"source_sha256") >= 2
    return noted == 2


@pytest.mark.long
def test_a_killed_worker_costs_only_unnoted_images_and_changes_no_byte(cluster: Cluster, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    save_jpeg(photos / "1" / "0.jpg", 2400, 2000, 0)
    for number in range(1, 48):
        os.link(photos / "1" / "0.jpg", photos / "1" / f"{number}.jpg")
    save_jpeg(photos / "2" / "a.jpg", 50, 50, 1)
    options = ["--size", str(SIZE), "--shards", "4", "--engine", "dask", "--scheduler", cluster.address]
    command = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", "photos", "--out", "far/c.h5", *options]

    for _ in range(5):  # a build that has ended before both workers were seen to have noted images is begun anew
        shutil.rmtree(tmp_path / "far", ignore_errors=True)
        building = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        while not (seen := _both_have_noted(tmp_path / "far")) and building.poll() is None:
            time.sleep(0.002)
        if seen:
            break
        _, errors = building.communicate()
        assert building.returncode == 0, errors
    cluster.workers["alice"].send_signal(signal.SIGKILL)
    said, errors = building.communicate(timeout=60)

    assert building.returncode == 0, errors
    assert re.search(r"49 images in 4 shards, .*: \d+ decoded, \d+ kept from the unfinished build", said), said
    assert re.search(r"^worker bob on .*: [34] shards, \d+ decoded in .* s, \d+ images/s$", said, re.MULTILINE), said
    build_shards(photos, tmp_path / "here" / "c.h5", 4, size=SIZE, workers=2)
    assert contents(tmp_path / "far") == contents(tmp_path / "here")
    assert not list(tmp_path.glob("far/*.building*")) and not list(tmp_path.glob("far/*.journal*"))


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask, "_CONNECT_SECONDS", 0.3)
    message = r"no scheduler answers at tcp://127.0.0.1:1 .*Start one: dask scheduler"

    with pytest.raises(WorkerDied, match=message) as died, dask_executor("tcp://127.0.0.1:1"):
        pass
    assert died.value.exit_code == 71


@pytest.mark.parametrize("address", ["", "head", "tcp://head", "http://head:8787", "tcp://head:port"])
def test_what_is_no_address_is_refused_before_anybody_waits_for_an_answer(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distributed.Client", lambda *of, **options: pytest.fail("it asks"))
    with pytest.raises(WorkerDied, match=r"is no address: .* One is tcp://head:8786"), dask_executor(address):
        pass


def test_without_distributed_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(WorkerDied, match=r"type: pip install '\.\[dask\]'"), dask_executor("tcp://x:1"):
        pass


def test_a_cluster_without_workers_is_told_after_a_while(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for worker in cluster.workers.values():
        worker.kill()
        worker.wait()
    monkeypatch.setattr(dask, "_WORKERS_SECONDS", 0.2)

    with pytest.raises(WorkerDied, match=r"had no worker for 0\.2 s\. Start one"), dask_executor(cluster.address):
        pass


@pytest.mark.long
@pytest.mark.parametrize("scheduler_too", [False, True])
def test_a_cluster_that_loses_all_its_workers_ends_the_build(
    scheduler_too: bool, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask, "_LOOK_SECONDS", 0.1)
    photos = make_photos(tmp_path / "photos")

    with dask_executor(cluster.address) as executor:
        monkeypatch.setattr(dask, "_WORKERS_SECONDS", 0.2)
        for process in (*cluster.workers.values(), *[cluster.scheduler] * scheduler_too):
            process.kill()
            process.wait()
        with pytest.raises(WorkerDied, match=r"no workers any more\. Start workers\. Run build-cache again"):
            build_shards(photos, tmp_path / "c.h5", 2, size=SIZE, executor=executor)

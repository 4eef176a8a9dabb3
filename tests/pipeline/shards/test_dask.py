"""A real scheduler with two real workers; and what each failure of a cluster is called."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.errors import CacheBusy, WorkerDied
from pipeline.shards import dask
from pipeline.shards.build import build_shards
from pipeline.shards.dask import DaskExecutor, dask_executor, explained, version_differences
from tests.support.builds import InThisProcess
from tests.support.command_line import REPOSITORY
from tests.support.photos import SIZE, save_jpeg


class Cluster(NamedTuple):
    """A scheduler and its workers, processes on this machine."""

    address: str
    workers: dict[str, "subprocess.Popen[bytes]"]


@pytest.fixture
def two_workers(tmp_path: Path) -> Iterator[Cluster]:
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
        yield Cluster(json.loads(file.read_text())["address"], workers)
    finally:
        for process in (*workers.values(), scheduler):
            process.kill()
            process.wait()


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.h5")}


def test_a_worker_that_is_killed_costs_what_it_had_not_noted_and_the_bytes_are_the_same(
    two_workers: Cluster, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    save_jpeg(photos / "1" / "0.jpg", 2400, 2000, 0)
    for number in range(1, 48):
        os.link(photos / "1" / "0.jpg", photos / "1" / f"{number}.jpg")
    save_jpeg(photos / "2" / "a.jpg", 50, 50, 1)
    options = ["--size", str(SIZE), "--shards", "4", "--engine", "dask", "--scheduler", two_workers.address]
    command = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", "photos", "--out", "far/c.h5", *options]

    building = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while sum(file.read_bytes().count(b"source_sha256") >= 2 for file in tmp_path.glob("far/*.journal")) < 2:
        assert building.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    two_workers.workers["alice"].send_signal(signal.SIGKILL)
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


class FakeClient:
    """A client of a cluster of which the test says who is there."""

    def __init__(self, workers: int, executor: Executor | None = None) -> None:
        self.workers: dict[str, Any] = {f"tcp://10.0.0.{number}:1": {} for number in range(workers)}
        self.executor = executor or InThisProcess()

    def get_executor(self, **options: Any) -> Executor:
        return self.executor

    def scheduler_info(self, **options: Any) -> dict[str, Any]:
        return {"workers": self.workers}

    def get_versions(self) -> dict[str, Any]:
        return versions(worker_python="3.11.9")


def versions(worker_python: str = "3.11.7", scheduler_distributed: str = "2026.8.0") -> dict[str, Any]:
    def described(python: str, distributed: str) -> dict[str, Any]:
        return {"host": {}, "packages": {"python": python, "distributed": distributed, "numpy": "2.0"}}

    return {
        "client": described("3.11.7.final.0", "2026.8.0"),
        "scheduler": described("3.11.7.final.0", scheduler_distributed),
        "workers": {"tcp://10.0.0.3:4711": described(worker_python, "2026.8.0")},
    }


def test_versions_that_do_not_go_together_are_named_with_the_worker() -> None:
    assert version_differences(versions(worker_python="3.11.2")) == []
    assert version_differences(versions("3.12.1", "2025.1.0")) == [
        "the scheduler has distributed 2025.1.0, this process 2026.8.0",
        "worker tcp://10.0.0.3:4711 has Python 3.12, this process 3.11",
    ]


def test_a_cluster_without_workers_is_told_after_a_while() -> None:
    with (
        DaskExecutor(FakeClient(0), patience=0.2) as executor,
        pytest.raises(WorkerDied, match="had no worker for 0 s"),
    ):
        executor.check()
    with DaskExecutor(FakeClient(1), patience=0.2) as executor:
        executor.check()


def test_a_cluster_that_loses_all_its_workers_ends_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    class Never(Executor):
        def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
            return Future()

    monkeypatch.setattr(dask, "_LOOK_SECONDS", 0.02)
    client = FakeClient(1, Never())
    with DaskExecutor(client, patience=0.1) as executor:
        future = executor.submit(int)
        time.sleep(0.3)
        assert not future.done()
        client.workers.clear()
        with pytest.raises(WorkerDied, match="the cluster has had no worker for"):
            future.result(timeout=30)


def test_what_fails_in_a_cluster_is_explained() -> None:
    class KilledWorker(Exception):
        last_worker = type("Worker", (), {"name": "alice"})()

    assert "died one after another, the last alice" in str(explained(KilledWorker()))
    assert "a worker has no package 'pipeline'. Install modelnet-cache" in str(
        explained(ModuleNotFoundError("No module named 'pipeline'", name="pipeline"))
    )
    ours = CacheBusy("the cache is being built", "c.h5", "another build is at it")
    assert explained(ours) is ours
    assert "the cluster failed: RuntimeError: x" in str(explained(RuntimeError("x")))
    with DaskExecutor(FakeClient(1)) as executor, pytest.raises(WorkerDied, match="ValueError: invalid literal"):
        executor.submit(int, "x").result(timeout=30)

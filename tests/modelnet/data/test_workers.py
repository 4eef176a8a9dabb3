"""Loader workers that cannot send a batch, or take for ever: every wait ends, with the reason."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch

from modelnet import TrainOptions, resume, train
from modelnet.data import workers
from modelnet.data.batches import Batches
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache
from pipeline.errors import WorkerDied
from pipeline.load import dataset
from tests.support.command_line import REPOSITORY

CPU = torch.device("cpu")

torch_tells_anywhere = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.mark.long
def test_a_worker_that_cannot_send_a_batch_ends_with_71_and_the_reason(cache_path: Path, tmp_path: Path) -> None:
    folder = Path("/tmp") / ("x" * 95)  # too long for a socket below it
    folder.mkdir()
    code = "import cli, pipeline.load.loader as loader, sys\n"
    code += "loader.has_room_for_sockets = lambda: True  # no other folder is looked for\nsys.exit(cli.main())"
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code, "train", "--cache", cache_path, "--workers", "2", "--epochs", "2"],
            cwd=tmp_path,
            env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        shutil.rmtree(folder)
    assert ended.returncode == 71, ended.stderr
    assert "it cannot send a batch: AF_UNIX path too long" in ended.stderr
    assert "--workers 0 needs no workers" in ended.stderr


def test_too_little_shared_memory_is_refused_with_both_sizes(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    usage = shutil._ntuple_diskusage  # what `disk_usage` returns
    needed = 5 * 4 * 3 * 64 * 64 * 4
    for free, fits in ((needed, True), (needed - 1, False)):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage(free, 0, free))
        if fits:
            Batches(TensorCache(cache_path), CPU, 4, workers=2)
            continue
        with pytest.raises(WorkerDied, match=r"batches of 2 workers need 983.0 kB, and 983.0 kB are free") as caught:
            train(TrainOptions(cache_path, batch_size=4, workers=2))
        assert caught.value.exit_code == 71 and not Path("runs").exists()


@torch_tells_anywhere
def test_a_batch_that_finds_no_shared_memory_is_an_error(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process, dumps = os.getpid(), ForkingPickler.dumps

    def no_room(*values: Any) -> Any:
        if os.getpid() != process:  # in the worker, which is forked
            raise OSError(28, "unable to allocate shared memory")
        return dumps(*values)

    monkeypatch.setattr("multiprocessing.queues._ForkingPickler.dumps", no_room)
    began = time.monotonic()
    with pytest.raises(WorkerDied, match=r"it cannot send a batch: .*unable to allocate shared memory"):
        list(Batches(TensorCache(cache_path), CPU, 4, workers=1).epoch(0))
    assert time.monotonic() - began < 20


def never_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker take for ever, from its second batch on."""
    gather, calls = dataset.CacheDataset.__getitems__, []

    def slow(self: dataset.CacheDataset, rows: dataset.Rows) -> object:
        calls.append(1)
        if len(calls) > 1:
            time.sleep(1000)
        return gather(self, rows)

    monkeypatch.setattr(dataset.CacheDataset, "__getitems__", slow)


@pytest.mark.long
@torch_tells_anywhere
def test_a_batch_that_never_comes_is_not_waited_for_for_ever(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never_read(monkeypatch)
    monkeypatch.setattr(workers, "SECONDS_WITHOUT_A_BATCH", 0.5)
    batches = Batches(TensorCache(cache_path), CPU, 4, workers=1)
    with pytest.raises(WorkerDied, match=r"no batch came for 0.5 seconds") as caught:
        list(batches.epoch(0))
    assert caught.value.exit_code == 71
    assert not multiprocessing.active_children(), "a worker that hangs would be waited for at the end of the process"


@pytest.mark.parametrize("stops", [False, True])
def test_workers_that_answer_late_begin_the_next_epoch(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, stops: bool
) -> None:
    monkeypatch.setattr(workers, "_POLL_SECONDS", 0.1)
    stop = Stop()
    batches = Batches(TensorCache(cache_path), CPU, 4, workers=2)
    batches.stop = stop
    assert len(list(batches.epoch(0))) == 2
    for worker in multiprocessing.active_children():
        os.kill(worker.pid or 0, signal.SIGSTOP)
        threading.Timer(1, os.kill, (worker.pid, signal.SIGCONT)).start()
    if stops:
        threading.Timer(0.5, lambda: setattr(stop, "signal", signal.SIGTERM)).start()

    assert len(list(batches.epoch(1))) == (0 if stops else 2)
    assert bool(multiprocessing.active_children()) is not stops
    batches._end_workers()  # as the end of the process would otherwise wait for them


@pytest.mark.long
@torch_tells_anywhere
def test_a_stop_ends_the_wait_for_a_batch_and_the_run_goes_on(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop = Stop()
    options = TrainOptions(cache_path, batch_size=4, epochs=1, workers=1, threads=1, device="cpu")
    with monkeypatch.context() as patch:
        never_read(patch)
        threading.Timer(2, lambda: setattr(stop, "signal", signal.SIGTERM)).start()
        began = time.monotonic()
        stopped = train(options, stop=stop)
        assert time.monotonic() - began < 20
    assert stopped.interrupted and not multiprocessing.active_children()
    saved = torch.load(stopped.run / "checkpoints/last.pt", weights_only=True)
    assert (saved["epoch"], saved["step"]) == (0, 1)
    whole = train(options).rows
    assert [row.train_loss for row in resume(stopped.run).rows] == [row.train_loss for row in whole]

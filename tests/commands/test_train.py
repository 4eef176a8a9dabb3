"""Run train (modelnet/commands/train.py, runtime/interrupt.py) in its own process: output, end, stop."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from modelnet import TrainOptions, resume, train
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from tests.support.command_line import REPOSITORY, RunCli, start_training, wait_for_epochs

ENDLESS = ("--batch-size", "1", "--epochs", "1000000", "--name", "r", "--threads", "1")


def test_training_from_the_default_cache_prints_a_line_an_epoch(
    cache_path: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    (tmp_path / "data" / "cache").mkdir(parents=True)
    (tmp_path / "data" / "cache" / "photos.h5").write_bytes(cache_path.read_bytes())
    ended = run_cli("train", "--batch-size", "4", "--epochs", "2", "--threads", "1")
    assert ended.code == 0
    assert ended.stderr == "learning rate 0.004 (0.001 × batch size 4)\n"
    lines = ended.stdout.splitlines()
    assert lines[0] == "run folder: runs/photos-modelnet-001"
    assert lines[1] == "training loss and accuracy are averages over the epoch, taken before each step"
    assert re.fullmatch(
        r"epoch 2/2: training loss 0\.\d{4}, accuracy \d+\.\d% \| [\d,]+ images/s, \d+\.\d\d s waiting for data",
        lines[3],
    )
    assert lines[4:] == [
        "loss curve: runs/photos-modelnet-001/loss.png",
        "report: runs/photos-modelnet-001/report.html",
    ]
    assert (tmp_path / "runs/photos-modelnet-001/loss.png").read_bytes()[:4] == b"\x89PNG"


def test_a_diverging_run_says_where_in_one_line_ends_with_76_and_keeps_it(
    cache_path: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("train", "--cache", cache_path, "--lr", "1e12", "--name", "wild", "--no-shuffle")
    assert ended.code == 76
    assert ended.stderr.startswith("error: training diverged: runs/wild: the loss is ")
    assert ended.stderr.count("\n") == 1
    kept = (tmp_path / "runs/wild/diverged.txt").read_text().strip()
    assert kept.startswith("the loss is ") and f": {kept} (" in ended.stderr


@pytest.mark.parametrize(("asked", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_step_and_saves(cache_path: Path, tmp_path: Path, asked: signal.Signals, code: int) -> None:
    process = start_training(tmp_path, "--cache", str(cache_path), *ENDLESS)
    wait_for_epochs(process)
    process.send_signal(asked)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert errors.endswith("stopped and saved. Continue with: python cli.py train --resume runs/r\n")
    saved = torch.load(tmp_path / "runs/r/checkpoints/last.pt", weights_only=True)
    lines = (tmp_path / "runs/r/metrics.csv").read_text().count("\n")
    assert saved["epoch"] == lines - 1
    assert saved["running"]["images"] == saved["step"] > 0


def test_ctrl_c_reaches_a_whole_process_group_and_still_saves(cache_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "cli.py"), "train", "--cache", str(cache_path), *ENDLESS]
    process = subprocess.Popen(
        [*command, "--workers", "2"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_epochs(process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors.splitlines()[-1][:17]) == (130, "stopped and saved")
    with pytest.raises(ProcessLookupError):  # no worker outlives it
        os.killpg(process.pid, 0)


def test_a_second_signal_stops_at_once(cache_path: Path, tmp_path: Path) -> None:
    """The first can wait for long: here the process sits in a checkpoint that never ends."""
    program = (
        "import os, signal, time\n"
        "from modelnet.runtime.interrupt import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print(stop.exit_code, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(60)\n"
    )
    began = time.perf_counter()
    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=50)
    assert (ended.returncode, ended.stdout) == (143, "130\n")
    assert time.perf_counter() - began < 30


@pytest.mark.long
def test_a_killed_run_resumes_to_the_same_losses(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = start_training(tmp_path, "--cache", str(cache_path), *ENDLESS)
    wait_for_epochs(process, 3)
    process.kill()
    process.communicate()
    killed = Path("runs/r")
    epochs = torch.load(killed / "checkpoints/last.pt", weights_only=True)["epoch"] + 2

    resumed = resume(killed, epochs=epochs)
    whole = train(TrainOptions(cache_path, batch_size=1, epochs=epochs, threads=1))

    assert len(resumed.rows) == epochs
    assert [row.train_loss for row in resumed.rows] == [row.train_loss for row in whole.rows]


def test_json_is_a_line_an_epoch_and_one_for_the_result(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    options = ("--cache", cache_path, "--val", cache_path, "--epochs", "2", "--name", "r", "--threads", "1")
    ended = run_cli("train", *options, "--json", "--quiet")
    assert (ended.code, [line for line in ended.stderr.splitlines() if not line.startswith("warning: ")]) == (0, [])
    begun, *epochs, result = map(json.loads, ended.stdout.splitlines())

    assert begun == {"run": "runs/r"}
    assert [EpochRow(**row) for row in epochs] == RunFolder(tmp_path / "runs/r").read_metrics()
    assert result["runs"] == ["runs/r"] and not result["interrupted"]
    assert result["scores"] == json.loads((tmp_path / "runs/r/scores.json").read_text())


def test_quiet_leaves_results_and_warnings(cache_path: Path, run_cli: RunCli) -> None:
    ended = run_cli("train", "--cache", cache_path, "--epochs", "1", "--mixup-alpha", "0.5", "-q", "--name", "r")

    assert ended.stderr == "warning: --mixup-alpha 0.5 changes nothing without --augment mixup\n"
    assert ended.stdout == "loss curve: runs/r/loss.png\nreport: runs/r/report.html\n"

"""A network really compiled, which takes half a minute: what it computes, how it goes on, and where no compiler is."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from modelnet import TrainOptions, resume, train
from modelnet.progress import Progress
from modelnet.runtime.interrupt import Stop
from tests.support.command_line import REPOSITORY


@pytest.fixture(autouse=True)
def only_where_there_is_time(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--soak-scale") < 0.05:
        pytest.skip("compiling takes half a minute; make soak does it")


def test_a_compiled_run_follows_the_plain_one_and_goes_on_to_the_bit(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Progress):
        def __init__(self, after: int) -> None:
            self.left = after

        def step(self, images: int) -> None:
            self.left -= 1
            stop.signal = 2 if self.left == 0 else stop.signal

    monkeypatch.chdir(tmp_path)
    stop = Stop()
    options = TrainOptions(cache_path, batch_size=3, epochs=4, lr=0.01, device="cpu", val=cache_path)
    plain, whole = (train(TrainOptions(**vars(options) | {"compile": compiled})) for compiled in (False, True))
    assert [row.train_loss for row in whole.rows] == pytest.approx([row.train_loss for row in plain.rows], abs=1e-5)

    expected = torch.load(whole.run / "checkpoints/last.pt", weights_only=True)["weights"]
    for cut in (1, 3, 5, 11):
        stop = Stop()
        run = train(TrainOptions(**vars(options) | {"compile": True}), Cut(cut), stop).run
        resume(run)
        found = torch.load(run / "checkpoints/last.pt", weights_only=True)["weights"]
        assert all(torch.equal(values, expected[name]) for name, values in found.items())


def test_without_a_compiler_the_command_says_so(cache_path: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(REPOSITORY / "cli.py"), "train", "--cache", str(cache_path), "--compile"]
    environment = os.environ | {"CXX": str(tmp_path / "nowhere"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "empty")}
    ended = subprocess.run(
        [*command, "--device", "cpu"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 71
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: --compile does not work here: InvalidCxxCompiler: No working C++ compiler found")
    assert last.endswith("Leave out --compile; on the CPU it needs a C++ compiler, such as g++")
    assert not (tmp_path / "runs").exists()

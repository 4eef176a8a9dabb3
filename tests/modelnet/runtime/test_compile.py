"""How a compiled network is used; tests/soak/test_compiled.py compiles really, which takes too long for here."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modelnet import Trained, TrainOptions, resume, train
from modelnet.runtime.compile import compile_network
from pipeline.errors import DeviceError

AUTOCAST = torch.autocast("cpu", torch.bfloat16, enabled=False)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[int]]:
    """Replace torch.compile by what notes the batches that it is given, and computes as the network does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("modelnet.training.loop.loss_curves", lambda *_: b"")
    sizes: list[int] = []

    def compile_(network: nn.Module, **_: Any) -> Any:
        def run(images: Tensor) -> Any:
            sizes.append(len(images))
            return network(images)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    yield sizes


def test_whole_batches_of_training_are_compiled_and_no_others(compiled: list[int], cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=2, val=cache_path, device="cpu", lr=0.05)
    plain = train(options)
    run = train(TrainOptions(**vars(options) | {"compile": True}))
    assert compiled == [3] * (1 + 2 * 2)  # a trial, and two of the three batches of each epoch
    assert [row.train_loss for row in run.rows] == [row.train_loss for row in plain.rows]

    saved = [torch.load(r.run / "checkpoints/last.pt", weights_only=True) for r in (run, plain)]
    assert list(saved[0]["weights"]) == list(saved[1]["weights"])
    assert Trained.load(run.run, device="cpu").evaluate().loss == run.rows[-1].val_loss
    assert len(resume(run.run, epochs=3, compile=False).rows) == 3
    assert len(compiled) == 5


def test_a_set_smaller_than_a_batch_is_one_whole_batch(compiled: list[int], cache_path: Path) -> None:
    train(TrainOptions(cache_path, batch_size=100, epochs=1, device="cpu", compile=True))
    assert compiled == [8, 8]


def test_the_trial_leaves_no_trace(compiled: list[int]) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(12, 2))
    before = {name: values.clone() for name, values in network.state_dict().items()}
    state = torch.get_rng_state()
    compile_network(network, (4, 3, 2, 2), AUTOCAST, cuda_graphs=True)
    assert len(compiled) == 3
    assert all(torch.equal(values, before[name]) for name, values in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), state)


def test_what_a_graph_will_write_over_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA graphs return the same memory each time."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
    output = torch.zeros(4, 2, requires_grad=True)
    monkeypatch.setattr(torch, "compile", lambda network, **_: lambda images: output)
    forward = compile_network(network, (4, 3, 2, 2), AUTOCAST, cuda_graphs=True)
    kept = forward(torch.zeros(4, 3, 2, 2))
    output.data.fill_(7)
    assert kept.tolist() == [[0, 0]] * 4


def test_without_a_compiler_the_run_does_not_begin(
    cache_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compile_(network: nn.Module, **_: Any) -> Any:
        def run(images: Tensor) -> Any:
            raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\n\nand much more")

        return run

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch, "compile", compile_)
    with pytest.raises(
        DeviceError,
        match=r"^--compile does not work here: InvalidCxxCompiler: .* found\. Leave out --compile; .*g\+\+$",
    ):
        train(TrainOptions(cache_path, device="cpu", compile=True))
    assert not Path("runs").exists()

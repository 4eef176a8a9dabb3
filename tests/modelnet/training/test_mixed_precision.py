"""Compare --amp (step.py, loop.py) with plain loops with torch.autocast and GradScaler."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from modelnet import ModelNet, Trained, TrainOptions, resume, train
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache
from pipeline.errors import TrainingDiverged
from tests.support.listener import Listener

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")


def weights(run: Path) -> dict[str, Tensor]:
    content: dict[str, dict[str, Tensor]] = torch.load(run / "checkpoints/last.pt", weights_only=True)
    return content["weights"]


def plain_loop(cache: TensorCache, epochs: int, dtype: torch.dtype, accumulate: int, clip: float) -> nn.Module:
    """Train on batches of two in the cache's order, as PyTorch's documentation of mixed precision does it."""
    torch.manual_seed(0)
    network = ModelNet(2, 64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.5, weight_decay=1e-4)
    scaler = GradScaler("cpu", enabled=dtype == torch.float16)
    for _ in range(epochs):
        for start in range(0, 8, 2):
            rows = slice(start, start + 2)
            with torch.autocast("cpu", dtype):
                loss = nn.functional.cross_entropy(network(cache.images[rows]), cache.labels[rows]) / accumulate
            scaler.scale(loss).backward()
            if (start // 2 + 1) % accumulate == 0:
                scaler.unscale_(optimizer)
                nn.utils.clip_grad_norm_(network.parameters(), clip)
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
    return network


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_weights_are_those_of_the_plain_loop(cache_path: Path, dtype: torch.dtype, accumulate: int) -> None:
    kind = str(dtype).removeprefix("torch.")
    options = TrainOptions(cache_path, batch_size=2, epochs=4, lr=0.05, shuffle=False, clip_grad=0.5, device="cpu")
    mixed = train(TrainOptions(**vars(options) | {"amp": True, "amp_dtype": kind, "accumulate": accumulate})).run
    full = train(TrainOptions(**vars(options) | {"accumulate": accumulate})).run

    expected = plain_loop(TensorCache(cache_path), 4, dtype, accumulate, 0.5).state_dict()
    for name, values in weights(mixed).items():
        assert torch.allclose(values, expected[name], atol=1e-6), name
    assert any(not torch.allclose(values, expected[name], atol=1e-6) for name, values in weights(full).items())


def scaler_from(monkeypatch: pytest.MonkeyPatch, scale: float) -> None:
    monkeypatch.setattr("modelnet.training.start.GradScaler", partial(GradScaler, init_scale=scale, growth_interval=5))


FLOAT16 = {"batch_size": 2, "lr": 0.05, "device": "cpu", "amp": True, "amp_dtype": "float16"}


def test_steps_left_out_because_float16_overflowed_are_no_divergence(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler_from(monkeypatch, 2.0**40)
    start = weights(train(TrainOptions(cache_path, epochs=1, **FLOAT16)).run)  # type: ignore[arg-type]
    torch.manual_seed(0)
    assert all(torch.equal(start[name], values) for name, values in ModelNet(2, 64).state_dict().items())
    result = train(TrainOptions(cache_path, epochs=80, **FLOAT16))  # type: ignore[arg-type]
    assert result.rows[-1].train_loss < 0.1


def test_gradients_that_no_scale_makes_finite_are_a_divergence(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build_loss(*_: object) -> Callable[[Tensor, Tensor, int], Tensor]:
        return lambda logits, labels, _: nn.functional.cross_entropy(logits, labels) + (0 * logits.sum()).sqrt()

    monkeypatch.setattr("modelnet.training.setup.build_loss", build_loss)
    with pytest.raises(TrainingDiverged, match="gradients are NaN or infinite, however they are scaled, in epoch 11,"):
        train(TrainOptions(cache_path, epochs=20, **FLOAT16))  # type: ignore[arg-type]


def test_a_run_that_is_cut_goes_on_with_the_scale_that_it_had(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scaler_from(monkeypatch, 2.0**18)  # the scale falls at first, and grows again after five good steps
    options = TrainOptions(cache_path, epochs=4, accumulate=2, val=cache_path, **FLOAT16)  # type: ignore[arg-type]
    whole = weights(train(options).run)
    for cut in (1, 2, 5, 9, 14):
        stop = Stop()
        run = train(options, Listener(stop, cut), stop).run
        resume(run)
        assert all(torch.equal(values, whole[name]) for name, values in weights(run).items())


def test_a_network_is_evaluated_in_the_precision_that_it_was_trained_in(cache_path: Path) -> None:
    options = TrainOptions(cache_path, val=cache_path, batch_size=8, epochs=5, lr=0.05, amp=True, device="cpu")
    result = train(options)
    assert result.scores is not None

    assert Trained.load(result.run, device="cpu").evaluate().to_dict() == result.scores.to_dict()
    network = ModelNet(2, 64)
    network.load_state_dict(weights(result.run))
    cache = TensorCache(cache_path)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        logits = network(cache.images)
    assert result.scores.loss == pytest.approx(
        nn.functional.cross_entropy(logits.double(), cache.labels).item(), abs=1e-9
    )
    probabilities = Trained.load(result.run, device="cpu").probabilities(cache.images)
    assert torch.equal(probabilities, logits.double().softmax(1))


@pytest.mark.parametrize("trained", [False, True])
def test_a_run_is_evaluated_in_the_precision_that_is_asked_for(cache_path: Path, trained: bool) -> None:
    run = train(TrainOptions(cache_path, val=cache_path, epochs=1, lr=0.05, amp=trained, device="cpu")).run
    cache, network = TensorCache(cache_path), ModelNet(2, 64)
    network.load_state_dict(weights(run))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not trained):
        logits = network.eval()(cache.images)

    asked = Trained.load(run, device="cpu", amp=not trained)

    loss = nn.functional.cross_entropy(logits.double(), cache.labels).item()
    assert asked.evaluate(keep=True).loss == pytest.approx(loss, abs=1e-7)
    kept = json.loads((run / "evaluations/photos-last.json").read_text())
    assert kept["precision"] == ("float32" if trained else "bfloat16")

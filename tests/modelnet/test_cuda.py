"""Compare whole runs (training/loop.py) on a GPU with the CPU's; skipped without a GPU."""

from pathlib import Path

import pytest
import torch

from modelnet import Trained, TrainOptions, TrainResult, resume, train, train_many
from modelnet.runtime.interrupt import Stop
from pipeline import TensorCache
from tests.support.listener import Listener

pytestmark = [
    pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures"),
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

EVERYTHING = {"augment": "flip,crop,color", "model_ema": 0.9, "clip_grad": 1.0, "sched": "cosine", "opt": "adamw"}


def losses(result: TrainResult) -> list[float | None]:
    return [value for row in result.rows for value in (row.train_loss, row.val_loss)]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("extra", [{}, EVERYTHING])
def test_losses_are_those_of_the_cpu_but_for_rounding(
    cache_path: Path, extra: dict[str, object], accumulate: int
) -> None:
    common = {"batch_size": 3, "epochs": 3, "val": cache_path, "lr": 0.01, "accumulate": accumulate} | extra
    near, far = (train(TrainOptions(cache_path, device=d, **common)) for d in ("cpu", "cuda"))  # type: ignore[arg-type]
    assert losses(far) == pytest.approx(losses(near), abs=1e-4)


@pytest.mark.parametrize(
    "extra",
    [{"preload": True}, {"workers": 2}, {"amp": True}, {"amp": True, "amp_dtype": "float16", "clip_grad": 1.0}],
)
def test_every_way_of_training_learns_and_can_be_evaluated(uint8_cache_path: Path, extra: dict[str, object]) -> None:
    options = TrainOptions(uint8_cache_path, batch_size=2, epochs=60, lr=0.05, val=uint8_cache_path, device="cuda")
    result = train(TrainOptions(**vars(options) | extra))
    assert result.rows[-1].train_loss < 0.1
    assert result.scores is not None
    for device, tolerance in (("cuda", 1e-6), ("cpu", 1e-2 if "amp" in extra else 1e-4)):
        assert Trained.load(result.run, device=device).evaluate().loss == pytest.approx(
            result.scores.loss, abs=tolerance
        )


def test_preloaded_images_give_the_same_losses_as_read_ones(uint8_cache_path: Path) -> None:
    options = TrainOptions(uint8_cache_path, batch_size=3, epochs=1, device="cuda", drop_last=True)
    read, held = (train(TrainOptions(**vars(options) | {"preload": choice})) for choice in (False, True))
    assert losses(held)[0] == pytest.approx(losses(read)[0], abs=1e-6)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", [{}, {"amp": True, "amp_dtype": "float16"}, {"accumulate": 2}])
def test_a_compiled_network_follows_the_plain_one(cache_path: Path, extra: dict[str, object]) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=4, lr=0.01, device="cuda", val=cache_path)
    plain, compiled = (train(TrainOptions(**vars(options) | extra | {"compile": c})) for c in (False, True))
    assert losses(compiled) == pytest.approx(losses(plain), abs=1e-2 if "amp" in extra else 1e-4)
    assert len(resume(compiled.run, epochs=6, compile=False).rows) == 6


def test_a_run_that_is_stopped_goes_on_and_may_change_its_device(cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=3, accumulate=2, model_ema=0.9, device="cuda")
    whole = train(options)
    for device in ("cuda", "cpu"):
        stop = Stop()
        run = train(options, Listener(stop, 1), stop).run
        assert losses(resume(run, device=device))[::2] == pytest.approx(losses(whole)[::2], abs=1e-4)


def test_many_networks_at_once_follow_the_single_runs(cache_path: Path) -> None:
    options = TrainOptions(cache_path, batch_size=3, epochs=3, device="cuda", val=cache_path, preload=True)
    many = train_many(options, [0, 1])
    for seed, rows in enumerate(many.rows):
        alone = train(TrainOptions(**vars(options) | {"seed": seed}))
        assert [row.train_loss for row in rows] == pytest.approx([row.train_loss for row in alone.rows], abs=1e-5)


def test_images_are_judged_alike_on_both(cache_path: Path) -> None:
    run = train(TrainOptions(cache_path, batch_size=4, epochs=3, device="cuda")).run
    images = TensorCache(cache_path).images
    near, far = (Trained.load(run, device=device).probabilities(images) for device in ("cpu", "cuda"))
    assert far.device.type == "cpu" and (near - far).abs().max() < 1e-5

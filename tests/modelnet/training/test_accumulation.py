"""Accumulated and uncleared gradients against plain loops."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from modelnet import ModelNet, TrainOptions, train
from modelnet.data.batches import Batches
from modelnet.training.accumulation import Accumulation
from pipeline import TensorCache
from pipeline.load.batch_plan import BatchPlan

CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures", "one_thread")


def final_weights(options: TrainOptions) -> dict[str, torch.Tensor]:
    run = train(options).run
    saved: dict[str, torch.Tensor] = torch.load(run / "checkpoints/last.pt", weights_only=True)["weights"]
    return saved


@pytest.mark.parametrize("class_weights", ["none", "balanced"])
@pytest.mark.parametrize(("batch_size", "accumulate"), [(2, 3), (1, 6), (3, 2)])
def test_accumulated_batches_are_one_large_batch(
    batch_size: int, accumulate: int, class_weights: str, cache_path: Path
) -> None:
    """Of 8 images, so that the last step has fewer: batches of 2, and of 2 with 3 at once."""
    options = TrainOptions(cache_path, batch_size=6, epochs=4, lr=0.05, sched="cosine", class_weights=class_weights)
    large = final_weights(options)
    parts = final_weights(replace(options, batch_size=batch_size, accumulate=accumulate))
    for name, expected in large.items():
        torch.testing.assert_close(parts[name], expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("when", ["batch", "epoch", "never"])
def test_gradients_are_cleared_when_the_plain_loop_does_it(when: str, cache_path: Path) -> None:
    torch.manual_seed(0)
    network = ModelNet(2, 64)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.004, momentum=0.5, weight_decay=1e-4)
    batches = Batches(TensorCache(cache_path), CPU, 3, shuffle=True)
    for epoch in range(3):
        if when == "epoch":
            optimizer.zero_grad()
        for images, labels, *_ in batches.epoch(epoch):
            if when == "batch":
                optimizer.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimizer.step()

    trained = final_weights(TrainOptions(cache_path, batch_size=3, epochs=3, lr=0.004, zero_grad=when, device="cpu"))

    assert all(torch.equal(trained[name], weights) for name, weights in network.state_dict().items())


def test_the_shares_of_a_step_add_up_to_one(cache_path: Path) -> None:
    plan = BatchPlan(8, 3)
    accumulation = Accumulation(TrainOptions(cache_path, batch_size=3, accumulate=2), plan, CPU)
    shares = [accumulation.share(batch) for batch in range(3)]
    assert [None if share is None else share.item() for share in shares] == [0.5, 0.5, 1]
    assert [accumulation.steps_after(batch) for batch in range(3)] == [False, True, True]
    assert [accumulation.clears(batch) for batch in range(3)] == [True, False, True]
    assert [accumulation.step(1, batch) for batch in range(3)] == [2, 2, 3]
    assert Accumulation(TrainOptions(cache_path, batch_size=3), plan, CPU).share(0) is None

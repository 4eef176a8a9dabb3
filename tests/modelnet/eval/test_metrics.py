"""Running means against plain sums."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from modelnet.eval.metrics import RunningMean


def test_running_means_equal_plain_sums_bit_for_bit_wherever_cut() -> None:
    torch.manual_seed(0)
    steps = [(torch.randn(size, 3), torch.randint(0, 3, (size,))) for size in [4] * 150 + [1]]
    losses = [cross_entropy(logits, labels) for logits, labels in steps]
    whole, cut = RunningMean(), RunningMean()
    for i, (loss, step) in enumerate(zip(losses, steps, strict=True)):
        whole.add(loss, *step)
        cut.add(loss, *step)
        if i in (3, 64, 149):
            cut = RunningMean.from_dict(cut.to_dict())

    loss_sum = 0.0
    for loss, (_, labels) in zip(losses, steps, strict=True):
        loss_sum += loss.item() * len(labels)
    logits, labels = (torch.cat(parts) for parts in zip(*steps, strict=True))
    assert whole.loss == cut.loss == loss_sum / 601
    assert whole.accuracy == cut.accuracy == pytest.approx((logits.argmax(1) == labels).double().mean().item())

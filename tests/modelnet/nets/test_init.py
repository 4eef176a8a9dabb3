"""How weights start, against what each way promises."""

import math

import pytest
import torch
from torch import nn

from modelnet.nets.init import initialize
from modelnet.options import OPTIONS


def layers() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(300, 100))


@pytest.mark.parametrize("how", OPTIONS["init"].choices)
def test_weights_have_the_spread_that_is_promised_and_biases_are_zero(how: str) -> None:
    network, before = layers(), layers()
    initialize(network, how)
    for i, fan_in, fan_out in ((0, 8 * 9, 64 * 9), (3, 300, 100)):
        layer, default = network[i], before[i]
        assert isinstance(layer, nn.Conv2d | nn.Linear) and isinstance(default, nn.Conv2d | nn.Linear)
        assert layer.bias is not None and default.bias is not None
        if how == "default":
            assert torch.equal(layer.weight, default.weight) and torch.equal(layer.bias, default.bias)
            continue
        rows = layer.weight.detach().flatten(1)
        assert not layer.bias.any()
        if how == "kaiming":
            assert rows.std().item() == pytest.approx(math.sqrt(2 / fan_in), rel=0.05)
        elif how == "xavier":
            assert rows.abs().max().item() == pytest.approx(math.sqrt(6 / (fan_in + fan_out)), rel=0.01)
        elif how == "orthogonal":
            torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-5, rtol=0)
        else:
            assert not rows.any()
    assert all(
        torch.equal(one, other) for one, other in zip(network[1].parameters(), before[1].parameters(), strict=True)
    )

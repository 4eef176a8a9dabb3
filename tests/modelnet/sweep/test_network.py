"""Many networks as one: each gives what it gives alone; their training is in test_train.py."""

import pytest
import torch

from modelnet.nets.modelnet import ModelNet
from modelnet.sweep.network import StackedModelNet, stack


@pytest.mark.parametrize("size", [(64, 64), (66, 100), (131, 60)])
def test_stacked_networks_answer_as_each_alone_does(size: tuple[int, int]) -> None:
    networks = [ModelNet(3, size) for _ in range(4)]
    images_BCHW = torch.rand(5, 3, *size)

    together = StackedModelNet(networks)(images_BCHW)

    torch.testing.assert_close(together, torch.stack([network(images_BCHW) for network in networks]))


def test_stacked_linear_layers_answer_as_each_alone_does() -> None:
    layers = [torch.nn.Linear(7, 3) for _ in range(4)]
    features_BD = torch.rand(5, 7)

    torch.testing.assert_close(stack(layers)(features_BD), torch.stack([layer(features_BD) for layer in layers]))

"""ModelNet against its description, layer by layer."""

import pytest
import torch
from torch.nn import functional

from modelnet import ModelNet
from pipeline.errors import OptionsError


def test_modelnet_is_the_network_of_the_description() -> None:
    torch.manual_seed(1)
    network = ModelNet()
    images = torch.randn(5, 3, 224, 224)
    conv1, bias1, conv2, bias2, w1, b1, w2, b2, w3, b3 = network.parameters()
    assert [tuple(w.shape) for w in (conv1, conv2, w1, w2, w3)] == [
        (3, 3, 6, 6),
        (6, 3, 3, 3),
        (60, 150),
        (20, 60),
        (2, 20),
    ]

    x = functional.conv2d(images, conv1, bias1, stride=6)
    x = functional.max_pool2d(x, 6, stride=2)
    x = functional.conv2d(x, conv2, bias2, stride=3).reshape(5, 150)
    x = torch.relu(x @ w1.T + b1)
    x = torch.relu(x @ w2.T + b2)
    torch.testing.assert_close(network(images), x @ w3.T + b3)


def test_weights_are_drawn_as_pytorch_draws_those_of_its_layers() -> None:
    torch.manual_seed(7)
    ours = [weights.clone() for weights in ModelNet(classes=3).parameters()]
    torch.manual_seed(7)
    layers = [
        torch.nn.Conv2d(3, 3, 6, 6),
        torch.nn.Conv2d(3, 6, 3, 3),
        torch.nn.Linear(150, 60),
        torch.nn.Linear(60, 20),
        torch.nn.Linear(20, 3),
    ]
    theirs = [weights for layer in layers for weights in layer.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("size", [*range(60, 130), 160, 224, 255, 256, 384])
def test_the_first_linear_layer_fits_any_size(size: int) -> None:
    assert ModelNet(classes=4, size=size)(torch.zeros(2, 3, size, size)).shape == (2, 4)


@pytest.mark.parametrize("size", [1, 32, 59])
def test_images_too_small_for_the_layers_are_refused_in_words(size: int) -> None:
    with pytest.raises(OptionsError, match=rf"60 × 60 pixels or more, not {size} × {size}.*--size 60"):
        ModelNet(classes=2, size=size)

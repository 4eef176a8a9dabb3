"""Heat maps and the map of features, against computations by hand."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from modelnet.eval.heat_maps import heat_maps, last_features, map_layer, principal_components
from modelnet.nets.registry import build_network
from pipeline.errors import OptionsError


class Pooled(nn.Module):
    """A convolution, a mean over positions, a linear layer: gradients are known without autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 4, stride=4, bias=False)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.conv(images).mean((2, 3)))
        return out


def test_a_map_is_the_sum_of_values_by_their_positive_gradients() -> None:
    torch.manual_seed(0)
    network, images, labels = Pooled().eval(), torch.randn(4, 3, 32, 40), torch.tensor([0, 1, 2, 0])
    maps = heat_maps(network, images, labels)
    values = network.conv(images).detach()
    weights = relu(network.head.weight[labels]).detach()[:, :, None, None] / (8 * 10)
    expected = interpolate(relu((weights * values).sum(1, keepdim=True)), (32, 40), mode="bilinear")[:, 0]
    expected /= expected.amax((1, 2), keepdim=True)
    assert maps.shape == (4, 32, 40) and torch.allclose(maps, expected, atol=1e-5)


def test_a_map_is_bright_where_the_class_is() -> None:
    network = Pooled().eval()
    with torch.no_grad():
        network.conv.weight.fill_(1)
        network.head.weight.fill_(1)
    images = torch.zeros(1, 3, 32, 32)
    images[:, :, 16:, :16] = 1
    (map_HW,) = heat_maps(network, images, torch.tensor([1]))
    assert map_HW[20:, :12].min() > 0.9 and map_HW[:12].max() < 0.1 and map_HW[:, 20:].max() < 0.1


@pytest.mark.parametrize("name", ["modelnet", "resnet18", "densenet121", "timm:swin_tiny_patch4_window7_224"])
def test_networks_with_maps_have_heat_maps(name: str) -> None:
    torch.manual_seed(0)
    size = 224 if "swin" in name else 96
    network = build_network(name, 2, size).eval().requires_grad_(False)
    maps = heat_maps(network, torch.randn(1, 3, size, size), torch.tensor([1]))
    assert maps.shape == (1, size, size) and maps.isfinite().all() and 0 <= maps.min() <= maps.max() <= 1.0001
    features, logits = last_features(network, torch.randn(1, 3, size, size))
    assert features.dim() == 2 and logits.shape == (1, 2)


def test_networks_without_maps_are_refused_by_what_they_have() -> None:
    vit = build_network("timm:vit_tiny_patch16_224", 2, 224).eval()
    with pytest.raises(OptionsError, match="no map of positions: its layers give sequences of tokens"):
        map_layer(vit, torch.zeros(1, 3, 224, 224))
    with pytest.raises(OptionsError, match="no layer has a map of 4 × 4"):
        map_layer(nn.Linear(5, 2), torch.zeros(1, 5))


def test_the_last_layer_gives_its_logits_from_its_features() -> None:
    network, images = build_network("resnet18", 3, 64).eval().requires_grad_(False), torch.randn(2, 3, 64, 64)
    features, logits = last_features(network, images)
    assert torch.allclose(network.get_submodule("fc")(features), logits, atol=1e-5) and torch.allclose(
        network(images), logits, atol=1e-5
    )
    rows = torch.randn(4, 7)
    assert torch.equal(last_features(nn.Linear(7, 2), rows)[0], rows)


def test_components_are_those_of_a_principal_component_analysis() -> None:
    from sklearn.decomposition import PCA

    features = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 10)
    places, share = principal_components(features)
    pca = PCA(2).fit(features.double().numpy())
    expected = pca.transform(features.double().numpy())
    assert np.allclose(np.abs(places.numpy()), np.abs(expected))
    assert share == pytest.approx(pca.explained_variance_ratio_.sum())
    assert principal_components(torch.ones(3, 4))[1] == 0 and principal_components(torch.ones(1, 1))[0].shape == (1, 2)

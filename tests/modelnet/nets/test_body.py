"""Features of a network without its last layer, and of its layers."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

from modelnet.nets.backbone import Backbone
from modelnet.nets.body import Body
from modelnet.nets.registry import build_network
from pipeline.errors import CheckpointError, OptionsError

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))


def saved(network: nn.Module, folder: Path) -> Path:
    torch.save(network.state_dict(), folder / "w.pth")
    return folder / "w.pth"


def features(name: str, network: nn.Module, folder: Path, layer: str = "") -> Tensor:
    return Backbone(name, saved(network, folder), (64, 64), "cpu", layer=layer)(IMAGES)


def output_of(network: nn.Module, layer: str) -> Tensor:
    found: list[Tensor] = []
    handle = network.get_submodule(layer).register_forward_hook(lambda _, inputs, output: found.append(output))
    with torch.inference_mode():
        network(IMAGES)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5", "mnasnet0_5"])
def test_features_are_what_torchvision_s_last_layer_would_be_given(name: str, tmp_path: Path) -> None:
    network = models.get_model(name, weights=None).eval()
    layer: nn.Module = [module for module in network.modules() if isinstance(module, nn.Linear | nn.Conv2d)][-1]
    given: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    with torch.inference_mode():
        network(IMAGES)
    expected = given[0].relu().mean((2, 3)) if given[0].dim() == 4 else given[0]  # squeezenet ends in a convolution

    torch.testing.assert_close(features(name, network, tmp_path), expected)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_efficientnet", "test_nfnet", "test_mambaout"])
def test_features_of_timm_are_those_of_its_network_without_classes(name: str, tmp_path: Path) -> None:
    special: dict[str, Any] = {"img_size": 64} if "vit" in name else {}
    network: Any = timm.create_model(name, num_classes=5, **special).eval()
    path = saved(network, tmp_path)
    network.reset_classifier(0)
    with torch.inference_mode():
        expected = network(IMAGES)

    body = Backbone(f"timm:{name}", path, (64, 64), "cpu")

    torch.testing.assert_close(body(IMAGES), expected)
    assert body.length == expected.shape[1] and not body.loaded.head and not body.loaded.warnings


@pytest.mark.parametrize("layer", ["maxpool", "layer3", "layer4.1.bn1", "avgpool"])
def test_maps_of_a_layer_are_averaged(layer: str, tmp_path: Path) -> None:
    network = models.resnet18().eval()
    with torch.inference_mode():
        maps = create_feature_extractor(network, [layer])(IMAGES)[layer]

    torch.testing.assert_close(features("resnet18", network, tmp_path, layer), maps.mean((2, 3)))


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_of_tokens_the_class_token_is_taken_or_their_mean(pool: str) -> None:
    network = timm.create_model("test_vit", num_classes=0, img_size=64, global_pool=pool).eval()
    tokens = output_of(network, "blocks.1")
    expected = tokens[:, 0] if pool == "token" else tokens[:, 1:].mean(1)

    with torch.inference_mode():
        torch.testing.assert_close(Body(network, "test_vit", "blocks.1")(IMAGES), expected)


def test_torchvision_s_transformer_gives_its_class_token() -> None:
    network = models.VisionTransformer(64, 16, 2, 2, 8, 16, num_classes=3).eval()
    layer = "encoder.layers.encoder_layer_0"
    expected = output_of(network, layer)[:, 0]

    with torch.inference_mode():
        assert torch.equal(Body(network, "vit", layer)(IMAGES), expected)


def test_maps_whose_channels_are_last_are_averaged_over_positions() -> None:
    network = models.swin_t().eval()
    expected = [output_of(network, "features.1").mean((1, 2)), output_of(network, "features.0.0").mean((2, 3))]

    for layer, rows in zip(("features.1", "features.0.0"), expected, strict=True):
        with torch.inference_mode():
            torch.testing.assert_close(Body(network, "swin_t", layer)(IMAGES), rows)
        network.get_submodule(layer)._forward_hooks.clear()


def test_unknown_layers_and_layers_without_features_are_named() -> None:
    network = models.resnet18().eval()
    with pytest.raises(OptionsError, match=r"resnet18 has no such layer: 'layer5'\. There is layer"):
        Body(network, "resnet18", "layer5")
    with pytest.raises(OptionsError, match=r"There is conv1, bn1, relu, maxpool, layer1"):
        Body(network, "resnet18", "zzz")
    with pytest.raises(OptionsError, match=r"layer aux1 of mine gives no features: it is not run"):
        Body(models.GoogLeNet(num_classes=2, init_weights=False).eval(), "mine", "aux1")(IMAGES)


@pytest.mark.parametrize("bad", ["NaN", "another shape", "whole numbers", "none"])
@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "timm:test_resnet"])
def test_what_a_file_has_of_an_unused_last_layer_does_not_matter(name: str, bad: str, tmp_path: Path) -> None:
    state = build_network(name, 1000, 64).state_dict()
    torch.save(state, tmp_path / "whole.pth")
    head = {
        "NaN": {"fc.weight": state["fc.weight"] * torch.nan, "fc.bias": state["fc.bias"]},
        "another shape": {"fc.weight": torch.ones(3)},
        "whole numbers": {"fc.weight": torch.ones_like(state["fc.weight"], dtype=torch.int8)},
        "none": {},
    }
    body = {key: values for key, values in state.items() if not key.startswith("fc.")}
    torch.save(body | head[bad], tmp_path / "w.pth")

    found, whole = (Backbone(name, tmp_path / file, (64, 64), "cpu") for file in ("w.pth", "whole.pth"))

    assert torch.equal(found(IMAGES), whole(IMAGES))
    assert found.loaded.notes[0].startswith(f"weights: {len(body)} tensors of ")
    assert len(found.loaded.notes) == 1 and not found.loaded.warnings


def test_weights_that_lack_a_tensor_give_no_features(tmp_path: Path) -> None:
    state = models.resnet18().state_dict()
    del state["layer1.0.conv1.weight"]
    torch.save(state, tmp_path / "w.pth")

    with pytest.raises(CheckpointError, match=r"it lacks 1 tensor of resnet18, such as layer1\.0\.conv1\.weight"):
        Backbone("resnet18", tmp_path / "w.pth", (64, 64), "cpu")

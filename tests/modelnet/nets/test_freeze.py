"""Layers that are kept as they are: which they are, their mode, and what can be thawed."""

import copy

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from modelnet.nets.freeze import freeze_layers, frozen_paths, is_frozen, thaw_layers
from pipeline.errors import OptionsError


def trained(network: nn.Module) -> list[str]:
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize(
    ("network", "head"),
    [
        (models.resnet18(num_classes=3), ["fc.weight", "fc.bias"]),
        (models.squeezenet1_1(num_classes=3), ["classifier.1.weight", "classifier.1.bias"]),
        (models.mobilenet_v3_small(num_classes=3), ["classifier.3.weight", "classifier.3.bias"]),
        (timm.create_model("test_vit", num_classes=3), ["head.weight", "head.bias"]),
        (timm.create_model("test_convnext", num_classes=3), ["head.fc.weight", "head.fc.bias"]),
    ],
)
def test_all_but_head_leaves_the_last_layer_alone_to_train(network: nn.Module, head: list[str]) -> None:
    freeze_layers(network, "all-but-head", None)
    network.train()

    assert trained(network) == head
    in_training = [path for path, module in network.named_modules() if module.training and not list(module.children())]
    assert in_training == [head[0].removesuffix(".weight")]


def test_a_regular_expression_is_matched_with_the_beginning_of_paths() -> None:
    network = models.resnet18()
    freeze_layers(network, r"conv1|bn1|layer[12]", None)
    network.train()

    assert {name.partition(".")[0] for name in trained(network)} == {"layer3", "layer4", "fc"}
    assert not network.layer2[1].bn2.training and not network.layer1.training
    assert network.training and network.layer3[0].bn1.training


@pytest.mark.parametrize("freeze", ["zzz", "bn1x", "", ".*"])
def test_what_matches_nothing_or_everything_is_refused(freeze: str) -> None:
    every = freeze in ("", ".*")
    what, way = ("every layer", "leave some to train") if every else ("no layer", "or give all-but-head")
    with pytest.raises(OptionsError, match=rf"--freeze matches {what}: .*There is conv1, bn1, .*fc; {way}$") as caught:
        frozen_paths(models.resnet18(), freeze)
    assert caught.value.exit_code == 2
    with pytest.raises(OptionsError, match=r"no layer|every layer"):
        frozen_paths(nn.Linear(2, 2), "all-but-head")


@pytest.mark.parametrize(
    ("norm_stats", "changes"), [(None, [False, True]), ("keep", [False, False]), ("update", [True, True])]
)
def test_running_statistics_of_frozen_and_other_layers(norm_stats: str | None, changes: list[bool]) -> None:
    network = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))
    freeze_layers(network, "0", norm_stats)
    before = copy.deepcopy(network.state_dict())

    network.eval().train()(torch.randn(4, 3, 2, 2))

    after = network.state_dict()
    assert [not torch.equal(before[name], after[name]) for name in ("0.running_mean", "2.running_mean")] == changes
    assert not any(module.training for module in network.eval().modules())


def test_a_thawed_network_trains_as_one_that_was_never_frozen() -> None:
    for norm_stats in (None, "keep"):
        network = models.resnet18().train()
        freeze_layers(network, "all-but-head", norm_stats)
        copied = copy.deepcopy(network).train()
        assert is_frozen(copied) and not copied.bn1.training

        thaw_layers(network, norm_stats)

        assert not is_frozen(network) and is_frozen(copied)
        norms = [m.training for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all(norms) if norm_stats is None else not any(norms)
        assert network.conv1.training and network.train(False).layer1.training is False


def test_freezing_a_network_of_one_layer_is_refused_in_words_of_its_own() -> None:
    with pytest.raises(OptionsError, match=r"--freeze matches every layer: 'all-but-head'. It is one layer: leave out"):
        frozen_paths(nn.Linear(4, 2), "all-but-head")

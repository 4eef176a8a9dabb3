"""Fine-tuning: frozen layers keep their bits, rates of layers, thawing, and resuming of all that."""

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from modelnet import TrainOptions, resume, train, train_many
from modelnet.eval.features import build_features
from modelnet.runs.folder import RunFolder
from modelnet.runtime.interrupt import Stop
from modelnet.training.lr_finder import find_learning_rate
from modelnet.training.optimizer import parameter_groups
from modelnet.training.setup import Setup
from pipeline.errors import OptionsError
from tests.support.listener import Listener

SMALL = "shufflenet_v2_x0_5"

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def content(run: Path) -> dict[str, Any]:
    return RunFolder(run).load_checkpoint()


def options_of(cache: Path, weights: Path, **more: Any) -> TrainOptions:
    values: dict[str, Any] = {"model": SMALL, "weights": weights, "epochs": 3, "batch_size": 4, "threads": 1}
    return TrainOptions(cache, device="cpu", **values | more)


def test_a_frozen_body_trains_its_head_as_linear_does_on_its_features(cache_path: Path, weights: Path) -> None:
    whole = train(options_of(cache_path, weights, freeze="all-but-head", val=cache_path, lr=0.1, momentum=0.9))
    build_features(cache_path, Path("f.h5"), SMALL, weights, "cpu")
    features = Path("f.h5")
    linear = TrainOptions(
        features, val=features, model="linear", lr=0.1, momentum=0.9, epochs=3, batch_size=4, threads=1, device="cpu"
    )

    expected = train(linear).rows

    assert [row.train_loss for row in whole.rows] == pytest.approx([row.train_loss for row in expected], abs=1e-6)
    assert [row.val_loss for row in whole.rows] == pytest.approx([row.val_loss for row in expected], abs=1e-6)


@pytest.mark.parametrize("more", [{}, {"opt": "adamw", "model_ema": 0.5, "amp": True, "clip_grad": 1.0}])
def test_frozen_tensors_and_their_statistics_keep_their_bits(
    more: dict[str, Any], cache_path: Path, weights: Path
) -> None:
    file = torch.load(weights, weights_only=True)
    heard = Listener()
    run = train(options_of(cache_path, weights, freeze="all-but-head", **more), heard).run

    for part in ("weights", "average") if more else ("weights",):
        found = content(run)[part]
        assert all(torch.equal(found[name], tensor) for name, tensor in file.items() if not name.startswith("fc."))
    assert len(content(run)["optimizer"]["state"]) in (0, 2)
    assert "frozen: all but fc; 2,050 of 343,842 weights are trained" in heard.notes


@pytest.mark.parametrize(
    "more",
    [
        {"freeze": "all-but-head"},
        pytest.param({"freeze": "conv1|stage2", "thaw_epoch": 2, "head_lr": 10.0}, marks=pytest.mark.long),
        pytest.param(
            {"freeze": "all-but-head", "thaw_epoch": 2, "opt": "adamw", "model_ema": 0.9, "norm_stats": "keep"},
            marks=pytest.mark.long,
        ),
    ],
)
def test_a_run_resumes_to_the_same_bits_before_and_after_thawing(
    more: dict[str, Any], cache_path: Path, weights: Path
) -> None:
    options = options_of(cache_path, weights, **more)
    whole = content(train(options).run)
    for cut in (1, 2, 3, 4, 5):
        stop = Stop()
        run = train(options, Listener(stop, cut), stop).run
        resume(run)
        found = content(run)
        for part in ("weights", "average"):
            assert all(torch.equal(found[part][name], tensor) for name, tensor in whole[part].items())


def test_thawed_layers_train_from_their_epoch_on(cache_path: Path, weights: Path) -> None:
    file = torch.load(weights, weights_only=True)
    name = "stage2.0.branch1.0.weight"
    for epochs, same in ((1, True), (2, False)):
        run = train(options_of(cache_path, weights, freeze="all-but-head", thaw_epoch=2, epochs=epochs)).run
        assert torch.equal(content(run)["weights"][name], file[name]) == same


def test_the_last_layer_has_its_factor_on_the_rate(cache_path: Path, weights: Path) -> None:
    setup = Setup(options_of(cache_path, weights, head_lr=10.0, lr=0.01, sched="cosine"), Listener())
    setup.schedule.set(setup.state.optimizer, 0, 0)

    rates = [(group["lr"], len(group["params"])) for group in setup.state.optimizer.param_groups]
    assert rates == [(0.01, len(list(setup.state.network.parameters())) - 2), (pytest.approx(0.1), 2)]
    assert setup.state.learning_rate == 0.01
    assert train(options_of(cache_path, weights, head_lr=10.0, lr=0.01)).rows[0].lr == pytest.approx(0.01)


def test_rates_decay_from_layer_to_layer_in_timm_s_groups(cache_path: Path) -> None:
    network = timm.create_model("test_vit", num_classes=2)
    optim: Any = import_module("timm.optim")
    expected = optim.param_groups_layer_decay(network, layer_decay=0.5, weight_decay=0.0)
    scales = {id(p): group["lr_scale"] for group in expected for p in group["params"]}

    groups = parameter_groups(network, TrainOptions(cache_path, model="timm:test_vit", layer_decay=0.5))

    assert {id(p): group["lr_scale"] for group in groups for p in group["params"]} == scales
    with pytest.raises(OptionsError, match="--layer-decay needs timm's groups of layers"):
        parameter_groups(models.resnet18(), TrainOptions(cache_path, model="resnet18", layer_decay=0.5))
    with pytest.raises(OptionsError, match="--head-lr has no effect"):
        parameter_groups(nn.Linear(2, 2), TrainOptions(cache_path, model="linear", head_lr=2.0))


def test_lr_find_leaves_frozen_layers_alone(cache_path: Path, weights: Path) -> None:
    options = options_of(cache_path, weights, freeze="all-but-head")

    assert find_learning_rate(options, rates=[0.001, 0.1]).losses


def test_options_that_freeze_wrongly_are_usage_errors(cache_path: Path, weights: Path) -> None:
    with pytest.raises(ValueError, match=r"freeze is no regular expression: '\('"):
        options_of(cache_path, weights, freeze="(")
    idle = options_of(cache_path, weights, thaw_epoch=2).idle
    assert idle == ["--thaw-epoch 2 changes nothing without --freeze"]
    with pytest.raises(OptionsError, match="--freeze matches no layer"):
        train(options_of(cache_path, weights, freeze="nothing"))
    assert not Path("runs").exists()
    heard = Listener()
    train(TrainOptions(cache_path, model=SMALL, freeze="stage2", epochs=1, batch_size=4, thaw_epoch=2), heard)
    assert "--freeze keeps layers that were drawn at random: give --weights" in heard.warnings
    assert "--thaw-epoch 2 thaws nothing: there are 1 epochs" in heard.warnings


@pytest.mark.parametrize("sweep", [{"head_lr": [1.0, 10.0]}, {"freeze": ["features", "classifier.0"]}])
def test_each_network_of_a_sweep_of_these_has_the_bits_of_the_run_alone(
    sweep: dict[str, list[Any]], cache_path: Path
) -> None:
    result = train_many(TrainOptions(cache_path, epochs=2, batch_size=4, threads=1), [0], sweep=sweep)

    for own, run in zip(result.members, result.runs, strict=True):
        expected, found = (content(path)["weights"] for path in (train(own).run, run))
        assert all(torch.equal(found[name], values) for name, values in expected.items())

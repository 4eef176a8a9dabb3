"""Weights that are exported as safetensors: torchvision and timm load them, and prepare images alike."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import models

from modelnet import Trained, TrainOptions, train
from modelnet.eval.export_weights import crop_of, export_weights
from modelnet.eval.features import build_features
from pipeline import build_cache
from pipeline.errors import CheckpointError, OptionsError
from pipeline.recipe import Recipe

SMALL = "shufflenet_v2_x0_5"
IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def trained_with(cache: Path, **options: Any) -> Trained:
    return Trained.load(train(TrainOptions(cache, epochs=1, device="cpu", **options)).run, device="cpu")


def written(trained: Trained, weights: Path | None = None) -> dict[str, Any]:
    exported = export_weights(trained, weights)
    Path("out").mkdir()
    Path("out/model.safetensors").write_bytes(exported.data)
    Path("out/config.json").write_bytes(exported.beside["config.json"])
    config: dict[str, Any] = json.loads(exported.beside["config.json"])
    return config


def logits(network: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = network.eval()(IMAGES)
    return found


def test_torchvision_loads_the_weights(cache_path: Path) -> None:
    trained = trained_with(cache_path, model=SMALL)
    config = written(trained)

    network = models.get_model(config["architecture"], num_classes=config["num_classes"])
    network.to(memory_format=torch.channels_last)  # as the trained one: torch 2.8 rounds otherwise without
    network.load_state_dict(load_file("out/model.safetensors"))

    assert torch.equal(logits(network), logits(trained.network))
    assert config["label_names"] == [str(class_id) for class_id in trained.class_ids]


@pytest.mark.parametrize("name", ["test_resnet.r160_in1k", "test_vit"])
def test_timm_loads_the_weights_and_the_configuration(name: str, cache_path: Path) -> None:
    trained = trained_with(cache_path, model=f"timm:{name}")
    config = written(trained)
    arguments = config.get("model_args", {})

    by_name = timm.create_model(
        config["architecture"], num_classes=2, checkpoint_path="out/model.safetensors", **arguments
    )
    by_folder: Any = timm.create_model("local-dir:out", pretrained=True)

    for network in (by_name, by_folder):
        assert torch.equal(logits(network.to(memory_format=torch.channels_last)), logits(trained.network))
    assert list(by_folder.pretrained_cfg["input_size"]) == [3, 64, 64]


@pytest.mark.parametrize(
    "recipe",
    [{"size": 64}, {"size": 64, "fit": "crop", "resize_to": 73}, {"size": (48, 64), "interpolation": "bicubic"}],
)
def test_timm_prepares_an_image_to_the_same_numbers(recipe: Mapping[str, Any], shared_photos: Path) -> None:
    build_cache(shared_photos, Path("c.h5"), workers=1, **recipe)
    trained = trained_with(Path("c.h5"), model="timm:test_resnet")
    written(trained)
    photo = next((shared_photos / "1").iterdir())

    network = timm.create_model("local-dir:out", pretrained=True)
    data: Any = timm.data
    prepare = data.create_transform(**data.resolve_model_data_config(network))

    expected = trained.prepare(photo.read_bytes())
    torch.testing.assert_close(prepare(Image.open(photo).convert("RGB")), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "size", "crop"),
    [
        ({"size": 224}, (224, 224), {"crop_mode": "squash", "crop_pct": 1.0}),
        ({"size": 256}, (224, 224), {"crop_mode": "squash", "crop_pct": 0.875}),
        ({"size": 224, "fit": "crop", "resize_to": 256}, (224, 224), {"crop_mode": "center", "crop_pct": 0.875}),
        ({"size": 224, "fit": "crop", "resize_to": 224}, (224, 224), {"crop_mode": "center", "crop_pct": 1.0}),
        ({"size": (192, 256), "fit": "crop"}, (192, 256), {}),
        ({"size": 224, "fit": "pad", "pad_color": (0, 0, 0)}, (224, 224), {}),
        ({"size": (256, 300)}, (224, 224), {}),
    ],
)
def test_the_crop_is_said_in_timm_s_words_or_left_out(
    recipe: Mapping[str, Any], size: tuple[int, int], crop: Mapping[str, Any]
) -> None:
    assert crop_of(Recipe(mean=(0.5,) * 3, std=(0.5,) * 3, **recipe), size) == crop


def test_every_size_and_crop_comes_back_from_its_share() -> None:
    for stored in range(64, 600):
        crop = crop_of(Recipe(size=stored, mean=(0.5,) * 3, std=(0.5,) * 3), (64, 64))
        assert math.floor(64 / crop["crop_pct"]) == stored


def test_a_linear_layer_on_features_becomes_the_head_of_their_network(cache_path: Path) -> None:
    torch.manual_seed(1)
    state = models.get_model(SMALL, weights=None, num_classes=2).state_dict()
    torch.save(state | {"fc.bias": torch.full((2,), torch.nan)}, "w.pth")  # of a last layer that is replaced
    build_features(cache_path, Path("f.h5"), SMALL, Path("w.pth"), "cpu")
    trained = trained_with(Path("f.h5"), model="linear")
    config = written(trained, Path("w.pth"))

    network = models.get_model(config["architecture"], num_classes=2)
    network.load_state_dict(load_file("out/model.safetensors"))

    found = logits(network).double().softmax(1)
    torch.testing.assert_close(found, trained.on_images(Path("w.pth")).probabilities(IMAGES), atol=1e-6, rtol=1e-5)

    torch.save(models.get_model(SMALL, weights=None).state_dict(), "other.pth")
    with pytest.raises(CheckpointError, match="the weights are others"):
        export_weights(trained, Path("other.pth"))
    build_features(cache_path, Path("l.h5"), SMALL, Path("w.pth"), "cpu", layer="stage3")
    with pytest.raises(OptionsError, match=r"features of shufflenet_v2_x0_5 at stage3\. Give --format onnx"):
        export_weights(trained_with(Path("l.h5"), model="linear"), Path("w.pth"))

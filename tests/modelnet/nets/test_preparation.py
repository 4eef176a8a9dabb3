"""Rows built like pretrained weights are what torchvision's and timm's own transforms give."""

import io
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from modelnet.nets.preparation import preparation_hint, preparation_of, pretrained_hint
from modelnet.nets.registry import build_network, import_timm
from pipeline.decode.decode import decode
from pipeline.errors import OptionsError
from pipeline.recipe import Recipe, pixels_to_row
from tests.support.photos import textured


def picture(width: int, height: int) -> tuple[bytes, Image.Image]:
    """Return a JPEG, and what Pillow decodes of it."""
    file = io.BytesIO()
    textured(width, height, 1).save(file, "JPEG")
    return file.getvalue(), Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def row(data: bytes, name: str) -> torch.Tensor:
    recipe = Recipe(**preparation_of(name))
    return torch.from_numpy(pixels_to_row(decode(data, recipe).pixels_HWC, recipe))


@pytest.mark.parametrize(("width", "height"), [(500, 375), (299, 640), (60, 50)])
@pytest.mark.parametrize("name", ["resnet18", "resnet50:IMAGENET1K_V1", "resnet50", "efficientnet_v2_s", "vit_b_16"])
def test_a_row_has_the_bits_of_torchvisions_transforms(name: str, width: int, height: int) -> None:
    data, image = picture(width, height)
    network, _, weights = name.partition(":")
    transforms = models.get_model_weights(network)[weights or "DEFAULT"].transforms()
    assert torch.equal(row(data, name), transforms(image))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18.a1_in1k", "mixer_b16_224"])
def test_a_row_has_the_bits_of_timms_transform(name: str) -> None:
    data, image = picture(500, 375)
    timm = import_timm()
    config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(name).to_dict())
    transform: Any = timm.data.create_transform(**config)
    assert torch.equal(row(data, f"timm:{name}"), transform(image))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("resnet1", "no such network: 'resnet1'. Near it: resnet"),
        ("modelnet", "no such network"),
        ("vit_tiny_patch16_224", "Near it: timm:vit_tiny_patch16_224, "),
        ("timm:vit_tiny_patch16_22", "Near it: timm:vit_tiny_patch16_224, "),
        ("runs/nothing", r"Give a network of torchvision, timm:NAME, the folder of a run, or a cache \(\.h5\)"),
        ("resnet50:V3", "no such weights of resnet50: 'V3'. It has IMAGENET1K_V1, IMAGENET1K_V2"),
        ("resnet50:IMAGENET_V2", "no such weights of resnet50: 'IMAGENET_V2'. Near it: IMAGENET1K_V2, "),
        ("timm:resnet180", "no such network: 'timm:resnet180'. Near it: timm:resnet18"),
        ("timm:resnet18.nobody", "no such network"),
    ],
)
def test_a_name_that_neither_library_knows_is_refused_with_the_nearest(name: str, text: str) -> None:
    with pytest.raises(OptionsError, match=text):
        preparation_of(name)


def test_a_preparation_that_no_recipe_can_say_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = import_timm()  # only its newest versions have networks with such a crop
    border = replace(timm.get_pretrained_cfg("resnet18"), crop_mode="border")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: border)
    with pytest.raises(OptionsError, match=r"which a recipe cannot express\. Give --fit and --size yourself"):
        preparation_of("timm:resnet18")


def test_a_cache_of_another_preparation_is_hinted_at() -> None:
    like, file = Recipe(**preparation_of("resnet18")), Path("w.pth")
    assert preparation_hint("resnet18", file, like, None) == ""
    assert preparation_hint("resnet18", file, Recipe(), None) == (
        "the pretrained weights of resnet18 want another fit, resize to, mean, std: build-cache --like resnet18"
    )
    assert "want another size:" in preparation_hint("resnet18", file, like, (192, 192))
    assert preparation_hint("modelnet", file, Recipe(), None) == "" == preparation_hint("linear", file, Recipe(), None)


def test_a_file_of_older_weights_is_known_by_its_name() -> None:
    older = Recipe(**preparation_of("resnet50:IMAGENET1K_V1"))
    assert preparation_hint("resnet50", Path("a/resnet50-0676ba61.pth"), older, None) == ""
    for file, weights in (("resnet50-0676ba61.pth", "resnet50:IMAGENET1K_V1"), ("resnet50-11ad3fa6.pth", "resnet50")):
        hint = preparation_hint("resnet50", Path(file), Recipe(), None)
        assert hint.startswith(f"the pretrained weights of {weights} want another fit")
        assert hint.endswith(f"build-cache --like {weights}")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_a_pretrained_inception_sees_what_torchvision_s_sees(name: str) -> None:
    data, image = picture(500, 375)
    prepared = models.get_model_weights(name)["DEFAULT"].transforms()(image)
    theirs: Any = models.get_model(name, weights=None, aux_logits=False, init_weights=False, transform_input=True)
    expected = theirs._transform_input(prepared[None])[0]

    torch.testing.assert_close(row(data, name), expected, atol=1e-5, rtol=1e-5)
    ours: Any = build_network("googlenet", 2, 64)
    assert not ours.transform_input


def test_mean_and_std_are_numbers_of_the_recipe() -> None:
    assert np.allclose(Recipe(**preparation_of("resnet18")).mean, (0.485, 0.456, 0.406))


@pytest.mark.parametrize("model", ["modelnet", "linear", "net.py:Net"])
def test_networks_without_pretrained_weights_import_no_torchvision(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    assert pretrained_hint(model) == ""

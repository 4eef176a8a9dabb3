"""The compiled kernel and PyTorch's own steps give torchvision's bits, whatever the recipe."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import Normalize

from pipeline.load import normalize as module
from pipeline.load import threads as threads_module
from pipeline.load.normalize import compiled_kernel, normalize, normalize_rows
from pipeline.recipe import Recipe
from pipeline.system.native import compiled

RECIPES = [
    Recipe(size=16, dtype="uint8"),
    Recipe(size=16, dtype="uint8", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    Recipe(size=16, dtype="uint8", mean=(0.0, 1.0, 0.1), std=(1.0, 1e-3, 3.7)),
]
EVERY_VALUE_NCHW = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16).contiguous()


@pytest.fixture(params=["compiled", "in steps"])
def way(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way to normalize on the CPU."""
    folder = request.getfixturevalue("kernels") if request.param == "compiled" else Path("nothing is here")
    monkeypatch.setattr(module, "compiled", lambda name: compiled(name, folder))
    kernel = compiled_kernel.__wrapped__()
    assert (kernel is None) == (request.param == "in steps")
    monkeypatch.setattr(module, "compiled_kernel", lambda: kernel)
    return str(request.param)


def torchvisions(pixels_NCHW: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    normalized: torch.Tensor = Normalize(recipe.mean, recipe.std)(pixels_NCHW.float() / 255)
    return normalized


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_every_value_of_every_channel_has_the_bits_of_torchvision(way: str, recipe: Recipe) -> None:
    assert torch.equal(normalize(EVERY_VALUE_NCHW, recipe), torchvisions(EVERY_VALUE_NCHW, recipe))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [1, 5, 16])
def test_rows_are_gathered_in_any_order_by_any_number_of_threads(
    way: str, size: int, threads: int, set_threads: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(size=size, dtype="uint8")
    images = torch.randint(0, 256, (7, 3, size, size), dtype=torch.uint8)
    rows = torch.randint(0, 7, (67,))
    out = torch.full((67, 3, size, size), torch.nan)
    monkeypatch.setattr(threads_module, "_BYTES_A_THREAD", 1)
    set_threads(threads)

    normalize_rows(images, rows, recipe, out)

    assert torch.equal(out, torchvisions(images[rows], recipe))


def test_rows_that_are_every_second_of_a_tensor_are_read_as_such(way: str) -> None:
    images = torch.randint(0, 256, (7, 3, 4, 4), dtype=torch.uint8)
    out = torch.empty(3, 3, 4, 4)
    normalize_rows(images, torch.arange(6)[::2], Recipe(size=4, dtype="uint8"), out)
    assert torch.equal(out, torchvisions(images[:6:2], Recipe(size=4)))


@pytest.mark.parametrize("size", [16, 224])
def test_a_rank_without_an_image_of_a_batch_gets_an_empty_one(way: str, size: int) -> None:
    pixels = torch.zeros((0, 3, size, size), dtype=torch.uint8)

    assert normalize(pixels, Recipe(size=size, dtype="uint8")).shape == (0, 3, size, size)

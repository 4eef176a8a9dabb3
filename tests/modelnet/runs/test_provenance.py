"""What config.json records of versions."""

from importlib.metadata import version

import torch

from modelnet.runs.provenance import versions


def test_versions_name_all_that_computes_or_decodes() -> None:
    found = versions("modelnet", torch.device("cpu"))
    assert set(found) == {"python", "modelnet-cache", "torch", "torchvision", "numpy", "pillow", "simplejpeg"}
    assert found["pillow"] == version("pillow")
    assert versions("timm:resnet18", torch.device("cpu"))["timm"] == version("timm")
    assert versions("modelnet", torch.device("cuda"))["cuda"] == torch.version.cuda

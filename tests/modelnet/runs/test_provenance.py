"""What config.json records of weights and of versions."""

import hashlib
import os
from importlib.metadata import version
from pathlib import Path

import torch

from modelnet.runs.provenance import digest_of, versions


def test_versions_name_all_that_computes_or_decodes() -> None:
    found = versions("modelnet", torch.device("cpu"))
    assert set(found) == {"python", "modelnet-cache", "torch", "torchvision", "numpy", "pillow", "simplejpeg"}
    assert found["pillow"] == version("pillow")
    assert versions("timm:resnet18", torch.device("cpu"))["timm"] == version("timm")
    assert versions("modelnet", torch.device("cuda"))["cuda"] == torch.version.cuda


def test_the_digest_is_that_of_the_file_and_follows_its_changes(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(0, len(content) + content[0]))
        assert digest_of(file) == hashlib.sha256(content).hexdigest()

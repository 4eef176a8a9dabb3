"""What config.json records of versions, and the command that repeats a run."""

import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from modelnet import TrainOptions
from modelnet.runs.provenance import command, versions
from modelnet.runtime.ranks import Ranks


def test_versions_name_all_that_computes_or_decodes() -> None:
    found = versions("modelnet", torch.device("cpu"))
    packages = {"modelnet-cache", "torch", "torchvision", "numpy", "pillow", "simplejpeg", "pillow-heif"}
    assert set(found) == {"python"} | packages
    assert found["pillow"] == version("pillow")
    assert versions("timm:resnet18", torch.device("cpu"))["timm"] == version("timm")
    assert versions("modelnet", torch.device("cuda"))["cuda"] == torch.version.cuda


@pytest.mark.parametrize(
    ("started", "ranks", "begins"),
    [
        ("/home/me/clone/cli.py", 1, "python cli.py train --cache c.h5 "),
        ("/home/me/clone/cli.py", 2, "torchrun --nproc-per-node 2 cli.py train --cache c.h5 "),
        ("/opt/venv/bin/modelnet", 1, "modelnet train --cache c.h5 "),
        ("/opt/venv/bin/modelnet", 2, "torchrun --nproc-per-node 2 --no-python modelnet train --cache c.h5 "),
    ],
)
def test_the_command_that_repeats_a_run_starts_as_the_run_did(
    started: str, ranks: int, begins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [started, "train"])
    assert command(TrainOptions(Path("c.h5")), Ranks(0, ranks, 0, ranks)).startswith(begins)

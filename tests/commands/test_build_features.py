"""build-features: the cache of features that it builds, and what it refuses."""

import hashlib
from pathlib import Path

import pytest
import torch
from torchvision import models

from tests.support.command_line import RunCli, one_line


def save_weights(folder: Path) -> Path:
    torch.save(models.resnet18().state_dict(), folder / "resnet18.pth")
    return folder / "resnet18.pth"


def test_features_are_built_once_and_then_up_to_date(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    weights = save_weights(tmp_path)
    command = ("build-features", cache_path, "--model", "resnet18", "--weights", weights)
    path = f"data/features/photos-resnet18-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}.h5"

    first, second = run_cli(*command, "--device", "cpu"), run_cli(*command, "--device", "cpu")

    assert first.code == 0, first.stderr
    assert first.stderr.startswith(f"weights: 120 tensors of {weights}, SHA-256 ")
    assert "hint: the pretrained weights of resnet18 want another size" in first.stderr
    assert f"{path}: 8 images, " in first.stdout.splitlines()[-1]
    assert "is up to date; nothing was computed" in second.stdout
    trained = run_cli("train", "--cache", path, "--model", "linear", "--epochs", "1")
    assert trained.code == 0, trained.stderr


def test_a_folder_of_images_gives_the_command_that_builds_its_cache(
    shared_photos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("build-features", shared_photos, "--model", "resnet18", "--weights", save_weights(tmp_path))

    expected = f"error: no cache of images: {shared_photos}: this is a folder. Build its cache first: "
    assert (ended.code, ended.stdout) == (66, "")
    assert one_line(ended.stderr) == f"{expected}python cli.py build-cache {shared_photos}"


def test_missing_weights_are_an_error_before_any_file_is_written(
    cache_path: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    ended = run_cli("build-features", cache_path, "--model", "resnet18", "--weights", "missing.pt")

    assert one_line(ended.stderr).startswith("error: no weights there: missing.pt: no such file")
    assert (ended.code, ended.stdout) == (66, "")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("resnet18", "; those of resnet18 are https://download.pytorch.org/models/resnet18-f37072fd.pth"),
        ("net.py:Net", ""),
    ],
)
def test_without_weights_it_says_which_file_is_meant(model: str, said: str, cache_path: Path, run_cli: RunCli) -> None:
    ended = run_cli("build-features", cache_path, "--model", model)

    assert ended.code == 2 and one_line(ended.stderr).startswith(f"error: --weights are needed{said}. ")

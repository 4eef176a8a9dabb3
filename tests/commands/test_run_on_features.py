"""Every command on a run whose last layer was trained on cached features: it holds the whole network."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from modelnet.runs.folder import RunFolder
from tests.support.command_line import RunCli

SMALL = "shufflenet_v2_x0_5"
CPU = ("--device", "cpu")


def said(run_cli: RunCli, runs: str, photo: Path, evaluated: Sequence[Any], compared: bool) -> dict[str, Any]:
    """Return what each command prints of runs/a, or of it and runs/b, and the bytes that export writes."""
    one, both = f"{runs}/a", (f"{runs}/a", f"{runs}/b")
    commands: dict[str, tuple[Any, ...]] = {
        "evaluate": ("evaluate", one, *evaluated, "--json", *CPU),
        "predict": ("predict", one, photo, "--json", *CPU),
        "onnx": ("export", one, "--out", "model.onnx"),
        "safetensors": ("export", one, "--out", "weights/model.safetensors"),
        "report": ("report", *both, "--out", "report.html"),
        "show": ("show", one, "--out", "show.html", *CPU),
        "runs": ("runs", *both),
    }
    if compared:
        commands["compare"] = ("compare", *both)
    found: dict[str, Any] = {}
    for name, words in commands.items():
        ended = run_cli(*words)
        assert ended.code == 0, (name, ended)
        found[name] = ended.stdout.replace(runs, "runs")
    return found


@pytest.mark.long
@pytest.mark.parametrize("validated", ["", "--val", "--val-fraction"])
def test_commands_need_neither_features_nor_weights_of_a_run(
    validated: str, cache_path: Path, shared_photos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    torch.manual_seed(3)
    torch.save(models.get_model(SMALL, weights=None).state_dict(), tmp_path / "w.pth")
    values: dict[str, list[Any]] = {"": [], "--val": [cache_path], "--val-fraction": ["0.4"]}
    images = [*([validated] if validated else []), *values[validated]]
    frozen = ("--model", SMALL, "--weights", "w.pth", "--freeze", "all-but-head", "--epochs", "2", "--batch-size", "4")
    for name, rate in (("a", "0.1"), ("b", "0.01")):
        ended = run_cli("train", "--cache", cache_path, *images, *frozen, *CPU, "--lr", rate, "--name", name)
        assert ended.code == 0 and "the frozen layers run once" in ended.stderr
    photo, evaluated = shared_photos / "1" / "n03874293_7.JPEG", [] if validated else ["--cache", cache_path]

    before = said(run_cli, "runs", photo, evaluated, bool(validated))

    run = RunFolder(tmp_path / "runs/a")
    if validated:
        scores, last = json.loads(before["evaluate"]), run.read_metrics()[-1]
        assert scores["loss"] == pytest.approx(last.val_loss, abs=1e-5) and scores["accuracy"] == last.val_acc
    if validated == "--val":
        (row,) = [row for row in run.read_predictions() if (row.class_id, row.file) == ("1", photo.name)]
        assert row.p_true == pytest.approx(json.loads(before["predict"])["probabilities"]["1"], abs=1e-5)
    for path in [*(tmp_path / "data/features").iterdir(), tmp_path / "w.pth"]:
        path.unlink()
    (tmp_path / "runs").rename(tmp_path / "kept")
    assert said(run_cli, "kept", photo, evaluated, bool(validated)) == before

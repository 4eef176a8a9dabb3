"""Exported networks, used as another program would: with what the file itself says of images and classes alone."""

import io
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torchvision import models
from torchvision.transforms import CenterCrop, Compose, Normalize, Resize, ToTensor

from cli import cli
from modelnet import Trained, TrainOptions, predict, train
from modelnet.eval import export as export_module
from modelnet.eval.export import export, preparation
from modelnet.eval.features import build_features
from pipeline import build_cache
from pipeline.errors import CheckpointError, OptionsError, RunError

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")

Network = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def trained_on(cache: Path, **options: Any) -> Path:
    wanted: dict[str, Any] = {"batch_size": 4, "epochs": 2, "threads": 1, "device": "cpu"} | options
    return train(TrainOptions(cache, **wanted)).run


def typed(*words: "str | Path") -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


def read_onnx(data: bytes) -> tuple[Network, dict[str, Any]]:
    onnx.checker.check_model(onnx.load_from_string(data), full_check=True)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) in (("pixels", "probabilities"), ("images", "logits"))
    recorded = session.get_modelmeta().custom_metadata_map
    texts = {name: recorded.pop(name) for name in ("model", "run", "filter")}
    return (
        lambda inputs: session.run(None, {taken.name: inputs})[0],
        texts | {name: json.loads(value) for name, value in recorded.items()},
    )


def read_pt2(data: bytes) -> tuple[Network, dict[str, Any]]:
    extra = {"modelnet.json": ""}
    network = torch.export.load(io.BytesIO(data), extra_files=extra).module()
    return lambda inputs: network(torch.from_numpy(inputs)).detach().numpy(), json.loads(extra["modelnet.json"])


READ = {"onnx": read_onnx, "torch": read_pt2}


def check_answers(data: bytes, form: str, trained: Trained, photos: Path, raw: bool = False) -> None:
    """Prepare image files by torchvision, as the exported file says, and compare with what `predict` answers."""
    network, recorded = READ[form](data)
    recipe, crop_size = recorded["recipe"], recorded["crop_size"]
    steps = [Resize(recipe["size"]), *([] if crop_size is None else [CenterCrop(crop_size)])]
    normalized = (ToTensor(), Normalize(recipe["mean"], recipe["std"]))
    prepare = Compose([*steps, *(normalized if raw else (np.asarray,))])
    answers = list(predict(trained, [photos], top_k=2))
    images = np.stack([np.asarray(prepare(Image.open(answer.file).convert("RGB"))) for answer in answers])

    found = torch.from_numpy(network(images)).double()
    found = found.softmax(1) if raw else found
    assert images.dtype == (np.float32 if raw else np.uint8)
    said = torch.tensor([[dict(answer.classes)[label] for label in (0, 1)] for answer in answers], dtype=torch.float64)
    torch.testing.assert_close(found, said, rtol=0, atol=1e-5)
    assert found[:, 0].max() - found[:, 0].min() > 1e-4  # the images make a difference
    alone = np.concatenate([network(image[None]) for image in images])
    np.testing.assert_allclose(alone, network(images), rtol=1e-5, atol=1e-5)
    assert recorded["class_ids"] == [1, 2] and len(recorded["class_names"]) == 2


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_modelnet_answers_as_predict_does_at_its_end_and_at_its_best(
    form: str, cache_path: Path, shared_photos: Path
) -> None:
    run = trained_on(cache_path, val=cache_path, lr=0.05, epochs=12, model_ema=0.8)
    answers = []
    for checkpoint in ("last", "best"):
        ended = typed("export", run, "--format", form, "--checkpoint", checkpoint, "--out", f"out/{checkpoint}.bin")
        assert ended.exit_code == 0
        assert ended.stderr.startswith("note: the weights are those of epoch") == (checkpoint == "best")
        size, checked = ended.stdout.splitlines()[:2]
        assert size.startswith(f"out/{checkpoint}.bin: ")
        assert size.endswith(" kB: pixels (N × 64 × 64 × 3, uint8) -> probabilities (N × 2)")
        by = "onnxruntime" if form == "onnx" else "torch"
        assert checked.startswith(f"checked: by {by} its probabilities differ by")
        data = Path(f"out/{checkpoint}.bin").read_bytes()
        check_answers(data, form, Trained.load(run, checkpoint, "cpu"), shared_photos)
        answers.append(READ[form](data)[0](np.full((1, 64, 64, 3), 99, np.uint8)))
    assert abs(answers[0] - answers[1]).max() > 1e-4
    beside = {"infer.py", "infer.json"} if form == "onnx" else set()
    assert {path.name for path in Path("out").iterdir()} == {"last.bin", "best.bin", *beside}


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_raw_network_takes_normalized_images_and_gives_logits(
    form: str, cache_path: Path, shared_photos: Path
) -> None:
    run = trained_on(cache_path, lr=0.05, epochs=4)
    size, checked = typed("export", run, "--format", form, "--raw", "--out", "raw/net").stdout.splitlines()
    assert size.endswith(" kB: images (N × 3 × 64 × 64, float32) -> logits (N × 2)") and "its logits differ" in checked
    check_answers(Path("raw/net").read_bytes(), form, Trained.load(run, device="cpu"), shared_photos, raw=True)
    assert [path.name for path in Path("raw").iterdir()] == ["net"]
    refused = typed("export", run, "--raw", "--format", "safetensors")
    assert refused.exit_code == 2 and "weights alone are raw" in refused.stderr


@pytest.mark.long
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_torchvision_network_of_cropped_images_answers_as_predict_does(
    form: str, shared_photos: Path, tmp_path: Path
) -> None:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    build_cache(shared_photos, "c.h5", size=72, dtype="uint8", workers=1, mean=mean, std=std)
    run = trained_on(Path("c.h5"), model="squeezenet1_1", crop_size=64, epochs=1, lr=0.001)
    trained = Trained.load(run, device="cpu")
    exported = export(trained, form)
    assert exported.shape == (64, 64, 3) and exported.difference <= 1e-5
    check_answers(exported.data, form, trained, shared_photos)


def test_a_run_with_amp_is_exported_in_float32_and_that_is_said(cache_path: Path) -> None:
    exported = export(Trained.load(trained_on(cache_path, amp=True, epochs=1), device="cpu"), "torch")
    last = exported.text(Path("x.pt2")).splitlines()[-1]
    assert last == "note: it computes in float32, predict in bfloat16 (--amp): probabilities differ a little"


def test_the_filter_that_resizes_is_recorded(cache_path: Path) -> None:
    recorded = preparation(Trained.load(trained_on(cache_path, epochs=1), device="cpu"))
    assert recorded["filter"] == "bilinear, antialiased: Pillow's Image.resize with Resampling.BILINEAR"


def test_a_network_on_features_is_exported_behind_the_frozen_one(cache_path: Path, shared_photos: Path) -> None:
    torch.manual_seed(0)
    torch.save(models.resnet18().state_dict(), "resnet18.pth")
    build_features(cache_path, Path("f.h5"), "resnet18", Path("resnet18.pth"), "cpu")
    run = trained_on(Path("f.h5"), model="linear", lr=0.05)
    without = typed("export", run)
    assert isinstance(without.exception, RunError) and "whose weights are not kept here" in str(without.exception)
    assert typed("export", run, "--weights", "resnet18.pth").exit_code == 0
    data = (run / "model.onnx").read_bytes()
    check_answers(data, "onnx", Trained.load(run, device="cpu").on_images(Path("resnet18.pth")), shared_photos)
    recorded = read_onnx(data)[1]
    assert (recorded["model"], recorded["features"]["model"]) == ("linear", "resnet18")


@pytest.mark.long
@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_network_up_to_a_layer_is_exported_without_what_is_behind_it(form: str, cache_path: Path) -> None:
    weights, name = Path("w.pth"), "shufflenet_v2_x0_5"
    torch.save(models.get_model(name).state_dict(), weights)
    build_features(cache_path, Path("f.h5"), name, weights, "cpu", layer="stage2")
    trained = Trained.load(trained_on(Path("f.h5"), model="linear"), device="cpu").on_images(weights)

    exported = export(trained, form)

    assert exported.difference < 1e-5
    assert len(exported.data) < weights.stat().st_size / 2


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_a_file_says_nothing_of_the_machine_that_wrote_it(form: str, cache_path: Path) -> None:
    data = export(Trained.load(trained_on(cache_path), device="cpu"), form).data
    places = (Path(torch.__file__).parent, Path(export_module.__file__).parent, Path.cwd(), Path.home())
    assert not [place for place in places if len(place.parts) > 1 and str(place).encode() in data]
    assert len(data) < 50_000


def test_a_package_that_is_missing_is_named_with_what_to_type(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_on(cache_path)
    monkeypatch.setattr(
        "modelnet.eval.export.find_spec", lambda name: None if name == "onnxruntime" else find_spec(name)
    )
    unchecked = typed("export", run)
    assert unchecked.exit_code == 0 and "checked" not in unchecked.stdout
    assert unchecked.stderr == "warning: not checked: onnxruntime is not installed\n"
    before = (run / "model.onnx").read_bytes()

    monkeypatch.setattr(
        "modelnet.eval.export.find_spec", lambda name: None if name.startswith("onnx") else find_spec(name)
    )
    missing = typed("export", run)
    assert isinstance(missing.exception, OptionsError)
    assert str(missing.exception) == (
        "ONNX cannot be written: onnx and onnxscript are not installed. "
        "In a clone of modelnet-cache, type: pip install '.[export]'; with a wheel: pip install 'FILE.whl[export]'"
    )
    assert typed("export", run, "--format", "torch").exit_code == 0
    assert (run / "model.onnx").read_bytes() == before


def test_what_gives_other_logits_or_cannot_be_exported_is_not_written(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = trained_on(cache_path)
    other = export(Trained.load(trained_on(cache_path, seed=1), device="cpu"), "torch").data
    raw = export(Trained.load(trained_on(cache_path, seed=1), device="cpu"), "torch", raw=True).data
    for options, data in (((), other), (("--raw",), raw)):
        with monkeypatch.context() as patched:
            patched.setattr(export_module, "_torch_bytes", lambda *of, data=data: data)
            ended = typed("export", run, "--format", "torch", *options)
        assert isinstance(ended.exception, CheckpointError)
        assert "the exported network gives other logits" in str(ended.exception)

    class Undecided(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    trained = Trained.load(run, device="cpu")
    object.__setattr__(trained, "network", Undecided())
    with pytest.raises(CheckpointError, match=r"the network cannot be exported: .*: torch says: "):
        export(trained, "torch")
    assert not list(run.glob("model*"))


def test_an_unwritable_file_is_named_before_anything_is_exported(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelnet.eval.export.export", lambda *_: pytest.fail("it was exported"))
    run = trained_on(cache_path)
    Path("taken").mkdir()
    ended = typed("export", run, "--format", "torch", "--out", "taken")
    assert ended.exception is not None and str(ended.exception).startswith("the file cannot be written: taken: ")
    assert list(Path("taken").iterdir()) == [] and not Path("taken.new").exists()

"""infer.py, beside an exported network (export_beside.py), answers as `predict` does, without this package."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from cli import cli
from modelnet import TrainOptions, train
from modelnet.eval import infer
from modelnet.eval.export_beside import check_beside, infer_recipe
from pipeline import Recipe, build_cache
from pipeline.decode.decode import decode
from pipeline.decode.faults import Undecodable
from pipeline.errors import OptionsError
from tests.support.image_files import ALPHA, PICTURE, PIXELS, SAME, encoded
from tests.support.tiffs import tiff

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")

CMYK = encoded(PICTURE.convert("CMYK"), "JPEG")
TURNED = Image.Exif()
TURNED[0x0112] = 6
RECIPES: dict[str, dict[str, Any]] = {
    "squash": {"size": (40, 52), "exif_rotate": True, "background": (9, 99, 200)},
    "crop": {"size": (24, 40), "fit": "crop", "interpolation": "bicubic", "exif_rotate": True, "scaled_decode": True},
    "crop, narrow": {"size": (40, 24), "fit": "crop", "resize_to": 43, "interpolation": "lanczos"},
    "pad": {"size": (40, 52), "fit": "pad", "interpolation": "box", "pad_color": (255, 0, 7), "background": (1, 2, 3)},
    "pad with the edge": {"size": (52, 40), "fit": "pad", "pad_color": "edge", "interpolation": "nearest"},
}
FILES = {
    **{kind: make() for kind, (_, make) in SAME.items() if not kind.startswith("HEIC")},
    "JPEG": encoded(PICTURE, "JPEG"),
    "JPEG, CMYK": CMYK,
    "JPEG, grey": encoded(PICTURE.convert("L"), "JPEG"),
    "JPEG, large": encoded(PICTURE.resize((1200, 900)), "JPEG"),
    **{f"{form}, turned": encoded(PICTURE, form, exif=TURNED) for form in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")},
    "JPEG, tall": encoded(PICTURE.resize((7, 600)), "JPEG"),
    "PNG, alpha": encoded(ALPHA, "PNG"),
    "PNG, palette": encoded(PICTURE.quantize(9), "PNG", transparency=4),
    "PNG, 1 x 1": encoded(PICTURE.resize((1, 1)), "PNG"),
    "GIF, animated": encoded(PICTURE, "GIF", save_all=True, append_images=[PICTURE.rotate(180)]),
}
REFUSED = {
    "no image": b"<html>",
    "JPEG 2000": b"\xff\x4f\xff\x51" + bytes(99),
    "PNG, 16 bits, grey": encoded(Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257), "PNG"),
    "PNG, 16 bits": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\4\0\0\0\4\x10\2\0\0\0\x6d\x32\x4a\xb7",
    "TIFF, 16 bits": tiff(PIXELS.astype("<u2") * 257),
    "TIFF, CMYK": encoded(PICTURE.convert("CMYK"), "TIFF"),
    "TIFF, 5 channels": tiff(np.dstack([PIXELS, PIXELS[..., :2]]), t338=[0, 0]),
    "JPEG, truncated": encoded(PICTURE, "JPEG")[:900],
    "PPM": encoded(PICTURE, "PPM"),
}


@pytest.mark.parametrize("name", RECIPES)
def test_infer_prepares_every_format_to_the_pixels_of_the_cache(name: str) -> None:
    recipe = Recipe(**RECIPES[name])
    for kind, data in FILES.items():
        found = infer.read_image(data, infer_recipe(recipe), None)
        np.testing.assert_array_equal(found, decode(data, recipe).pixels_HWC, err_msg=kind)
        assert found.dtype == np.uint8, kind


@pytest.mark.parametrize("kind", REFUSED)
def test_infer_refuses_what_training_refuses(kind: str) -> None:
    recipe = Recipe(size=16)
    with pytest.raises(Undecodable):
        decode(REFUSED[kind], recipe)
    with pytest.raises((OSError, ValueError, SyntaxError)):
        infer.read_image(REFUSED[kind], infer_recipe(recipe), None)


def test_infer_refuses_images_over_the_recipes_megapixels() -> None:
    large = encoded(Image.new("L", (1001, 1000)), "PNG")
    with pytest.raises(ValueError, match="1001 × 1000 pixels, over 1 megapixels"):
        infer.read_image(large, infer_recipe(Recipe(size=16, max_megapixels=1)), None)


def typed(*words: "str | Path") -> Result:
    return CliRunner().invoke(cli, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(shared_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network is exported as `out/net.onnx` beside it."""
    folder = tmp_path_factory.mktemp("infer")
    build_cache(shared_photos, folder / "c.h5", size=(64, 72), fit="pad", workers=1)
    options: dict[str, Any] = {"crop_size": "60x66", "batch_size": 4, "epochs": 4, "lr": 0.05, "device": "cpu"}
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        run = folder / train(TrainOptions(folder / "c.h5", threads=1, **options)).run
    ended = typed("export", run, "--out", folder / "out" / "net.onnx")
    assert ended.exit_code == 0
    assert ended.stdout.splitlines()[-1] == f"to try it: python {folder}/out/infer.py IMAGE..."
    return run


def test_infer_answers_as_predict_in_any_folder(run: Path) -> None:
    Path("files").mkdir()
    heics = {kind: make() for kind, (_, make) in SAME.items() if kind.startswith("HEIC")}
    for kind, data in {**FILES, **heics, **REFUSED}.items():
        Path("files", kind).write_bytes(data)
    Path("files", os.fsdecode(b"\xff\x1b")).write_bytes(FILES["JPEG"])
    files = sorted(Path("files").iterdir())

    command: list[str | Path] = [sys.executable, "-I", run.parents[1] / "out" / "infer.py", *files]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    answers = [json.loads(line) for line in ended.stdout.splitlines()]

    assert ended.returncode == 3 and len(answers) == len(files)
    predicted = [json.loads(line) for line in typed("predict", run, *files, "--json").stdout.splitlines()]
    for answer, wanted in zip(answers, predicted, strict=True):
        assert answer["file"] == wanted["file"]
        assert ("error" in answer) == ("error" in wanted) == (answer["file"].removeprefix("files/") in REFUSED)
        if "error" not in answer:
            assert answer["probabilities"] == pytest.approx(wanted["probabilities"], abs=1e-5)
            assert list(answer["probabilities"]) == ["1", "2"]
            assert wanted["classes"][0]["p"] == max(wanted["probabilities"].values())
    found = [answer["probabilities"]["1"] for answer in answers if "error" not in answer]
    assert max(found) - min(found) > 1e-3  # the images make a difference


def test_an_infer_that_was_changed_by_hand_is_not_replaced(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(run.parents[1] / "out", "out")
    check_beside(Path("out"), ["infer.py", "infer.json"])  # its own are
    monkeypatch.setattr("modelnet.eval.export.export", lambda *_: pytest.fail("it was exported"))
    for name, other in (("infer.py", "\n# mine\n"), ("infer.json", "{}")):
        ours = Path("out", name).read_text()
        Path("out", name).write_text(ours + other)
        refused = typed("export", run, "--out", "out/net.onnx")
        assert isinstance(refused.exception, OptionsError)
        assert str(refused.exception) == (
            f"{name} is there: out/{name}: export did not write it. Move it away, or give --out in another folder"
        )
        assert Path("out", name).read_text() == ours + other
        Path("out", name).write_text(ours)
    taken = typed("export", run, "--out", "infer.py", "--format", "onnx")
    assert taken.exit_code == 2 and "a file of this name is written beside the network" in taken.stderr


def test_a_config_of_something_else_is_not_replaced(run: Path) -> None:
    for folder, content in (("other", b"no JSON"), ("run", (run / "config.json").read_bytes())):
        Path(folder).mkdir()
        Path(folder, "config.json").write_bytes(content)
        with pytest.raises(OptionsError, match=r"config\.json is there: .*: export did not write it"):
            check_beside(Path(folder), ["config.json"])
    Path("other/config.json").write_text('{"architecture": "resnet18"}')
    check_beside(Path("other"), ["config.json"])
    check_beside(Path("none"), ["config.json"])

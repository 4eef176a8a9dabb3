"""infer.py beside an exported network against `predict`: photographs of every format, under every fit."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from cli import cli
from modelnet import TrainOptions, train
from pipeline import build_cache
from tests.soak.conftest import Count
from tests.support.image_files import encoded
from tests.support.photos import textured
from tests.support.tiffs import tiff

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")

MODES = {  # Pillow's modes that a format holds
    "JPEG": ("RGB", "L", "CMYK"),
    "PNG": ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"),
    "GIF": ("P", "L"),
    "BMP": ("RGB", "L", "P", "1"),
    "TIFF": ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "deep"),
    "WEBP": ("RGB", "RGBA"),
    "AVIF": ("RGB", "RGBA", "L"),
    "HEIC": ("RGB", "RGBA", "L"),
}
REFUSED = ("I;16", "deep")  # and CMYK in a TIFF
RUNS: list[tuple[dict[str, Any], dict[str, Any]]] = [  # recipe; options of training
    ({"size": 64}, {}),
    (
        {"size": (64, 80), "exif_rotate": True, "background": (250, 3, 9), "interpolation": "bicubic"},
        {"crop_size": 60},
    ),
    ({"size": (80, 64), "fit": "crop", "exif_rotate": True, "scaled_decode": True}, {}),
    ({"size": 72, "fit": "crop", "resize_to": 75, "interpolation": "lanczos"}, {"crop_size": "64x70"}),
    ({"size": (64, 96), "fit": "pad", "background": (0, 90, 3), "mean": (0.48, 0.45, 0.4)}, {"crop_size": "60x90"}),
    ({"size": 64, "fit": "pad", "pad_color": "edge", "exif_rotate": True, "interpolation": "box"}, {}),
    ({"size": 64, "fit": "pad", "pad_color": (9, 200, 31), "interpolation": "nearest", "scaled_decode": True}, {}),
]


def photograph(rng: np.random.Generator, form: str, mode: str) -> bytes:
    """Draw a photograph of any size, shape, orientation and setting of its encoder."""
    longer = int(np.exp(rng.uniform(np.log(3), np.log(1500))))
    width, height = rng.permutation([longer, max(1, int(longer * rng.uniform(0.15, 1)))]).tolist()
    image = textured(width, height, int(rng.integers(2**31)))
    if mode == "deep":
        return tiff(np.asarray(image).astype("<u2") * 257)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        image.putalpha(textured(width, height, int(rng.integers(2**31))).convert("L"))
        image = image.convert(mode)
    elif mode == "P":
        image = image.quantize(int(rng.integers(2, 256)))
    else:
        image = image.convert(mode)
    options: dict[str, Any] = {}
    if form in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF") and rng.random() < 0.6:
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = int(rng.integers(1, 9) if form == "TIFF" else rng.integers(0, 10))
    if form in ("JPEG", "WEBP", "AVIF", "HEIC"):
        options["quality"] = int(rng.integers(20, 100))
    if form == "JPEG":
        options["progressive"] = bool(rng.random() < 0.3)
    if mode == "P" and form in ("PNG", "GIF") and rng.random() < 0.5:
        options["transparency"] = int(rng.integers(0, 3))
    if form == "TIFF" and mode != "1":
        options["compression"] = str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    return encoded(image, form, **options)


def test_infer_answers_as_predict(shared_photos: Path, count: Count) -> None:
    photographs, rng = count(1000, 20), np.random.default_rng(0)
    kinds = [(form, mode) for form, modes in MODES.items() for mode in modes]
    largest, refused = 0.0, 0
    for number, (recipe, options) in enumerate(RUNS):
        build_cache(shared_photos, Path(f"{number}.h5"), workers=1, **recipe)
        run = train(
            TrainOptions(Path(f"{number}.h5"), batch_size=4, epochs=6, lr=0.05, threads=1, device="cpu", **options)
        ).run
        ended = CliRunner().invoke(cli, ["export", str(run)])
        assert ended.exit_code == 0, ended.output
        folder = Path(f"photographs-{number}")
        folder.mkdir()
        unlike = {}
        for i in range(number, photographs, len(RUNS)):
            form, mode = kinds[i // len(RUNS) % len(kinds)]
            path = folder / f"{i:04}-{form}-{mode.replace(';', '')}"
            path.write_bytes(photograph(rng, form, mode))
            unlike[str(path)] = mode in REFUSED or (form, mode) == ("TIFF", "CMYK")
        answers = subprocess.run([sys.executable, "-I", run / "infer.py", *unlike], capture_output=True, text=True)
        predicted = CliRunner().invoke(cli, ["predict", str(run), *unlike, "--json", "--device", "cpu"])
        assert answers.returncode == predicted.exit_code == (3 if any(unlike.values()) else 0)
        spread = []
        for line, wanted_line in zip(answers.stdout.splitlines(), predicted.stdout.splitlines(), strict=True):
            answer, wanted = json.loads(line), json.loads(wanted_line)
            assert answer["file"] == wanted["file"]
            assert ("error" in answer) == ("error" in wanted) == unlike[answer["file"]], (answer, wanted)
            refused += "error" in answer
            if "error" not in answer:
                off = max(abs(p - wanted["probabilities"][key]) for key, p in answer["probabilities"].items())
                assert off <= 1e-5, answer
                largest = max(largest, off)
                spread.append(answer["probabilities"]["1"])
        assert len(spread) < 3 or max(spread) - min(spread) > 1e-3  # the photographs make a difference
    print(
        f"\n{photographs} photographs, {refused} of them refused by both: probabilities differ by {largest:.1e} at most"
    )

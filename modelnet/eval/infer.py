"""Classify images: python infer.py IMAGE... prints a line of JSON for each, with the probability of each class.

Needs Pillow, NumPy and onnxruntime, and pillow-heif for HEIC. `infer.json` beside this file, by `export`, names the
network and says how its images are prepared: exactly as those that it was trained on.
"""

import io
import json
import sys
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image, ImageFile

TURNS = dict(enumerate((0, 3, 1, 5, 4, 6, 2), start=2))  # EXIF's orientation: the number of Pillow's Transpose
FAILED = 3  # the exit code where an image could not be read


def main(paths: list[str]) -> int:
    """Print a line for each file, and return the exit code."""
    told = json.loads(Path(__file__).with_name("infer.json").read_text("utf-8"))
    session = onnxruntime.InferenceSession(Path(__file__).with_name(told["file"]), providers=["CPUExecutionProvider"])
    code, line = 0, dict[str, Any]()
    for path in paths:
        try:
            pixels_HWC = read_image(Path(path).read_bytes(), told["recipe"], told["crop"])
        except Exception as error:  # Pillow raises nearly any type for damaged bytes
            code, line = FAILED, {"error": str(error) or type(error).__name__}
        else:
            (probabilities,) = session.run(["probabilities"], {"pixels": pixels_HWC[None]})[0].tolist()
            line = {"probabilities": dict(zip(map(str, told["class_ids"]), probabilities, strict=True))}
        print(json.dumps({"file": path, **line}), flush=True)
    return code


def read_image(data: bytes, recipe: dict[str, Any], crop: list[int] | None) -> Any:
    """Decode and prepare an image file: (H, W, 3) uint8, of the recipe's size or of its center `crop`."""
    Image.init()  # knows all formats then
    formats = [name for name in recipe["formats"] if name in Image.OPEN]
    image: Image.Image = Image.open(io.BytesIO(data), formats=formats)
    if reason := reason_against(image, data, recipe["max_megapixels"]):
        raise ValueError(reason)
    is_jpeg, orientation = image.format in ("JPEG", "MPO"), 1
    if recipe["exif_rotate"]:
        if not is_jpeg:
            image.load()  # a PNG's EXIF may follow its pixels; TIFF and HEIC are upright then
        with suppress(Exception):  # broken EXIF is common
            orientation = int(image.getexif().get(0x0112, 1))
    if recipe["scaled_decode"] and is_jpeg:
        width, height = resized_size(image.size, recipe)
        image.draft(None, (2 * width, 2 * height))
    if recipe["background"] is not None and image.has_transparency_data:
        behind = Image.new("RGBA", image.size, (*recipe["background"], 255))
        image = Image.alpha_composite(behind, image.convert("RGBA"))
    whole = image.convert("RGB")
    if orientation in TURNS:
        whole = whole.transpose(Image.Transpose(TURNS[orientation]))
    resized = whole.resize(resized_size(whole.size, recipe), Image.Resampling[recipe["interpolation"].upper()])
    pixels_HWC = placed(np.asarray(resized), recipe)
    return pixels_HWC if crop is None else center(pixels_HWC, crop)


def reason_against(image: Image.Image, data: bytes, max_megapixels: int) -> str:
    """Say why an image is refused, as training refuses it; empty where it is not."""
    if image.width * image.height > max_megapixels * 1_000_000:
        return f"{image.width} × {image.height} pixels, over {max_megapixels} megapixels"
    tags = getattr(image, "tag_v2", {}) if image.format == "TIFF" else {}
    is_deep = (image.format == "PNG" and data[24] > 8) or max(tags.get(258) or (1,)) > 8
    if is_deep or image.mode.startswith(("I", "F")) or set(tags.get(339) or (1,)) != {1}:
        return "more than 8 bits a channel"
    if image.format == "TIFF" and (image.mode in ("CMYK", "LAB") or tags.get(277, 1) > 4):
        return f"a TIFF of mode {image.mode} with {tags.get(277, 1)} channels"
    return ""


def resized_size(size: tuple[int, int], recipe: dict[str, Any]) -> tuple[int, int]:
    """Return the (width, height) that an image of a (width, height) is resized to, before it is cut or padded."""
    (width, height), (new_height, new_width), side = size, recipe["size"], recipe["resize_to"]
    if recipe["fit"] == "crop":
        return (int(side * width / height), side) if height < width else (side, int(side * height / width))
    if recipe["fit"] == "pad" and width / height > new_width / new_height:
        return new_width, max(1, round(height / width * new_width))
    if recipe["fit"] == "pad" and width / height < new_width / new_height:
        return max(1, round(width / height * new_height)), new_height
    return new_width, new_height


def placed(pixels_HWC: Any, recipe: dict[str, Any]) -> Any:
    """Cut the center out of a resized image, or pad it, to the recipe's size."""
    if recipe["fit"] == "crop":
        return center(pixels_HWC, recipe["size"])
    spare = [whole - side for whole, side in zip(recipe["size"], pixels_HWC.shape[:2], strict=True)]
    before = [round(pixels * 0.5) for pixels in spare]
    around = [*((first, both - first) for first, both in zip(before, spare, strict=True)), (0, 0)]
    if recipe["pad_color"] in (None, "edge"):
        return np.pad(pixels_HWC, around, "edge")
    colors = zip(range(3), recipe["pad_color"], strict=True)
    return np.stack([np.pad(pixels_HWC[..., c], around[:2], constant_values=color) for c, color in colors], axis=2)


def center(pixels_HWC: Any, size: list[int]) -> Any:
    """Cut out the center of a (height, width)."""
    top, left = (round((whole - side) / 2) for whole, side in zip(pixels_HWC.shape[:2], size, strict=True))
    return np.ascontiguousarray(pixels_HWC[top : top + size[0], left : left + size[1]])


if __name__ == "__main__":
    Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES = None, False
    warnings.simplefilter("ignore")
    with suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener(thumbnails=False)
    sys.exit(main(sys.argv[1:]))

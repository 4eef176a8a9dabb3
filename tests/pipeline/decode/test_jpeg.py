"""The faster JPEG decoder gives Pillow's bits, and leaves to Pillow what it does not."""

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import jpeg
from pipeline.decode.jpeg import decode_jpeg
from tests.support.photos import textured


@pytest.fixture(autouse=True)
def found_anew() -> Iterator[None]:
    """Look for the decoder in each test."""
    jpeg._decoder.cache_clear()
    yield
    jpeg._decoder.cache_clear()


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": "4:2:2"}, {"keep_rgb": True}], ids=str)
def test_jpegs_have_the_bits_of_pillow(mode: str, options: dict[str, Any]) -> None:
    for seed, (width, height) in enumerate([(1, 1), (7, 9), (65, 40), (200, 301)]):
        data = encoded(textured(width, height, seed).convert(mode), **(options if mode == "RGB" else {}))
        image = Image.open(io.BytesIO(data))

        pixels_HWC = decode_jpeg(data, image)

        assert pixels_HWC is not None and np.array_equal(pixels_HWC, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize(
    "data",
    [
        encoded(textured(40, 30, 1), "PNG"),
        encoded(textured(40, 30, 1).convert("CMYK")),
        encoded(textured(40, 30, 1))[:-30],
        encoded(textured(40, 30, 1))[:400] + b"\xff\xd0" + encoded(textured(40, 30, 1))[400:],
    ],
    ids=["PNG", "CMYK", "truncated", "a marker too many"],
)
def test_what_is_no_sound_jpeg_in_rgb_or_grey_is_left_to_pillow(data: bytes) -> None:
    assert decode_jpeg(data, Image.open(io.BytesIO(data))) is None


def test_without_simplejpeg_pillow_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    data = encoded(textured(40, 30, 1))

    assert decode_jpeg(data, Image.open(io.BytesIO(data))) is None


def test_another_libjpeg_with_other_bits_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import simplejpeg

    decode = simplejpeg.decode_jpeg

    def rougher(data: bytes, colorspace: str, strict: bool) -> Any:
        return decode(data, colorspace, fastdct=True, fastupsample=True, strict=strict)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", rougher)
    data = encoded(textured(40, 30, 1))

    assert decode_jpeg(data, Image.open(io.BytesIO(data))) is None

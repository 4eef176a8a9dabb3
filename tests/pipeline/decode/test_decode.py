"""Decoding gives the bits of torchvision on Pillow, or the reason why not (`decode`, `image_hash`)."""

import io
import os
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile, ImageOps
from PIL.PngImagePlugin import PngInfo
from torchvision import transforms

from pipeline.decode import decode as decode_module
from pipeline.decode import jpeg
from pipeline.decode.decode import decode, decoder_identity, earlier_decoder_identity
from pipeline.decode.faults import Undecodable
from pipeline.decode.geometry import fit as fit_image
from pipeline.decode.geometry import resized_size
from pipeline.recipe import Fit, Recipe, pixels_to_row
from tests.support.command_line import REPOSITORY
from tests.support.photos import textured

ORIENTATION = 0x0112


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: tuple[bytes, bytes]) -> bytes:
    """Write a PNG by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def torchvision_row(data: bytes, recipe: Recipe) -> torch.Tensor:
    """The oracle: what torchvision's own transform makes of the file."""
    image = Image.open(io.BytesIO(data))
    if image.info.get("transparency") is not None and image.mode == "P":
        image.info.pop("transparency")  # Pillow warns of it and then ignores it all the same
    transform = transforms.Compose(
        [
            transforms.Resize(recipe.size),
            transforms.ToTensor(),
            transforms.Normalize(recipe.mean, recipe.std),
        ]
    )
    result: torch.Tensor = transform(image.convert("RGB"))
    return result


def palette_with_transparency() -> bytes:
    return encoded(textured(61, 45, 5).quantize(17), "PNG", transparency=3)


SOURCES: dict[str, Callable[[], bytes]] = {
    "RGB": lambda: encoded(textured(97, 61, 1)),
    "RGB, 4:4:4": lambda: encoded(textured(97, 61, 1), subsampling=0, quality=98),
    "progressive": lambda: encoded(textured(120, 90, 2), progressive=True),
    "grey": lambda: encoded(textured(50, 77, 3).convert("L")),
    "CMYK": lambda: encoded(textured(64, 40, 4).convert("CMYK")),
    "PNG": lambda: encoded(textured(70, 41, 6), "PNG"),
    "PNG, grey": lambda: encoded(textured(70, 41, 6).convert("L"), "PNG"),
    "PNG, 1 bit": lambda: encoded(textured(70, 41, 6).convert("1"), "PNG"),
    "PNG, palette": lambda: encoded(textured(61, 45, 5).quantize(17), "PNG"),
    "PNG, palette with transparency": palette_with_transparency,
    "PNG, alpha": lambda: encoded(
        Image.merge("RGBA", [*textured(55, 66, 7).split(), textured(55, 66, 8).split()[0]]), "PNG"
    ),
    "PNG, grey and alpha": lambda: encoded(
        Image.merge("LA", [textured(55, 66, 7).split()[1], textured(55, 66, 8).split()[0]]), "PNG"
    ),
    "MPO, first frame": lambda: encoded(
        textured(80, 60, 9), "MPO", save_all=True, append_images=[textured(80, 60, 10)]
    ),
    "odd sizes": lambda: encoded(textured(33, 127, 11)),
    "1 × 1": lambda: encoded(textured(1, 1, 12)),
    "1 × 60,000": lambda: encoded(textured(1, 60_000, 13)),
    "60,000 × 1": lambda: encoded(textured(60_000, 1, 13)),
}


@pytest.mark.parametrize("size", [1, 31, 64, 224])
@pytest.mark.parametrize("kind", SOURCES)
def test_rows_have_the_bits_of_torchvisions_transform(kind: str, size: int) -> None:
    data = SOURCES[kind]()
    recipe = Recipe(size=size, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))

    row = pixels_to_row(decode(data, recipe).pixels_HWC, recipe)

    assert row.tobytes() == torchvision_row(data, recipe).numpy().tobytes()


def huge_text() -> bytes:
    text = PngInfo()
    text.add_text("notes", "x" * 3_000_000, zip=True)
    return encoded(textured(20, 20, 1), "PNG", pnginfo=text)


def broken_crc() -> bytes:
    data = bytearray(encoded(textured(64, 64, 1), "PNG"))
    data[len(data) // 2] ^= 0xFF
    return bytes(data)


PHOTO = encoded(textured(200, 150, 1))
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not an image"),
    "HTML": (b"<html><body>404 not found</body></html>", "not an image"),
    "text": (b"once upon a time", "not an image"),
    "three bytes": (b"\xff\xd8\xff", "not an image"),
    "JPEG header only": (PHOTO[:20], "not an image"),
    "PNG header only": (encoded(textured(9, 9, 1), "PNG")[:33], "not an image"),
    "JPEG cut in half": (PHOTO[: len(PHOTO) // 2], "truncated"),
    "JPEG without its last bytes": (PHOTO[:-20], "truncated"),
    "PNG cut in half": (encoded(textured(200, 150, 1), "PNG")[:3000], "truncated"),
    "PNG with megabytes of text": (huge_text(), "damaged: Decompressed data too large"),
    "PNG with a wrong byte": (broken_crc(), "damaged: "),
    "16-bit grey PNG": (png(4, 4, 16, 0, b"\0" * 36), "a 16-bit PNG, which convert('RGB') clips"),
    "16-bit RGB PNG": (png(4, 4, 16, 2, b"\0" * 100), "a 16-bit PNG"),
    "PDF": (b"%PDF-1.7 ...", "a PDF; only JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF and HEIC are read"),
    "PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "bomb": (png(100_000, 100_000, 8, 0, b"\0"), "too large: 100000 × 100000 pixels, over 64 megapixels"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_photograph_is_refused_with_its_reason(kind: str) -> None:
    data, reason = REFUSED[kind]

    with pytest.raises(Undecodable) as refused:
        decode(data, Recipe(size=16))

    assert str(refused.value).startswith(reason)


def test_a_bomb_is_refused_before_any_pixel_is_allocated() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(Undecodable, match="too large"):
        decode(png(100_000, 100_000, 8, 2, b"\0"), Recipe(size=16))

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB, of 30 GB


def test_the_cap_counts_pixels_and_is_part_of_the_recipe() -> None:
    data = encoded(Image.new("L", (1000, 1001)), "PNG")

    with pytest.raises(Undecodable, match="too large: 1000 × 1001 pixels, over 1 megapixels"):
        decode(data, Recipe(size=16, max_megapixels=1))
    assert decode(data, Recipe(size=16, max_megapixels=2)).pixels_HWC.shape == (16, 16, 3)


def test_a_truncated_file_is_refused_whatever_pillow_was_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    cut = PHOTO[: len(PHOTO) // 2]
    Image.open(io.BytesIO(encoded(textured(2, 2, 1)))).load()  # the switches are really on

    with pytest.raises(Undecodable, match="truncated"):
        decode(cut, Recipe(size=16))

    assert (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS) == (True, 5)  # and as the user left them


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_that_of_pillow_where_asked_for(orientation: int) -> None:
    picture = textured(90, 50, 21)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(picture, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    as_stored = Image.open(io.BytesIO(data))

    for rotate, expected in ((True, upright), (False, as_stored)):
        recipe = Recipe(size=40, exif_rotate=rotate)
        resized = expected.convert("RGB").resize((40, 40), Image.Resampling.BILINEAR)
        assert np.array_equal(decode(data, recipe).pixels_HWC, np.asarray(resized))


@pytest.mark.parametrize("rotate", [False, True])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0garbage that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + bytes(20),
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",  # orientation 99
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0abc\0\0\0\0\0",  # orientation "abc"
    ],
)
def test_broken_exif_is_ignored(exif: bytes, rotate: bool) -> None:
    picture = textured(64, 48, 22)
    plain, broken = encoded(picture), encoded(picture, exif=exif)

    expected = decode(plain, Recipe(size=32)).pixels_HWC
    assert np.array_equal(decode(broken, Recipe(size=32, exif_rotate=rotate)).pixels_HWC, expected)


@pytest.mark.parametrize(("side", "divisor"), [(127, 1), (128, 2), (255, 2), (256, 4), (512, 8), (2000, 8)])
def test_a_scaled_decode_is_that_of_pillows_draft(side: int, divisor: int) -> None:
    data = encoded(textured(side, side + 5, 23))
    image = Image.open(io.BytesIO(data))
    image.draft(None, (side // divisor, side // divisor))
    assert image.size == (-(-side // divisor), -(-(side + 5) // divisor))  # rounded up
    expected = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BILINEAR))

    scaled = decode(data, Recipe(size=32, scaled_decode=True)).pixels_HWC

    assert np.array_equal(scaled, expected)
    whole = decode(data, Recipe(size=32)).pixels_HWC
    assert np.array_equal(whole, scaled) == (divisor == 1)
    assert np.abs(whole.astype(int) - scaled).mean() < 2  # levels


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize(
    ("size", "fit"), [((32, 8), "squash"), ((8, 32), "squash"), ((8, 32), "pad"), ((32, 32), "pad"), ((32, 8), "crop")]
)
def test_a_scaled_decode_keeps_twice_the_size_of_the_upright_image(
    size: tuple[int, int], fit: Fit, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(textured(512, 150, 1), exif=exif)
    recipe = Recipe(size=size, fit=fit, exif_rotate=True, scaled_decode=True)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    sizes = []
    for divisor in (1, 2, 4, 8):
        image = Image.open(io.BytesIO(data))
        image.draft(None, (512 // divisor, 150 // divisor))
        sizes.append(ImageOps.exif_transpose(image).convert("RGB"))
    needed = resized_size(upright.height, upright.width, recipe)
    enough = [image for image in sizes if all(np.array(image.size[::-1]) >= 2 * np.array(needed))]

    expected = fit_image((enough or sizes[:1])[-1], recipe)
    assert np.array_equal(decode(data, recipe).pixels_HWC, expected)


def test_a_scaled_decode_leaves_pngs_and_tiny_images_alone() -> None:
    recipe = Recipe(size=4, scaled_decode=True)
    whole = Recipe(size=4)
    picture = encoded(textured(90, 80, 1), "PNG")

    assert np.array_equal(decode(picture, recipe).pixels_HWC, decode(picture, whole).pixels_HWC)
    assert decode(encoded(textured(40, 40, 1)), recipe).notes == ()
    with pytest.raises(Undecodable, match="over 1 megapixels"):
        decode(encoded(textured(1100, 1000, 1)), Recipe(size=4, scaled_decode=True, max_megapixels=1))


def test_a_broken_index_of_camera_frames_is_ignored() -> None:
    data = encoded(textured(80, 60, 9), "MPO", save_all=True, append_images=[textured(80, 60, 10)])
    start = data.index(b"MPF\0") + 4
    expected = decode(data, Recipe(size=32)).pixels_HWC

    for place in range(start, start + 80):
        for value in (0, 0x7F, 0xFF):
            broken = data[:place] + bytes([value]) + data[place + 1 :]
            assert np.array_equal(decode(broken, Recipe(size=32)).pixels_HWC, expected), (place - start, value)


def test_of_an_animation_the_first_frame_is_taken_and_a_person_is_told() -> None:
    frames = [textured(64, 64, seed) for seed in (1, 2)]
    data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])

    decoded = decode(data, Recipe(size=32))

    assert decoded.notes == ("animated: the first frame is used",)
    assert np.array_equal(decoded.pixels_HWC, decode(encoded(frames[0], "PNG"), Recipe(size=32)).pixels_HWC)


@pytest.mark.parametrize(
    ("image", "notes"),
    [
        (textured(32, 32, 1), ()),
        (textured(31, 200, 1), ("tiny: 31 × 200 pixels",)),
        (Image.new("RGB", (64, 64), (250, 250, 250)), ("blank: nearly one color all over",)),
        (Image.new("RGB", (64, 64), (250, 0, 0)), ("blank: nearly one color all over",)),
        (Image.new("L", (3, 3)), ("tiny: 3 × 3 pixels", "blank: nearly one color all over")),
    ],
)
def test_tiny_and_blank_images_are_remarked_upon(image: Image.Image, notes: tuple[str, ...]) -> None:
    assert decode(encoded(image), Recipe(size=24)).notes == notes


def test_the_identity_of_the_decoder_is_the_same_in_every_process() -> None:
    program = "from pipeline.decode.decode import decoder_identity; print(decoder_identity('JPEG'))"
    for seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": "Asia/Kathmandu"}
        found = subprocess.check_output([sys.executable, "-c", program], cwd=REPOSITORY, env=environment, text=True)
        assert found.strip() == decoder_identity("JPEG")
    assert len(decoder_identity("JPEG")) == 32 and int(decoder_identity("JPEG"), 16)


def test_the_identity_of_the_decoder_changes_with_one_pixel_of_one_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = 0

    def off_by_one(data: bytes, recipe: Recipe) -> decode_module.Decoded:
        nonlocal calls
        decoded = decode(data, recipe)
        calls += 1
        if calls == 7:
            pixels = decoded.pixels_HWC.copy()
            pixels[-1, -1, -1] ^= 1
            return decoded._replace(pixels_HWC=pixels)
        return decoded

    before = earlier_decoder_identity()
    monkeypatch.setattr(decode_module, "decode", off_by_one)

    assert earlier_decoder_identity.__wrapped__() != before
    assert calls >= 24  # a dozen probes, each at two sizes


@pytest.mark.parametrize(
    ("data", "form"),
    [(encoded(textured(40, 30, 1)), "JPEG"), (encoded(textured(40, 30, 1), "PNG"), "PNG"), (b"what", "")],
)
@pytest.mark.parametrize("options", [{}, {"scaled_decode": True}, {"exif_rotate": True}])
def test_format_and_size_of_the_source_are_told(data: bytes, form: str, options: dict[str, Any]) -> None:
    if not form:
        with pytest.raises(Undecodable) as refused:
            decode(data, Recipe(size=4, **options))
        assert refused.value.format == ""
        return
    decoded = decode(data, Recipe(size=4, **options))
    assert (decoded.format, decoded.source_size) == (form, (30, 40))
    with pytest.raises(Undecodable) as refused:
        decode(data[:200], Recipe(size=4, **options))
    assert refused.value.format == form


@pytest.mark.parametrize("with_simplejpeg", [True, False])
def test_a_decoder_without_memory_is_not_taken_for_a_damaged_image(
    with_simplejpeg: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(jpeg, "_decoder", lambda: no_memory if with_simplejpeg else None)
    monkeypatch.setattr(Image.Image, "convert", no_memory)

    with pytest.raises(MemoryError):
        decode(PHOTO, Recipe(size=16))

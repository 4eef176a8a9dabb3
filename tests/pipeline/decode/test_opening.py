"""A file that has no right pixels is refused by name, before any are made, whatever decoder reads it (`open_image`)."""

import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import AvifImagePlugin, Image

from pipeline import TensorCache, build_cache
from pipeline.decode.decode import decode, decoder_identity
from pipeline.decode.faults import Undecodable
from pipeline.decode.formats import FORMATS
from pipeline.recipe import Recipe
from pipeline.system.processes import local_pool
from tests.support.command_line import REPOSITORY
from tests.support.image_files import GREY, PICTURE, PIXELS, SAME, encoded, opened, resized
from tests.support.photos import textured
from tests.support.tiffs import tiff


def refusal(data: bytes, **options: Any) -> Undecodable:
    with pytest.raises(Undecodable) as refused:
        decode(data, Recipe(size=16, **options))
    return refused.value


CHANNELS_5 = np.zeros((9, 9, 5), np.uint8)
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "16-bit grey TIFF": (
        lambda: tiff(PIXELS[:, :, :1].astype("<u2")),
        "more than 8 bits a channel (Pillow's mode I;16)",
    ),
    "16-bit RGB TIFF": (lambda: tiff(PIXELS.astype("<u2") * 257), "a TIFF with more than 8 bits a channel"),
    "32-bit TIFF": (lambda: encoded(GREY.convert("I"), "TIFF"), "more than 8 bits a channel (Pillow's mode I)"),
    "float TIFF": (lambda: encoded(GREY.convert("F"), "TIFF"), "more than 8 bits a channel (Pillow's mode F)"),
    "signed TIFF": (lambda: tiff(PIXELS[:, :, :1], t339=2), "a TIFF of signed numbers"),
    "CMYK TIFF": (lambda: encoded(PICTURE.convert("CMYK"), "TIFF"), "a CMYK TIFF; convert it to RGB first"),
    "LAB TIFF": (lambda: tiff(PIXELS, t262=8), "a LAB TIFF; convert it to RGB first"),
    "TIFF of 5 channels": (lambda: tiff(CHANNELS_5, t338=[0, 0]), "a TIFF of 5 channels"),
    "TIFF of 2 grey channels": (lambda: tiff(CHANNELS_5[:, :, :2]), "a TIFF of channels that are not read"),
    "10-bit grey HEIC": (
        lambda: encoded(Image.fromarray(PIXELS[:, :, 0].astype(np.uint16) * 257), "HEIC"),
        "more than 8 bits a channel (Pillow's mode I;16)",
    ),
    "WebP of sound": (lambda: b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), "not an image"),
    "video": (lambda: b"\0\0\0\x14ftypisom\0\0\0\0mp42" + bytes(40), "a video or another ISO media file; only JPEG, "),
    "BigTIFF whose directory is at 2⁶⁴ − 1": (lambda: b"II+\0\x08\0\0\0" + b"\xff" * 8 + bytes(40), "truncated"),
    "BigTIFF whose values are at 2⁶⁴ − 1": (
        lambda: tiff(PIXELS, big=True).replace(struct.pack("<HHQ", 258, 3, 3), struct.pack("<HHQ", 258, 3, 2**64 - 1)),
        "truncated",
    ),
    "canvas of 65,536 × 65,536": (
        lambda: b"RIFF\x1e\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\xff\0" * 2 + bytes(8),
        "too large: 65536 × 65536 pixels, over 64 megapixels",
    ),
    "WebP of 16,383 × 16,383": (
        lambda: b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f" + struct.pack("<I", 16382 | 16382 << 14) + bytes(9),
        "too large: 16383 × 16383 pixels, over 64 megapixels",
    ),
    "BMP of 100,000 × 100,000": (
        lambda: encoded(PICTURE, "BMP")[:18] + struct.pack("<ii", 100_000, 100_000) + encoded(PICTURE, "BMP")[26:],
        "too large: 100000 × 100000 pixels, over 64 megapixels",
    ),
    "TIFF of 65,000 × 65,000": (
        lambda: tiff(PIXELS, t256=65_000, t257=65_000),
        "too large: 65000 × 65000 pixels, over 64 megapixels",
    ),
    "GIF with a frame beyond its screen": (
        lambda: with_frame_size(encoded(PICTURE.quantize(9), "GIF"), 20_000, 20_000),
        "too large: 20000 × 20000 pixels, over 64 megapixels",
    ),
    "AVIF of 16,000 × 16,000": (
        lambda: with_extents(encoded(PICTURE, "AVIF"), 16_000, 16_000),
        "too large: 16000 × 16000 pixels, over 64 megapixels",
    ),
    "HEIC that declares another size than its codec": (
        lambda: with_extents(encoded(PICTURE, "HEIC"), 16_000, 16_000),
        "damaged: Invalid input: Invalid image size: Decoded image does not have the size signaled in the file.",
    ),
}


def with_frame_size(data: bytes, width: int, height: int) -> bytes:
    """Change the size of a GIF's first frame."""
    place = data.index(b",\0\0\0\0" + struct.pack("<HH", *PICTURE.size)) + 5
    return data[:place] + struct.pack("<HH", width, height) + data[place + 4 :]


def with_extents(data: bytes, width: int, height: int) -> bytes:
    """Change the size that an AVIF or HEIC declares for its image, not the one in its codec's own data."""
    while (place := data.find(b"ispe")) >= 0:
        data = data[:place] + b"ISPE\0\0\0\0" + struct.pack(">II", width, height) + data[place + 16 :]
    return data.replace(b"ISPE", b"ispe")


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_right_pixels_is_refused_by_name_without_any(kind: str) -> None:
    file, reason = REFUSED[kind]
    data = file()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    for options in ({}, {"exif_rotate": True}, {"background": (1, 2, 3)}):
        assert str(refusal(data, **options)).startswith(reason)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB


@pytest.mark.parametrize("kind", [kind for kind in SAME if kind != "PNG"])
def test_a_file_that_is_cut_off_is_called_truncated(kind: str) -> None:
    data = SAME[kind][1]()

    for kept in (0.5, 0.8, 0.95):
        refused = refusal(data[: int(len(data) * kept)])
        assert (str(refused), refused.format) == ("truncated", kind.split(",")[0])


@pytest.mark.parametrize("form", ["GIF", "BMP", "TIFF", "WEBP", "AVIF", "HEIC"])
def test_the_cap_on_pixels_holds_for_every_format(form: str) -> None:
    data = encoded(Image.new("L", (1000, 1001)), form)

    refused = refusal(data, max_megapixels=1)

    assert str(refused) == "too large: 1000 × 1001 pixels, over 1 megapixels"
    assert decode(data, Recipe(size=4, max_megapixels=2)).source_size == (1001, 1000)


@pytest.mark.parametrize("form", ["AVIF", "HEIC"])
def test_no_thread_is_left_and_settings_are_as_they_were(form: str) -> None:
    data = encoded(textured(300, 200, 3), form)
    settings = [AvifImagePlugin.DEFAULT_MAX_THREADS, dict(vars(pillow_heif.options))]
    before, threads = len(list(Path("/proc/self/task").iterdir())), threading.active_count()

    decode(data, Recipe(size=16))

    assert [AvifImagePlugin.DEFAULT_MAX_THREADS, dict(vars(pillow_heif.options))] == settings
    assert (len(list(Path("/proc/self/task").iterdir())), threading.active_count()) == (before, threads)


def test_a_webp_beyond_a_workers_memory_is_not_called_damaged() -> None:
    data = REFUSED["WebP of 16,383 × 16,383"][0]()

    with local_pool(1) as pool, pytest.raises(MemoryError):
        pool.submit(decode, data, Recipe(size=8, max_megapixels=300)).result()


def test_damaged_pixels_of_a_webp_are_not_called_truncated() -> None:
    data = encoded(PICTURE, "WEBP", lossless=True)

    assert str(refusal(data[:60] + bytes(len(data) - 60))) == "damaged: failed to read next frame"


def test_decoders_print_nothing() -> None:
    scan = encoded(PICTURE, "TIFF", compression="jpeg").replace(b"\xff\xda", b"\xff\xdb")  # libtiff prints its errors
    channels = tiff(PIXELS, t277=255)  # Pillow logs its own
    program = (
        "import sys; from pipeline.decode.decode import Undecodable, decode; from pipeline.recipe import Recipe\n"
        "for data in sys.stdin.buffer.read().split(b'next file'):\n"
        "    try: decode(data, Recipe(8))\n"
        "    except Undecodable as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], input=scan + b"next file" + channels, capture_output=True, cwd=REPOSITORY
    )

    assert ended.stderr == b""
    assert len(ended.stdout.splitlines()) == 2


def test_a_heic_without_its_library_says_what_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)

    refused = refusal(encoded(PICTURE, "HEIC"))

    assert (str(refused), refused.format) == ("a HEIC; pip install pillow-heif (extra heic) reads it", "HEIC")
    assert decoder_identity.__wrapped__("HEIC") == ""


def test_a_heic_is_tried_again_when_its_library_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photos" / "1").mkdir(parents=True)
    for name, form in (("a.heic", "HEIC"), ("b.png", "PNG")):
        (tmp_path / "photos" / "1" / name).write_bytes(encoded(PICTURE, form))
    decoder_identity.cache_clear()
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pillow_heif", None)
        first = build_cache(tmp_path / "photos", tmp_path / "c.h5", size=16, workers=1)
        again = build_cache(tmp_path / "photos", tmp_path / "c.h5", size=16, workers=1)
    decoder_identity.cache_clear()

    later = build_cache(tmp_path / "photos", tmp_path / "c.h5", size=16, workers=1)

    assert [failed.name for failed in first.failed] == ["a.heic"] and again.up_to_date
    assert (later.cached, later.failed, later.decoded, later.copied) == (2, [], 1, 1)


@pytest.mark.parametrize(("form", "plugin"), [("WebP", "WebP"), ("AVIF", "Avif")])
def test_a_pillow_without_a_decoder_says_so(form: str, plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(PICTURE, form)
    monkeypatch.setattr(f"PIL.{plugin}ImagePlugin.SUPPORTED", False)

    refused = refusal(data)

    assert str(refused) == f"a{'n' * (form == 'AVIF')} {form}; this Pillow is built without it, those of pip read it"
    assert decoder_identity.__wrapped__(form) == ""


def test_each_format_has_an_identity_of_its_own() -> None:
    identities = [decoder_identity(form.name) for form in FORMATS]

    assert len(set(identities)) == len(FORMATS)
    assert all(len(identity) == 32 and int(identity, 16) for identity in identities)


def test_a_jpeg_is_decoded_without_the_decoders_of_other_formats() -> None:
    program = (
        "import sys; from pipeline.decode.decode import decode, decoder_identity; from pipeline.recipe import Recipe;"
        "decoder_identity('JPEG'); decode(sys.stdin.buffer.read(), Recipe(8));"
        "print([name for name in sys.modules if name.split('.')[-1] in"
        " ('pillow_heif', 'AvifImagePlugin', 'TiffImagePlugin', 'WebPImagePlugin')])"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], input=encoded(PICTURE, "JPEG"), capture_output=True, cwd=REPOSITORY, check=True
    )

    assert ended.stdout == b"[]\n"


def test_a_build_reads_every_format_by_content_whatever_its_suffix(tmp_path: Path) -> None:
    (tmp_path / "photos" / "1").mkdir(parents=True)
    suffixes = [form.suffixes[0] for form in FORMATS]
    for number, kind in enumerate(("WebP", "BMP", "GIF", "TIFF, LZW", "AVIF", "HEIC", "PNG")):
        data = SAME[kind][1]()
        decode(data, Recipe(size=16))  # in this process too, before its workers are forked
        for suffix in (suffixes[number], suffixes[number - 1].upper()):
            (tmp_path / "photos" / "1" / f"{number}{suffix}").write_bytes(data)
    for suffix in suffixes:
        (tmp_path / "photos" / "1" / f"text{suffix}").write_bytes(b"<html>not found</html>")

    report = build_cache(tmp_path / "photos", tmp_path / "c.h5", size=16, workers=2)

    assert report.cached == 14
    assert {failed.name: failed.reason for failed in report.failed} == {f"text{s}": "not an image" for s in suffixes}
    cache = TensorCache(tmp_path / "c.h5")
    for name in cache.filenames:
        data = (tmp_path / "photos" / "1" / name).read_bytes()
        expected = resized(opened(data).convert("RGB"), 16)
        assert np.array_equal(np.round((cache[name][1].numpy() + 1) * 127.5).transpose(1, 2, 0), expected)

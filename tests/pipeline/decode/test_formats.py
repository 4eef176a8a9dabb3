"""A file's content says of which format it is, and every format has the pixels of its own library."""

import base64
import io
from importlib.resources import files
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageOps

from pipeline.decode.decode import decode
from pipeline.decode.formats import AVIF, FORMATS, HEIC, NAMES, TIFF, recognize
from pipeline.recipe import Recipe
from pipeline.source.file_names import not_an_image_name
from tests.support.image_files import ALPHA, PICTURE, SAME, encoded, opened, resized, turning_heic
from tests.support.photos import textured

PROBES = [entry for entry in files("pipeline.decode").joinpath("probes").iterdir()]


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_probes_of_each_format_are_recognized_by_their_content(form: object) -> None:
    found = {recognize(probe.read_bytes()) for probe in PROBES if probe.name.endswith(form.suffixes)}  # type: ignore[attr-defined]

    assert found == {form}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"MM\0*\0\0\0\x08", TIFF),
        (b"MM\0+\0\x08\0\0", TIFF),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heicmiaf", HEIC),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", AVIF),
        (b"\0\0\0\x14ftypisom\0\0\0\0mp42avif", "a video or another ISO media file"),  # its brands end before "avif"
        (b"RIFF\x24\0\0\0WAVEfmt ", ""),
        (b"8BPS\0\1", "a Photoshop file"),
        (b"\xff\x0a\xfa\x7f", "a JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"),
        (b"%PDF-1.7", "a PDF"),
        (b"BM"[:1], ""),
        (b"", ""),
    ],
)
def test_other_first_bytes_are_named_as_what_they_are(data: bytes, kind: object) -> None:
    assert recognize(data) == kind


def test_every_suffix_is_of_one_format_and_counts_in_any_case() -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]

    assert len(set(suffixes)) == len(suffixes)
    assert all(not_an_image_name(f"photo{suffix.upper()}".encode()) == "" for suffix in suffixes)
    assert not_an_image_name(b"photo.jxl") == "suffix .jxl"


def test_sentences_name_all_formats() -> None:
    assert NAMES == "JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF and HEIC"
    assert [form.with_article for form in FORMATS if form.with_article.startswith("an ")] == ["an AVIF"]


@pytest.mark.parametrize("kind", SAME)
@pytest.mark.parametrize("size", [20, 64])
def test_every_format_has_the_bits_of_pillows_rgb(kind: str, size: int) -> None:
    picture, file = SAME[kind]
    data = file()
    if kind.startswith(("AVIF", "HEIC")):  # lossy
        picture = opened(data).convert(picture.mode)

    decoded = decode(data, Recipe(size=size))

    assert np.array_equal(decoded.pixels_HWC, resized(picture.convert("RGB"), size))
    assert decoded.format == kind.split(",")[0] and decoded.notes == ()
    assert decoded.source_size == (picture.height, picture.width)


@pytest.mark.parametrize("form", ["GIF", "WEBP", "TIFF", "AVIF", "HEIC"])
def test_transparent_images_of_every_format_are_laid_over_a_color(form: str) -> None:
    picture = PICTURE.quantize(9) if form == "GIF" else ALPHA
    data = encoded(picture, form, **({"transparency": 3} if form == "GIF" else {}))
    whole = Image.new("RGBA", picture.size, (9, 200, 30, 255))
    whole.alpha_composite(opened(data).convert("RGBA"))

    laid = decode(data, Recipe(size=20, background=(9, 200, 30))).pixels_HWC

    assert np.array_equal(laid, resized(whole.convert("RGB")))
    assert not np.array_equal(laid, decode(data, Recipe(size=20)).pixels_HWC)


TEN_BITS = base64.b64decode(  # an AVIF of 16 × 16 pixels: 4 × their number, plus their column modulo 4
    b"AAAAIGZ0eXBhdmlmAAAAAGF2aWZtaWYxbWlhZk1BMUEAAADrbWV0YQAAAAAAAAAhaGRscgAAAAAAAAAAcGljdAAAAAAAAAAAAAAA"
    b"AAAAAAAOcGl0bQAAAAAAAQAAAB5pbG9jAAAAAEQAAAEAAQAAAAEAAAETAAAA4gAAAChpaW5mAAAAAAABAAAAGmluZmUCAAAAAAEA"
    b"AGF2MDFDb2xvcgAAAABqaXBycAAAAEtpcGNvAAAAFGlzcGUAAAAAAAAAEAAAABAAAAAQcGl4aQAAAAADCgoKAAAADGF2MUOBIEAA"
    b"AAAAE2NvbHJuY2x4AAIAAgAAgAAAABdpcG1hAAAAAAAAAAEAAQQBAoMEAAAA6m1kYXQSAAoIOAz/+cCAgCQy0wEQAADQJgf876pM"
    b"dX/6iMaXIdrsMtp6rUZ0AJ7QB8rJMPoIHTTWYFUMWBct8WMCGZ8wu5R9sCIpLE8PkQh2n+qCYwb9mqUE0bRiib0eN0xnAs25PMtz"
    b"4JZO3sKkTYHLm6ZswbPn/nPeNhzJ7J7AywNyRRLxYHIpBuIqryUmMWyOj5ZM/BTEXM/jcpYSGVk2yuX4LNwbB1x05jiLLbBKnwgr"
    b"P+Mr66VBzEUQII+hd2oeE99SA/JnNW1eLpgYsQAKRtCvbgjBDpyaYnaA5f5oCLBgjbE4"
)


def test_ten_bits_a_channel_are_scaled_to_eight() -> None:
    heic = np.linspace(0, 1023, 64 * 64).reshape(64, 64, 1).repeat(3, axis=2).astype(np.uint16)
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB;16", (64, 64), (heic << 6).tobytes()).save(file, quality=-1, chroma=444)
    avif = np.minimum(1023, np.arange(256).reshape(16, 16, 1) * 4 + np.arange(16)[:, None] % 4)

    assert opened(file.getvalue()).info["bit_depth"] == 10
    for data, levels in ((file.getvalue(), heic), (TEN_BITS, avif)):
        found = decode(data, Recipe(size=levels.shape[:2])).pixels_HWC
        assert np.abs(found - levels / 1023 * 255).max() < 1  # level


FRAMES: dict[str, tuple[dict[str, Any], str]] = {
    "GIF": ({"save_all": True}, "animated: the first frame is used"),
    "PNG": ({"save_all": True}, "animated: the first frame is used"),
    "WEBP": ({"save_all": True, "lossless": True}, "animated: the first frame is used"),
    "AVIF": ({"save_all": True}, "animated: the first frame is used"),
    "TIFF": ({"save_all": True}, "pages: the first of several is used"),
    "HEIC": ({}, "pages: the primary one of several is used"),
}


@pytest.mark.parametrize("form", FRAMES)
def test_the_first_frame_or_page_is_taken_and_a_person_is_told(form: str) -> None:
    options, note = FRAMES[form]
    data = encoded(PICTURE, form, append_images=[textured(61, 45, 6), textured(61, 45, 7)], **options)

    decoded = decode(data, Recipe(size=20))

    assert decoded.notes == (note,)
    assert np.array_equal(decoded.pixels_HWC, resized(opened(data).convert("RGB")))
    assert opened(data).n_frames == 3  # type: ignore[attr-defined]


def test_a_damaged_second_frame_of_a_gif_does_no_harm() -> None:
    whole = encoded(PICTURE.quantize(9), "GIF")
    expected = decode(whole, Recipe(size=20)).pixels_HWC

    for tail in (b",", b",\0\0\0\0", b"!\xf9", b",\0\0\0\0\x05\0\x05\0\0\x08\x01", bytes(9), b"\xff" * 40):
        decoded = decode(whole[:-1] + tail, Recipe(size=20))
        assert np.array_equal(decoded.pixels_HWC, expected)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF", "AVIF", "HEIC"])
def test_an_image_is_turned_upright_once_in_every_format(form: str, orientation: int) -> None:
    picture, exif = textured(90, 50, 21), Image.Exif()
    exif[0x0112] = orientation
    picture.info["exif"] = exif.tobytes()
    data = turning_heic(picture, exif) if form == "HEIC" else encoded(picture, form, exif=exif)
    upright, as_stored = ImageOps.exif_transpose(picture), opened(data).convert("RGB")
    if form in ("WEBP", "AVIF", "HEIC"):  # lossy
        lossy = ImageOps.exif_transpose(opened(data)).convert("RGB")
        assert np.abs(np.asarray(lossy).astype(int) - np.asarray(upright)).mean() < 5  # levels
        upright = lossy

    turned = decode(data, Recipe(size=20, exif_rotate=True))
    stored = decode(data, Recipe(size=20))

    assert np.array_equal(turned.pixels_HWC, resized(upright))
    assert np.array_equal(stored.pixels_HWC, resized(as_stored))
    if form in ("TIFF", "HEIC"):  # their decoders turn them
        assert as_stored.size == upright.size
    assert turned.source_size == stored.source_size == as_stored.size[::-1]


def test_exif_in_a_heic_is_ignored_as_its_own_turning_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = turning_heic(PICTURE, exif)
    assert data.count(b"irot") == 1
    unturned = data.replace(b"irot\x03", b"irot\0")  # by 0 degrees; its EXIF still says 6

    turned = decode(unturned, Recipe(size=20, exif_rotate=True))

    assert unturned != data and turned.source_size == (45, 61)
    assert np.array_equal(turned.pixels_HWC, resized(opened(unturned).convert("RGB")))

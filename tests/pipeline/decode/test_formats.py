"""A file's content says of which format it is; suffixes say only which files are looked at."""

from importlib.resources import files

import pytest

from pipeline.decode.formats import AVIF, FORMATS, HEIC, NAMES, TIFF, recognize
from pipeline.source.file_names import not_an_image_name

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
    assert [form.a for form in FORMATS if form.a.startswith("an ")] == ["an AVIF"]

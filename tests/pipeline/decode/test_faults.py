"""Damaged images: each is named for what it is, and every recipe and command judges it alike."""

import io
import random
import struct
import tarfile
import zlib
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from modelnet.eval.trained import Trained
from pipeline import build_cache
from pipeline.decode.decode import decode
from pipeline.decode.faults import Undecodable
from pipeline.recipe import Recipe
from tests.support.photos import textured

PNG = b"\x89PNG\r\n\x1a\n"
PROBES = {entry.name: entry.read_bytes() for entry in files("pipeline.decode").joinpath("probes").iterdir()}
RECIPES: list[dict[str, Any]] = [
    {},
    {"exif_rotate": True},
    {"scaled_decode": True},
    {"exif_rotate": True, "scaled_decode": True},
    {"dtype": "uint8"},
]


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return kind and content of each chunk of a PNG."""
    place, found = len(PNG), []
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return found


def joined(parts: list[tuple[bytes, bytes]]) -> bytes:
    """Return the PNG of these chunks, with right checksums."""
    return PNG + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )


def zlib_damaged(data: bytes) -> bytes:
    """Damage the packed pixels of a PNG, whose chunks keep right checksums; the scan of a JPEG."""
    if not data.startswith(PNG):
        return data[: len(data) // 2] + bytes(40) + data[len(data) // 2 + 40 :]
    return joined(
        [(k, b[: len(b) // 2] + bytes(9) + b[len(b) // 2 + 9 :] if k == b"IDAT" else b) for k, b in chunks(data)]
    )


def bit_flipped(data: bytes) -> bytes:
    flipped = bytearray(data)
    for place in random.Random(len(data)).sample(range(20, len(data)), 3):
        flipped[place] ^= 1 << place % 8
    return bytes(flipped)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "none": lambda data: data,
    "zlib": zlib_damaged,
    "bits": bit_flipped,
    "half": lambda data: data[: len(data) // 2],
    "end": lambda data: data[:-12],
    "zeros": lambda data: data[:-60] + bytes(60),
    "tail": lambda data: data + b"more",
    "start": lambda data: b"<html>" + data,
    "cut out": lambda data: data[: len(data) // 3] + data[len(data) // 3 + 50 :],
}
DAMAGED = {f"{kind}-{name}": damage(data) for kind, damage in DAMAGES.items() for name, data in PROBES.items()}


def verdict(data: bytes, **options: Any) -> str | None:
    """Return why an image is refused; None where it is not."""
    try:
        decode(data, Recipe(16, **options))
    except Undecodable as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", DAMAGED)
def test_every_recipe_judges_an_image_alike(name: str) -> None:
    data = DAMAGED[name]
    verdicts = [verdict(data, **recipe) for recipe in RECIPES]

    assert len(set(verdicts)) == 1
    if verdicts[0] is None:
        assert (decode(data, Recipe(16)).pixels_HWC == decode(data, Recipe(16, exif_rotate=True)).pixels_HWC).all()


def test_build_archive_and_predict_judge_an_image_alike(tmp_path: Path) -> None:
    (tmp_path / "photos" / "1").mkdir(parents=True)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        for name, data in DAMAGED.items():
            (tmp_path / "photos" / "1" / name).write_bytes(data)
            member = tarfile.TarInfo(f"1/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    expected = {name: why for name, data in DAMAGED.items() if (why := verdict(data))}
    assert 50 < len(expected) < len(DAMAGED) - len(PROBES)

    for number, (source, recipe) in enumerate((s, r) for s in ("photos", "photos.tar") for r in RECIPES[:2]):
        report = build_cache(tmp_path / source, tmp_path / f"{number}.h5", size=16, workers=1, **recipe)
        assert {failed.name: failed.reason for failed in report.failed} == expected

    predicted = {}
    trained: Any = SimpleNamespace(recipe=Recipe(16, exif_rotate=True), options=SimpleNamespace(crop=None))
    for name, data in DAMAGED.items():
        try:
            Trained.prepare(trained, data)
        except Undecodable as error:
            predicted[name] = str(error)
    assert predicted == expected


def photo(kind: str) -> bytearray:
    file = io.BytesIO()
    textured(40, 30, 1).save(file, kind)
    return bytearray(file.getvalue())


def jpeg(place: int, value: bytes) -> bytes:
    """Return a JPEG with other bytes in its frame header: marker at 1, bits at 4, height 5, width 7, channels 9."""
    data = photo("JPEG")
    start = data.index(b"\xff\xc0") + place
    data[start : start + len(value)] = value
    return bytes(data)


def png(place: int, value: bytes) -> bytes:
    """Return a PNG whose header has other bytes, and a right checksum."""
    (kind, header), *rest = chunks(bytes(photo("PNG")))
    return joined([(kind, header[:place] + value + header[place + len(value) :]), *rest])


def bad_text() -> bytes:
    parts = chunks(bytes(photo("PNG")))
    data = bytearray(joined([parts[0], (b"tEXt", b"Comment\0what it shows"), *parts[1:]]))
    data[data.index(b"what")] ^= 1
    return bytes(data)


FAULTS = {
    "text checksum": (bad_text(), "damaged: wrong checksum of its chunk tEXt"),
    "PNG of width 0": (png(0, bytes(4)), "damaged: its header says 0 × 30 pixels"),
    "PNG of height 0": (png(4, bytes(4)), "damaged: its header says 40 × 0 pixels"),
    "12 bits": (jpeg(4, b"\x0c"), "a JPEG of 12 bits a channel; convert it to 8 bits first"),
    "JPEG without height": (jpeg(5, bytes(2)), "damaged: its header says 40 × 0 pixels"),
    "JPEG of width 0": (jpeg(7, bytes(2)), "damaged: its header says 0 × 30 pixels"),
    "lossless": (jpeg(1, b"\xc3"), "a lossless or hierarchical JPEG, which no decoder here reads"),
    "two channels": (jpeg(9, b"\x02"), "a JPEG of 2 channels"),
    "JPEG header only": (bytes(photo("JPEG")[:20]), "not an image"),
    "PNG header only": (bytes(photo("PNG")[:33]), "not an image"),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("exif_rotate", [False, True])
def test_a_damaged_header_is_named_for_what_it_is(kind: str, exif_rotate: bool) -> None:
    data, why = FAULTS[kind]

    assert verdict(data, exif_rotate=exif_rotate) == why


def test_the_orientation_of_a_whole_png_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    image = textured(40, 30, 1)
    image.save(file, "PNG", exif=exif)
    turned = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_270).save(turned, "PNG")

    assert (
        decode(file.getvalue(), Recipe(16, exif_rotate=True)).pixels_HWC
        == decode(turned.getvalue(), Recipe(16)).pixels_HWC
    ).all()

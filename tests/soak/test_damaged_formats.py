"""Damaged files of every other format: no decoder ends a build, and each file that gives no image is named."""

import io
import random
import struct
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pillow_heif import from_pillow

from pipeline.build.build import build_cache
from pipeline.decode.formats import AVIF, BMP, GIF, HEIC, PNG, TIFF, WEBP, Format
from tests.soak.oracle import oracle
from tests.soak.trees import RECIPE, photograph, rows_of
from tests.support.tiffs import tiff

PROBES = {entry.name: entry.read_bytes() for entry in files("pipeline.decode").joinpath("probes").iterdir()}
NUMBERS = (0, 1, 2, 3, 8, 16, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
BY_RULE = ("more than 8 bits", "a TIFF", "a CMYK", "a LAB", "a 16-bit PNG", "too large")  # decodable, and refused
LIMITS = ("its decoder crashed, or took over 60 s", "needs more than 2 GB of memory")


def whole_files(form: Format) -> list[bytes]:
    """Return files of a format, of many kinds: its probes, several frames, EXIF, tiles, a grid."""
    picture = Image.open(io.BytesIO(photograph(3))).convert("RGB")
    others = [Image.open(io.BytesIO(photograph(seed))).convert("RGB").resize(picture.size) for seed in (5, 6)]
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn = io.BytesIO()
    if form == HEIC:
        from_pillow(picture.resize((300, 200))).save(drawn, tile_size=128, exif=exif.tobytes())
    elif form != BMP:
        first = picture.quantize(40) if form == GIF else picture
        options = {} if form == AVIF else {"exif": exif}  # with EXIF, Pillow 13's encoder of AVIF sequences crashes
        first.save(drawn, form.name.upper(), save_all=True, append_images=others, **options)
    found = [data for name, data in PROBES.items() if name.endswith(form.suffixes)]
    if form == TIFF:
        pixels = np.asarray(picture)
        found += [tiff(pixels, deflate=True), tiff(pixels, tile=16), tiff(pixels, tile=16, deflate=True, big=True)]
    return [*found, *([drawn.getvalue()] if form != BMP else [])]


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return a file damaged in one of the ways that happen, or that somebody would think of."""
    bad = bytearray(data)
    place, head = rng.randrange(len(bad)), rng.randrange(min(len(bad), 300))
    kind = rng.randrange(9)
    if kind == 0:
        del bad[place:]
    elif kind == 1:
        del bad[-rng.randint(1, 20) :]
    elif kind == 2:
        for _ in range(rng.choice([1, 3, 30])):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        bad[place : place + rng.randint(1, 200)] = rng.randbytes(rng.randint(1, 200))
    elif kind == 4:
        bad[place : place + 256] = bytes(len(bad[place : place + 256]))
    elif kind == 5:
        del bad[place : place + rng.randint(1, 100)]
    elif kind == 6:
        bad[place:place] = bytes(bad[rng.randrange(len(bad)) :][: rng.randint(1, 100)])
    else:  # numbers of the header
        for _ in range(rng.choice([1, 1, 2, 4])):
            field = struct.pack(rng.choice("<>") + rng.choice("BHI"), 0)
            number = rng.choice(NUMBERS) & (256 ** len(field) - 1)
            bad[head : head + len(field)] = number.to_bytes(len(field), rng.choice(["little", "big"]))
            head = rng.randrange(min(len(bad), 300))
    return bytes(bad)


@pytest.mark.parametrize("form", [PNG, GIF, BMP, TIFF, WEBP, AVIF, HEIC], ids=lambda form: form.name)
def test_no_damaged_file_ends_a_build_and_each_is_decoded_or_named(
    form: Format, count: Callable[[int, int], int], workspace: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(form.name)
    number, whole, figures = count(5000, 100), whole_files(form), Counter[str]()
    bad = {f"{index:05d}{form.suffixes[0]}": damage(rng.choice(whole), rng) for index in range(number)}
    (workspace / "source" / "1").mkdir(parents=True)
    for name, data in bad.items():
        (workspace / "source" / "1" / name).write_bytes(data)
    (workspace / "source" / "1" / "good.jpg").write_bytes(photograph(1))

    report = build_cache(workspace / "source", workspace / "c.h5", size=RECIPE.size, workers=2)

    printed = "".join(capfd.readouterr())
    assert report.seen == number + 1 and report.cached + len(report.failed) == report.seen
    found, reasons = rows_of(report.path), {failed.name: failed.reason for failed in report.failed}
    wrong = [f"printed {printed[:300]!r}"] if printed else []
    for name, data in bad.items():
        reason = reasons.get(name, "")
        if reason in LIMITS:  # what crashes a worker would crash this process too
            figures[reason] += 1
            continue
        expected = oracle(data)
        figures["undecodable" if expected is None else "decodable"] += 1
        if expected is None and (name in found or not reason):
            wrong.append(f"{name}: does not decode, and is not named with a reason")
        if expected is not None and found.get(name) != expected.tobytes():
            cut_off = form == HEIC and reason == "truncated"
            figures["refused by rule"] += 1
            if not reason.startswith(BY_RULE) and not cut_off:
                wrong.append(f"{name}: decodes, and has another row ({reason})")
    with capfd.disabled():
        print(f"\ndamaged {form.name}: {number} files in {report.seconds:.1f} s, {dict(figures)}, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:20])

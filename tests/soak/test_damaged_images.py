"""Damaged JPEGs among good ones: each that does not decode is named with its reason, and the good ones lose nothing."""

import random
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from pipeline.build.build import build_cache
from pipeline.build.report import BuildReport
from pipeline.decode import decode as decoding
from tests.soak.oracle import oracle
from tests.soak.trees import RECIPE, photograph, rows_of
from tests.support.builds import InThisProcess

REPOSITORY = Path(__file__).resolve().parent.parent.parent
GOOD = 40


def damage(data: bytes, rng: random.Random) -> bytes:
    """Return the bytes of a JPEG, damaged in one of the ways that happen, or that somebody would think of."""
    bad = bytearray(data)
    kind = rng.randrange(10)
    if kind == 0:
        del bad[rng.randrange(len(bad)) :]
    elif kind == 1:
        del bad[-rng.randint(1, 20) :]
    elif kind == 2:
        for _ in range(rng.choice([1, 3, 30])):
            bad[rng.randrange(len(bad))] ^= 1 << rng.randrange(8)
    elif kind == 3:
        start, length = rng.randrange(len(bad)), rng.randint(1, 400)
        bad[start : start + length] = rng.randbytes(length)
    elif kind == 4:
        start = rng.randrange(len(bad))
        bad[start : start + 512] = bytes(len(bad[start : start + 512]))
    elif kind == 5:  # a marker where none belongs
        place = rng.randrange(2, len(bad) - 1)
        bad[place : place + 2] = bytes([0xFF, rng.choice([0xD8, 0xD9, 0xC0, 0xC4, 0xDA, 0xDB, 0xE1, 0xFE, 0xC9, 0x00])])
    elif kind == 6:  # other dimensions
        place = next(i for i in range(len(bad)) if bad[i] == 0xFF and bad[i + 1] in (0xC0, 0xC2))
        sides = rng.choice([(65500, 65500), (1, 65000), (0, 0), (300, 300), (8000, 8001), (65535, 1)])
        bad[place + 5 : place + 9] = b"".join(side.to_bytes(2, "big") for side in sides)
    elif kind == 7:
        bad = bytearray(rng.choice([b"", b"<html>", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]) + bad[20:])
    elif kind == 8:
        del bad[(start := rng.randrange(len(bad))) : start + rng.randint(1, 200)]
    else:
        bad += rng.randbytes(100)
    return bytes(bad)


def plant_damaged(root: Path, number: int, rng: random.Random) -> dict[str, bytes]:
    """Write good and damaged photographs into two classes; return the damaged ones."""
    bad = {}
    for index in range(GOOD):
        place = root / str(1 + index % 2) / f"good-{index:03d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(photograph(index))
    for index in range(number):
        name = f"bad-{index:05d}.jpg"
        bad[name] = damage(photograph(rng.randrange(GOOD)), rng)
        (root / str(1 + index % 2) / name).write_bytes(bad[name])
    return bad


def check(report: BuildReport, bad: dict[str, bytes], good: dict[str, bytes], figures: Counter[str]) -> list[str]:
    """Compare a build with Pillow's own answers; return what is wrong."""
    found = rows_of(report.path)
    reasons = {failed.name: failed.reason for failed in report.failed}
    wrong = [f"{name}: other bits than in a clean build" for name in good if found.get(name) != good[name]]
    if report.seen != len(good) + len(bad) or report.cached + len(report.failed) != report.seen:
        wrong.append(f"{report.seen} seen, {report.cached} cached, {len(report.failed)} failed")
    for name, data in bad.items():
        expected = oracle(data)
        figures["undecodable" if expected is None else "decodable"] += 1
        if expected is None and (name in found or not reasons.get(name)):
            wrong.append(f"{name}: does not decode, and is not named with a reason")
        if expected is not None and found.get(name) != expected.tobytes():
            wrong.append(f"{name}: decodes, and has another row ({reasons.get(name)})")
    if any(failed.transient for failed in report.failed):
        wrong.append("a failure that follows from the bytes is called transient")
    figures.update(f"reason {reason.split(':')[0]}" for reason in reasons.values())
    return wrong


def test_every_undecodable_photograph_is_named_and_good_ones_keep_all_bits(
    count: Callable[[int, int], int], workspace: Path
) -> None:
    rng = random.Random(4)
    plant_damaged(workspace / "clean", 0, rng)
    build_cache(workspace / "clean", workspace / "clean.h5", size=RECIPE.size, workers=2)
    good = rows_of(workspace / "clean.h5")
    number, figures = count(5000, 100), Counter[str]()
    bad = plant_damaged(workspace / "source", number, rng)

    report = build_cache(workspace / "source", workspace / "c.h5", size=RECIPE.size, workers=2)
    wrong = check(report, bad, good, figures)

    print(
        f"\ndamaged images: {number}, {figures['undecodable']} of them undecodable and named, "
        f"{figures['decodable']} decoded as Pillow does, {len(good)} good ones unchanged, {len(wrong)} wrong"
    )
    assert not wrong, "\n".join(wrong[:20])
    assert {"reason truncated", "reason not an image", "reason too large"} <= set(figures)


def test_an_image_that_fails_ends_a_strict_build_with_3_and_another_with_0(workspace: Path) -> None:
    plant_damaged(workspace / "source", 20, random.Random(5))
    command = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", str(workspace / "source"), "--size", "16"]
    for options, code in (([], 0), (["--strict"], 3)):
        ended = subprocess.run(
            [*command, "--out", str(workspace / "c.h5"), *options], capture_output=True, text=True, timeout=60
        )
        assert (ended.returncode, ended.stderr) == (code, "")
        assert "failed: " in ended.stdout


def test_with_truncated_images_let_through_the_suite_sees_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def lenient() -> Iterator[None]:
        monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        yield

    rng = random.Random(6)
    plant_damaged(workspace / "clean", 0, rng)
    build_cache(workspace / "clean", workspace / "clean.h5", size=RECIPE.size, executor=InThisProcess())
    bad = plant_damaged(workspace / "source", 60, rng)
    decoding.decoder_identity("JPEG")
    monkeypatch.setattr(decoding, "_strict_pillow", lenient)
    report = build_cache(workspace / "source", workspace / "c.h5", size=RECIPE.size, executor=InThisProcess())
    monkeypatch.undo()

    wrong = check(report, bad, rows_of(workspace / "clean.h5"), Counter())
    assert any("does not decode" in what for what in wrong)


def test_threads_that_decode_leave_pillow_as_they_found_it(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    before = Image.MAX_IMAGE_PIXELS, list(warnings.filters)
    plant_damaged(workspace / "source", 60, random.Random(8))
    build_cache(workspace / "source", workspace / "a.h5", size=RECIPE.size, executor=InThisProcess())
    for _ in range(3):
        with ThreadPoolExecutor(8) as threads:
            build_cache(workspace / "source", workspace / "b.h5", size=RECIPE.size, rebuild=True, executor=threads)

        assert (workspace / "b.h5").read_bytes() == (workspace / "a.h5").read_bytes()
        assert ImageFile.LOAD_TRUNCATED_IMAGES
        assert (Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before

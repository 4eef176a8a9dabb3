"""info: what it shows of a cache, and whether a source still matches."""

import json
import re
import shutil
import time
from pathlib import Path

from pipeline.decode.decode import decoder_identity
from tests.support.command_line import RunCli
from tests.support.photos import save_jpeg


def test_info_shows_what_is_in_a_cache(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (photos / "classes.csv").write_text("id,name\n1,paddle\n2,snake\n")
    shutil.copy(photos / "1" / "n03874293_7.JPEG", photos / "2" / "copied.jpg")
    (photos / "2" / "broken.JPEG").write_bytes(b"no image")
    save_jpeg(photos / "1" / "tiny.jpg", 12, 40, 55)
    run_cli("build-cache", photos, "--out", "c.h5", "--size", "64", "-j", "1")
    start = time.monotonic()

    ended = run_cli("info", "c.h5")

    assert time.monotonic() - start < 3
    size = (tmp_path / "c.h5").stat().st_size
    first, recipe, sources, pixels, fingerprint, *rest = ended.stdout.splitlines()
    assert first == f"c.h5: 10 images, {size / 1000:.1f} kB"
    assert recipe == "recipe: 64 × 64 RGB, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, stored as float32"
    where = "12 × 40 to 90 × 110 pixels, median 64 × 48; width / height 0.30 to 2.24, median 0.91"
    assert sources == f"sources: 10 JPEG; {where}"
    assert re.fullmatch(r"pixels: mean( 0\.\d{4}){3}, std( 0\.\d{4}){3}", pixels)
    assert re.fullmatch(r"fingerprint: [0-9a-f]{64}", fingerprint)
    assert rest == [
        "label  class  name    images",
        "    0  1      paddle       5",
        "    1  2      snake        5",
        "failed: 1",
        "  class 2, broken.JPEG: not an image",
        "same content: 1",
        "  1/n03874293_7.JPEG = 2/copied.jpg",
        "remarkable: 1",
        "  1/tiny.jpg: tiny: 12 × 40 pixels",
    ]


def test_info_as_json_says_the_same_for_scripts(cache_path: Path, run_cli: RunCli) -> None:
    found = json.loads(run_cli("info", cache_path, "--json").stdout)

    assert found["images"] == 8 and found["file_bytes"] == cache_path.stat().st_size
    assert found["classes"] == [{"id": 1, "name": "", "images": 4}, {"id": 2, "name": "", "images": 4}]
    assert found["failed"] == [] and found["inspection"] == {"same_content": [], "nearly_alike": [], "remarks": []}
    assert len(found["fingerprint"]) == 64 and found["decoder"] == {"JPEG": decoder_identity("JPEG")}
    assert found["sources"]["formats"] == {"JPEG": 8} and found["sources"]["smallest"] == [53, 53]
    assert len(found["pixels"]["mean"]) == len(found["pixels"]["std"]) == 3


def test_info_tells_whether_a_source_still_matches(photos: Path, run_cli: RunCli) -> None:
    run_cli("build-cache", photos, "--out", "c.h5", "--size", "64", "-j", "1")

    same = run_cli("info", "c.h5", "--check", photos)
    assert (same.code, same.stdout.splitlines()[-1]) == (0, "source: matches")
    assert run_cli("info", "c.h5", "--check", photos, "--json").code == 0
    (photos / "2" / "n01740131_12.JPEG").unlink()
    other = run_cli("info", "c.h5", "--check", photos)
    assert (other.code, other.stdout.splitlines()[-1], other.stderr) == (65, "source: class 2: 1 removed", "")
    for_scripts = run_cli("info", "c.h5", "--check", photos, "--json")
    assert (for_scripts.code, json.loads(for_scripts.stdout)["source_differs"]) == (65, "class 2: 1 removed")
    assert run_cli("info", "c.h5", "--check", "missing").code == 66

"""Where a cache can be made, and what is never replaced by one."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.build.build import build_cache
from pipeline.errors import AccessDenied, OutputError
from tests.support.builds import names_in
from tests.support.photos import SIZE, save_jpeg


def test_a_folder_that_cannot_be_written_is_told_before_any_decoding(
    photos: Path, out: Path, no_decoding: None, unprivileged: None
) -> None:
    out.parent.chmod(0o555)

    with pytest.raises(AccessDenied) as denied:
        build_cache(photos, out, size=SIZE, workers=1)
    assert denied.value.exit_code == 77
    with pytest.raises(AccessDenied):
        build_cache(photos, out.parent / "deeper" / "c.h5", size=SIZE, workers=1)


@pytest.mark.parametrize("kind", ["link", "dangling link", "FIFO", "folder", "device"])
def test_an_output_that_is_no_regular_file_is_refused_and_left_alone(
    kind: str, photos: Path, out: Path, no_decoding: None
) -> None:
    (out.parent / "other").write_text("somebody's")
    make: dict[str, Callable[[], object]] = {
        "link": lambda: out.symlink_to("other"),
        "dangling link": lambda: out.symlink_to("nowhere"),
        "FIFO": lambda: os.mkfifo(out),
        "folder": out.mkdir,
        "device": lambda: None,
    }
    make[kind]()
    path = Path("/dev/null") if kind == "device" else out
    before = names_in(out.parent)

    with pytest.raises(OutputError, match=r"there is a (link|folder)|no regular file") as refused:
        build_cache(photos, path, size=SIZE, workers=1)

    assert refused.value.exit_code == 73
    assert names_in(out.parent) == before and (out.parent / "other").read_text() == "somebody's"


def test_a_file_in_the_way_of_a_folder_is_told(photos: Path, out: Path, no_decoding: None) -> None:
    out.write_text("somebody's")

    with pytest.raises(OutputError):
        build_cache(photos, out / "c.h5", size=SIZE, workers=1)


def test_a_file_that_is_no_cache_is_never_replaced(photos: Path, out: Path, no_decoding: None) -> None:
    out.write_text("somebody's")

    for rebuild in (False, True):
        with pytest.raises(OutputError, match="there is a file that is no cache of this version") as refused:
            build_cache(photos, out, size=SIZE, workers=1, rebuild=rebuild)
        assert refused.value.exit_code == 73
    assert out.read_text() == "somebody's"


def test_a_cache_of_a_newer_version_is_replaced_by_a_rebuild_alone(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=SIZE, workers=1)
    data = bytearray(out.read_bytes())
    data[8] = 2
    out.write_bytes(data)

    with pytest.raises(OutputError, match=r"no cache of this version \(it has format 2; this version reads format 1\)"):
        build_cache(photos, out, size=SIZE, workers=1)

    report = build_cache(photos, out, size=SIZE, workers=1, rebuild=True)
    assert report.why == "the cache was made by a newer version: it has format 2; this version reads format 1"


def test_the_cache_of_other_photographs_is_not_replaced(photos: Path, out: Path, tmp_path: Path) -> None:
    for seed in range(3):
        save_jpeg(tmp_path / "others" / "1" / f"{seed}.jpg", 50, 50, 100 + seed)
    build_cache(photos, out, size=SIZE, workers=1)
    before = out.read_bytes()

    with pytest.raises(OutputError, match=r"holds other photographs \(0 of 8 shared\)\. Give another --out") as refused:
        build_cache(tmp_path / "others", out, size=SIZE, workers=1)
    assert refused.value.exit_code == 73 and out.read_bytes() == before

    assert build_cache(tmp_path / "others", out, size=SIZE, workers=1, rebuild=True).cached == 3


@pytest.mark.parametrize(("kept", "replaced"), [(3, False), (4, True)])
def test_half_of_the_images_must_be_in_the_source_to_replace_a_cache(
    kept: int, replaced: bool, photos: Path, out: Path, tmp_path: Path
) -> None:
    """Case 14, fault 66: the images count by content, under whatever class and name, and each once."""
    build_cache(photos, out, size=SIZE, workers=1)
    before = out.read_bytes()
    for number, photo in enumerate(sorted(photos.rglob("*.JPEG"))[:kept]):
        for copy in range(3):
            (tmp_path / "others" / "3").mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, tmp_path / "others" / "3" / f"{number}-{copy}.jpg")
    for seed in range(30):
        save_jpeg(tmp_path / "others" / "1" / f"{seed}.jpg", 50, 50, 100 + seed)

    if replaced:
        assert build_cache(tmp_path / "others", out, size=SIZE, workers=1).cached == 30 + 3 * kept
        return
    with pytest.raises(OutputError, match=r"holds other photographs \(3 of 8 shared\)\. Give another --out") as refused:
        build_cache(tmp_path / "others", out, size=SIZE, workers=1)
    assert refused.value.exit_code == 73 and out.read_bytes() == before
    assert build_cache(tmp_path / "others", out, size=SIZE, workers=1, rebuild=True).cached == 39


def test_renamed_photographs_are_the_same_photographs(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=SIZE, workers=1)
    for seed, photo in enumerate(sorted(photos.rglob("*.JPEG"))):
        photo.rename(photo.with_name(f"old-{photo.name}"))
        save_jpeg(photo, 50, 50, 100 + seed)

    report = build_cache(photos, out, size=SIZE, workers=1)

    assert (report.cached, report.copied, report.decoded) == (16, 8, 8)

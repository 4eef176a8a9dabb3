"""What changed in a source, and what a build does about it (`staleness`, `image_table`, `worker`)."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image

from pipeline.build import image_table, journal, staleness, worker
from pipeline.build.assess import assess
from pipeline.build.build import build_cache
from pipeline.build.report import BuildReport
from pipeline.build.task import Task
from pipeline.decode.decode import Decoded, decode, decoder_identity
from pipeline.format import fingerprint
from pipeline.format.reader import CacheReader
from pipeline.inspect.info import check_source
from pipeline.load.cache import TensorCache
from pipeline.recipe import Recipe
from pipeline.source import reader
from pipeline.source.scan import scan_source
from tests.support.builds import InThisProcess, note_reads
from tests.support.photos import SIZE, save_jpeg, textured

IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
DEFAULTS: dict[str, Any] = {"size": SIZE, "executor": InThisProcess()}
FIRST = "n03874293_7.JPEG"  # of class 1
SHARED = "n03874293_775.JPEG"  # of both


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "c.h5"


def from_nothing(photos: Path, tmp_path: Path, **options: Any) -> bytes:
    """The oracle: a cache built where there was none."""
    clean = tmp_path / "clean.h5"
    for path in tmp_path.glob("clean.h5*"):
        path.unlink()
    build_cache(photos, clean, **(DEFAULTS | options))
    return clean.read_bytes()


def rebuilt(photos: Path, out: Path, **options: Any) -> BuildReport:
    return build_cache(photos, out, **(DEFAULTS | options))


# --- what changed, and what it costs ------------------------------------------------------------------------------


def content_changed(photos: Path) -> None:
    save_jpeg(photos / "1" / FIRST, 60, 60, 77)


def content_changed_in_secret(photos: Path) -> None:
    """As `cp -p` does: same size, same mtime."""
    path = photos / "1" / FIRST
    before = path.stat()
    data = bytearray((photos / "1" / FIRST).read_bytes())
    data[-40] ^= 0x01
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def added(photos: Path) -> None:
    save_jpeg(photos / "2" / "a.jpg", 60, 60, 78)
    save_jpeg(photos / "2" / "z.jpg", 60, 60, 79)


def removed(photos: Path) -> None:
    (photos / "2" / SHARED).unlink()


def renamed(photos: Path) -> None:
    (photos / "1" / FIRST).rename(photos / "1" / "zebra.jpg")


def moved(photos: Path) -> None:
    (photos / "1" / FIRST).rename(photos / "2" / FIRST)


def swapped(photos: Path) -> None:
    """Two images of the same name change places."""
    one, two, aside = photos / "1" / SHARED, photos / "2" / SHARED, photos / "aside"
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def class_renamed(photos: Path) -> None:
    (photos / "1").rename(photos / "7")


def class_added(photos: Path) -> None:
    save_jpeg(photos / "0" / "a.jpg", 60, 60, 80)


def class_removed(photos: Path) -> None:
    shutil.rmtree(photos / "1")


def class_emptied(photos: Path) -> None:
    for path in (photos / "1").iterdir():
        path.unlink()


def classes_become_strings(photos: Path) -> None:
    save_jpeg(photos / "01" / "a.jpg", 60, 60, 80)


def classes_named(photos: Path) -> None:
    (photos / "classes.csv").write_text("id,name\n1,paddle\n2,snake\n")


def a_broken_one_added(photos: Path) -> None:
    (photos / "1" / "broken.jpg").write_bytes(b"no image")


def a_good_one_broke(photos: Path) -> None:
    (photos / "1" / FIRST).write_bytes(b"no image")


def much_at_once(photos: Path) -> None:
    content_changed(photos)
    added(photos)
    removed(photos)
    (photos / "1" / "n03874293_43.JPEG").rename(photos / "2" / "moved.jpg")


class Case(NamedTuple):
    act: Callable[[Path], None]
    why: str
    decoded: int
    copied: int


CASES = [
    Case(content_changed, "class 1: 1 changed", 1, 7),
    Case(content_changed_in_secret, "class 1: 1 changed", 1, 7),
    Case(added, "class 2: 2 added", 2, 8),
    Case(removed, "class 2: 1 removed", 0, 7),
    Case(renamed, "class 1: 1 renamed", 0, 8),
    Case(moved, "class 2: 1 moved here", 0, 8),
    Case(swapped, "class 1: 1 changed; class 2: 1 changed", 0, 8),
    Case(class_renamed, "class 7: 4 moved here; class 7 new; class 1 gone", 0, 8),
    Case(class_added, "class 0: 1 added; class 0 new", 1, 8),
    Case(class_removed, "class 1: 4 removed; class 1 gone", 0, 4),
    Case(class_emptied, "class 1: 4 removed", 0, 4),
    Case(classes_become_strings, "class 01: 1 added; class 01 new", 1, 8),
    Case(classes_named, "class names changed", 0, 8),
    Case(a_broken_one_added, "class 1: 1 added", 0, 8),
    Case(a_good_one_broke, "class 1: 1 changed", 0, 7),
    Case(much_at_once, "class 1: 1 changed; class 2: 2 added, 1 moved here, 1 removed", 3, 7 - 1),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.act.__name__)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_change_of_the_source_is_told_and_costs_what_changed_only(
    case: Case, dtype: str, photos: Path, out: Path, tmp_path: Path
) -> None:
    rebuilt(photos, out, dtype=dtype)
    case.act(photos)

    assert check_source(out, photos) == case.why
    report = rebuilt(photos, out, dtype=dtype)

    assert (report.why, report.decoded, report.copied) == (case.why, case.decoded, case.copied)
    assert not report.up_to_date
    assert out.read_bytes() == from_nothing(photos, tmp_path, dtype=dtype)
    assert check_source(out, photos) == ""
    assert rebuilt(photos, out, dtype=dtype).up_to_date


def test_files_that_were_touched_only_are_no_change(photos: Path, out: Path) -> None:
    rebuilt(photos, out)
    before = out.stat()
    for path in photos.rglob("*.JPEG"):
        path.touch()
        path.chmod(0o600)

    report = rebuilt(photos, out)

    assert report.up_to_date and report.cached == 8 and report.why == ""
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


SAID: dict[str, Any] = {"mean": Recipe.mean, "std": Recipe.std, "dtype": Recipe.dtype}  # said, or they stay as they are


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"size": 48}, "size 64 → 48"),
        ({"exif_rotate": True}, "exif_rotate False → True"),
        ({"scaled_decode": True}, "scaled_decode False → True"),
        ({"size": 65, "dtype": "uint8"}, "size 64 → 65; dtype float32 → uint8"),
    ],
)
def test_another_recipe_for_the_pixels_decodes_everything(
    options: dict[str, Any], why: str, photos: Path, out: Path, tmp_path: Path
) -> None:
    rebuilt(photos, out)

    report = rebuilt(photos, out, **options)

    assert (report.why, report.decoded, report.copied) == (why, 8, 0)
    assert out.read_bytes() == from_nothing(photos, tmp_path, **options)


@pytest.mark.parametrize("before", [{}, {"dtype": "uint8"}, IMAGENET, IMAGENET | {"dtype": "uint8"}])
@pytest.mark.parametrize("after", [{}, {"dtype": "uint8"}, IMAGENET, IMAGENET | {"dtype": "uint8"}])
def test_another_dtype_mean_or_std_needs_no_decoding(
    before: dict[str, Any],
    after: dict[str, Any],
    photos: Path,
    out: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rebuilt(photos, out, **before)
    expected = from_nothing(photos, tmp_path, **after)

    monkeypatch.setattr(worker, "decode", refused)
    report = rebuilt(photos, out, **SAID | after)

    assert report.up_to_date == (before == after)
    assert (report.decoded, report.copied) == (0, 0 if before == after else 8)
    assert out.read_bytes() == expected


def refused(*_: object) -> Any:
    raise AssertionError("an image was decoded or read")


def test_pixels_that_a_float32_cache_does_not_tell_are_decoded_again(photos: Path, out: Path, tmp_path: Path) -> None:
    rebuilt(photos, out, mean=(1e7, 1e7, 1e7))

    report = rebuilt(photos, out, **SAID)

    assert (report.decoded, report.copied) == (8, 0)
    assert out.read_bytes() == from_nothing(photos, tmp_path)


def test_another_decoder_decodes_everything(
    photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt(photos, out)
    other_decoders(monkeypatch, "JPEG")

    report = rebuilt(photos, out)

    assert (report.why, report.decoded) == ("this installation decodes JPEG to other pixels", 8)
    assert out.read_bytes() == from_nothing(photos, tmp_path)


def test_another_decoder_of_a_format_decodes_its_images_alone(
    photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.png", "b.png"):
        textured(40, 50, len(name) + name.count("a")).save(photos / "2" / name)
    (photos / "2" / "cut.png").write_bytes((photos / "2" / "a.png").read_bytes()[:-60])
    (photos / "2" / "cut.jpg").write_bytes((photos / "1" / FIRST).read_bytes()[:300])
    rebuilt(photos, out)
    other_decoders(monkeypatch, "PNG")
    why = "class 2: 1 to be tried again; this installation decodes PNG to other pixels"
    found = assess(Task(photos, None, scan_source(photos, out), out, TensorCache(out).recipe, None))
    assert (found.why, found.todo) == (why, 3)  # one of them fails

    report = rebuilt(photos, out)

    assert (report.why, report.decoded, report.copied) == (why, 2, 8)
    assert sorted((f.name, f.format) for f in report.failed) == [("cut.jpg", "JPEG"), ("cut.png", "PNG")]
    assert CacheReader(out).decoder == {"JPEG": decoder_identity("JPEG"), "PNG": "0" * 32}
    assert out.read_bytes() == from_nothing(photos, tmp_path)


def test_the_decoder_of_a_format_that_a_cache_lacks_does_not_matter(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rebuilt(photos, out)
    other_decoders(monkeypatch, "PNG", "AVIF", "HEIC")

    assert rebuilt(photos, out).up_to_date


def other_decoders(monkeypatch: pytest.MonkeyPatch, *formats: str) -> None:
    """Have this installation decode formats to other pixels, by its own account."""
    real = decoder_identity
    for module in (image_table, journal, staleness):
        monkeypatch.setattr(module, "decoder_identity", lambda name="": "0" * 32 if name in formats else real(name))


def test_a_rebuild_decodes_everything_and_gives_the_same_bytes(photos: Path, out: Path) -> None:
    rebuilt(photos, out)
    before = out.read_bytes()

    report = rebuilt(photos, out, rebuild=True)

    assert (report.why, report.decoded, report.copied) == ("a rebuild was asked for", 8, 0)
    assert out.read_bytes() == before


# --- up to date ---------------------------------------------------------------------------------------------------


def test_an_up_to_date_cache_is_told_without_reading_an_image(
    settled_photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rebuilt(settled_photos, out)
    read = note_reads(monkeypatch)
    monkeypatch.setattr(worker, "decode", refused)
    monkeypatch.setattr(worker, "fill_rows", refused)
    monkeypatch.setattr(CacheReader, "row_is_good", refused)
    before = out.stat()

    report = rebuilt(settled_photos, out)

    assert report.up_to_date and not read
    assert (report.decoded, report.copied, report.cached, report.counts) == (0, 0, 8, [4, 4])
    assert report.failed == first.failed and report.seen == first.seen
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert str(report).splitlines()[-1].startswith(f"{out}: 8 images, 406.")
    assert "is up to date; nothing was decoded" in str(report)


def test_a_changed_file_is_found_by_its_content_without_stat_data(photos: Path, out: Path) -> None:
    rebuilt(photos, out)
    out.with_name("c.h5.stat").unlink()
    content_changed_in_secret(photos)

    assert rebuilt(photos, out).why == "class 1: 1 changed"


def test_damaged_rows_are_rebuilt_and_no_others(photos: Path, out: Path, tmp_path: Path) -> None:
    rebuilt(photos, out)
    good = out.read_bytes()
    data = bytearray(good)
    for row in (0, 6):
        data[8192 + row * Recipe(size=SIZE).row_bytes + 100] ^= 1
    out.write_bytes(data)

    report = rebuilt(photos, out)

    assert (report.why, report.decoded, report.copied) == ("class 1: 1 damaged; class 2: 1 damaged", 2, 6)
    assert out.read_bytes() == good


def test_a_cache_with_damaged_tables_is_built_again(photos: Path, out: Path) -> None:
    rebuilt(photos, out)
    good = out.read_bytes()
    for place in (20, 5200, len(good) - 1):
        out.write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])

        report = rebuilt(photos, out)

        if place != len(good) - 1:
            assert report.why.startswith("the cache was damaged: its ")
            assert report.decoded == 8
        assert out.read_bytes() == good


# --- failures of the day ------------------------------------------------------------------------------------------


def test_a_failure_of_the_day_is_tried_again_and_then_no_longer(
    photos: Path, out: Path, tmp_path: Path, unprivileged: None
) -> None:
    secret = photos / "1" / FIRST
    secret.chmod(0)
    first = rebuilt(photos, out)
    assert [(f.name, f.reason, f.transient) for f in first.failed] == [(FIRST, "permission denied", True)]
    assert TensorCache(out).failed == first.failed

    still = rebuilt(photos, out)
    assert [(f.name, f.reason, f.transient) for f in still.failed] == [(FIRST, "permission denied", True)]
    assert still.decoded == 0

    secret.chmod(0o644)
    report = rebuilt(photos, out)
    assert (report.why, report.decoded, report.copied) == ("class 1: 1 to be tried again", 1, 7)
    assert report.failed == []
    assert out.read_bytes() == from_nothing(photos, tmp_path)


def test_a_dangling_link_that_comes_to_lead_somewhere_is_cached(photos: Path, out: Path, tmp_path: Path) -> None:
    (photos / "1" / "link.jpg").symlink_to(tmp_path / "later.jpg")
    first = rebuilt(photos, out)
    assert [(f.name, f.reason) for f in first.failed] == [("link.jpg", "a link that leads nowhere")]

    save_jpeg(tmp_path / "later.jpg", 60, 60, 90)
    report = rebuilt(photos, out)

    assert (report.decoded, report.copied, report.failed) == (1, 8, [])
    assert out.read_bytes() == from_nothing(photos, tmp_path)


def test_a_failure_that_follows_from_the_bytes_is_not_tried_again(
    photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "1" / "broken.jpg").write_bytes(b"no image")
    first = rebuilt(photos, out)
    (photos / "2" / SHARED).unlink()
    monkeypatch.setattr(worker, "decode", refused)

    report = rebuilt(photos, out)

    assert report.failed == first.failed and (report.decoded, report.copied) == (0, 7)
    monkeypatch.undo()
    assert out.read_bytes() == from_nothing(photos, tmp_path)


def test_a_broken_file_that_was_mended_is_cached(photos: Path, out: Path, tmp_path: Path) -> None:
    (photos / "1" / "a.jpg").write_bytes(b"no image")
    rebuilt(photos, out)

    save_jpeg(photos / "1" / "a.jpg", 60, 60, 91)
    report = rebuilt(photos, out)

    assert (report.why, report.decoded, report.copied) == ("class 1: 1 changed", 1, 8)
    assert out.read_bytes() == from_nothing(photos, tmp_path)


def test_a_broken_file_that_is_gone_leaves_the_table_of_failures(photos: Path, out: Path, tmp_path: Path) -> None:
    (photos / "1" / "a.jpg").write_bytes(b"no image")
    rebuilt(photos, out)

    (photos / "1" / "a.jpg").unlink()
    report = rebuilt(photos, out)

    assert (report.why, report.decoded, report.copied) == ("class 1: 1 removed", 0, 8)
    assert out.read_bytes() == from_nothing(photos, tmp_path)


# --- the fingerprint ----------------------------------------------------------------------------------------------


def test_the_fingerprint_changes_with_everything_that_shapes_the_bytes(photos: Path, out: Path) -> None:
    seen = [rebuilt(photos, out) and TensorCache(out).fingerprint]
    for act in (content_changed, renamed, classes_named, a_broken_one_added, removed):
        act(photos) if act is not renamed else (photos / "1" / "n03874293_43.JPEG").rename(photos / "1" / "x.jpg")
        rebuilt(photos, out)
        seen.append(TensorCache(out).fingerprint)
    for options in ({"dtype": "uint8"}, {"size": 32}, IMAGENET):
        rebuilt(photos, out, **options)
        seen.append(TensorCache(out).fingerprint)

    assert len(set(seen)) == len(seen) == 9


def test_a_decoder_that_gives_other_pixels_is_another_fingerprint(photos: Path, out: Path) -> None:
    rebuilt(photos, out)
    before = TensorCache(out)

    assert fingerprint.fingerprint(before.recipe, {"JPEG": "0" * 32}, _tables(before)) != before.fingerprint
    assert fingerprint.fingerprint(before.recipe, before.reader.decoder, _tables(before)) == before.fingerprint


def _tables(cache: TensorCache) -> dict[str, Any]:
    names = ("classes", "class_names", "filenames", "labels", "source_sha256", "failed")
    return {name: cache.reader.table(name) for name in names}


def test_one_wrong_pixel_of_one_image_shows_in_a_comparison_of_caches(
    monkeypatch: pytest.MonkeyPatch, photos: Path, out: Path
) -> None:
    """The control of the comparisons above."""
    rebuilt(photos, out)
    good = out.read_bytes()

    def off(data: bytes, recipe: Recipe) -> Decoded:
        decoded = decode(data, recipe)
        pixels = decoded.pixels_HWC.copy()
        pixels[3, 3, 1] ^= data == (photos / "1" / FIRST).read_bytes()
        return decoded._replace(pixels_HWC=pixels)

    monkeypatch.setattr(worker, "decode", off)
    rebuilt(photos, out, rebuild=True)

    assert out.read_bytes() != good


def swap_classes(photos: Path) -> None:
    (photos / "1").rename(photos / "x")
    (photos / "2").rename(photos / "1")
    (photos / "x").rename(photos / "2")


def test_files_of_equal_size_and_times_that_trade_places_are_told_apart(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rename of a folder changes nothing in its files; unpacking gives many of them the same times."""
    photos, whole = tmp_path / "photos", tmp_path / "whole.h5"
    for class_id, color in (("1", 10), ("2", 200)):
        (photos / class_id).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (40, 40), color + number).save(photos / class_id / f"{number}.png", compress_level=0)
    sizes = {path.stat().st_size for path in photos.rglob("*.png")}
    assert len(sizes) == 1
    time.sleep(2.1)

    class SameTimes(reader.Stat):
        def __new__(cls, size: int, *times_and_inode: int) -> "SameTimes":
            return super().__new__(cls, size, 1, 2, times_and_inode[-1])

    monkeypatch.setattr(reader, "Stat", SameTimes)
    rebuilt(photos, out, executor=InThisProcess())
    swap_classes(photos)
    report = rebuilt(photos, out)

    assert report.decoded == 0 and report.copied == 6 and not report.up_to_date
    assert out.read_bytes() == rebuild_from_nothing(photos, whole)


def test_photographs_that_only_traded_names_are_the_same_photographs(photos: Path, out: Path, tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg"]
    folder = tmp_path / "traded"
    for class_id in ("1", "2"):
        for seed, name in enumerate(names):
            save_jpeg(folder / class_id / name, 50, 50, seed + 10 * int(class_id))
    rebuilt(folder, out)
    swap_classes(folder)

    report = rebuilt(folder, out)

    assert (report.decoded, report.copied) == (0, 6)
    assert out.read_bytes() == rebuild_from_nothing(folder, tmp_path / "whole.h5")


def rebuild_from_nothing(photos: Path, path: Path) -> bytes:
    rebuilt(photos, path)
    return path.read_bytes()

"""The page of a cache (by document.py): what it shows, what of a large one, and that all names are text."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import modelnet.pages.cache_page as cache_page
from cli import cli
from modelnet import show_cache
from modelnet.pages.cache_page import Rows, spread
from modelnet.pages.document import Picture
from pipeline import TensorCache, build_cache
from pipeline.build.features import write_features
from pipeline.errors import CacheMissing, OptionsError
from pipeline.format.features import Features
from pipeline.format.header import IMAGES_OFFSET
from tests.support.parsed_page import ParsedPage
from tests.support.photos import make_hostile_photos, save_jpeg
from tests.support.splits import write_folds


def test_a_page_shows_classes_copies_notes_and_failures(photos: Path, out: Path) -> None:
    (photos / "classes.csv").write_text("id,name\n1,paddle\n2,snake\n")
    shutil.copy(photos / "1" / "n03874293_7.JPEG", photos / "2" / "copied.jpg")
    with Image.open(photos / "1" / "n03874293_775.JPEG") as image:
        image.resize((150, 100)).save(photos / "1" / "larger.jpg", quality=70)
    (photos / "2" / "broken.JPEG").write_bytes(b"no image")
    save_jpeg(photos / "1" / "tiny.jpg", 12, 40, 55)
    build_cache(photos, out, size=64, workers=1)

    page = ParsedPage(show_cache(out))

    assert "c.h5: 11 images" in page.text and "recipe: 64 × 64 RGB" in page.text
    assert "paddle 6 images larger.jpg n03874293_1030.JPEG" in page.text and "snake 5 images copied.jpg" in page.text
    assert "1 image is in more than one class, with the same content: one of the labels is wrong." in page.text
    assert "1 group; 1 lies across classes, shown first. paddle n03874293_7.JPEG snake copied.jpg" in page.text
    assert "1 pair; 0 lie across classes, shown first. paddle larger.jpg paddle n03874293_775.JPEG" in page.text
    assert "Tiny, blank or of several frames. paddle tiny" in page.text
    assert "broken.JPEG 2 not an image" in page.text and "1 file without an image" in page.text
    assert "smallest: 12 × 40 pixels" in page.text and "largest: 150 × 100 pixels" in page.text
    assert "The average of all images, pixel by pixel." in page.text
    anchors = {attributes["id"] for tag, attributes in page.elements if "id" in attributes}
    assert {link["href"][1:] for link in page.all("a")} <= anchors


def test_no_name_gets_onto_the_page_as_anything_but_text(tmp_path: Path, out: Path) -> None:
    build_cache(make_hostile_photos(tmp_path / "photos"), out, size=64, workers=1)

    page = ParsedPage(show_cache(out))

    page.check_safe()
    assert "<script>alert(1)<" in page.text and "{{ 7*7 }} & 'quoted' %s.jpg" in page.text
    assert repr("\u202egpj.exe.jpg") in page.text and "שלום.jpg" in page.text


def test_classes_of_one_size_are_told_by_one_number(tmp_path: Path, out: Path) -> None:
    for name in ("1/a", "1/b", "2/a", "2/b"):
        save_jpeg(tmp_path / "photos" / f"{name}.jpg", 8, 8, 9)
    build_cache(tmp_path / "photos", out, size=8, workers=1)

    assert "2 images each" in (text := ParsedPage(show_cache(out)).text) and "2 to 2" not in text


def test_shards_give_the_page_of_a_single_file(uint8_cache_path: Path, cache_path: Path, shards_path: Path) -> None:
    def below_the_facts(path: Path) -> bytes:
        return show_cache(path).partition(b"</dl>")[2]

    assert below_the_facts(shards_path) == below_the_facts(cache_path) == below_the_facts(uint8_cache_path)


def test_of_a_large_cache_a_sample_is_shown(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_page, "SAMPLES_OF_A_CLASS", 2)
    monkeypatch.setattr(cache_page, "MEAN_BYTES", 5 * TensorCache(cache_path).recipe.row_bytes)
    text = ParsedPage(show_cache(cache_path)).text
    assert "4 of 8 images, evenly spread over the file names of each class." in text
    assert "The average of 5 of 8 images, evenly spread" in text
    monkeypatch.setattr(cache_page, "CLASSES_PICTURED", 2)
    assert cache_page._classes_pictured([5, 1, 0, 9, 4]) == [1, 3]  # the smallest with images, and the largest
    assert spread(10, 20, 3) == [11, 15, 18] and spread(5, 7, 9) == [5, 6] and spread(4, 4, 3) == []


def test_the_mean_image_is_that_of_the_pixels(uint8_cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def keep(pixels: Any, *_: object) -> bytes:
        shown.append(pixels)
        return b""

    monkeypatch.setattr(cache_page, "jpeg_of", keep)
    cache = TensorCache(uint8_cache_path)
    _, pictures = cache_page._means(Rows(cache))
    stored = cache.images.numpy().astype(float)
    expected = [stored.mean(0), stored[cache.labels == 0].mean(0), stored[cache.labels == 1].mean(0)]
    assert [(one.true, one.file) for one in pictures] == [
        ("all classes", "8 images"),
        ("1", "4 images"),
        ("2", "4 images"),
    ]
    for mean, pixels in zip(expected, shown, strict=True):
        assert np.array_equal(pixels, mean.round().astype(np.uint8))


def test_a_damaged_row_is_left_out_and_said(copy: Path) -> None:
    with copy.open("r+b") as file:
        file.seek(IMAGES_OFFSET + 100)
        file.write(b"damage")
    page = ParsedPage(show_cache(copy))
    assert "1 damaged row is left out; verify lists all. The first: the cache is damaged: " in page.text
    assert "no picture" in page.text and "The average of 7 of 8 images, evenly spread" in page.text
    assert Rows(TensorCache(copy)).picture(0) == Picture("", "n03874293_1030.JPEG", "1")
    with copy.open("r+b") as file:
        for row in (2, 7):
            file.seek(IMAGES_OFFSET + row * 3 * 64 * 64 * 4 + 100)
            file.write(b"damage")
    text = ParsedPage(show_cache(copy)).text
    assert (
        "3 damaged rows are left out; verify lists all. The first: the cache is damaged: " in text
        and ": row 0 " in text
    )


def test_features_have_no_pictures(cache_path: Path, out: Path) -> None:
    cache = TensorCache(cache_path)
    features = Features("resnet18", "", 512, "a" * 64, cache.fingerprint, "float32", "contiguous")
    write_features(cache.reader, out, features, lambda first, end: np.ones((end - first, 512), np.float32))
    with pytest.raises(OptionsError, match=r"no pictures to show: .*it holds .*resnet18"):
        show_cache(out)


def test_the_command_writes_the_page_beside_the_cache(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    ended = CliRunner().invoke(cli, ["show", copy.name])
    assert ended.stdout == "page: copy.html\n"
    assert Path("copy.html").read_bytes() == show_cache(Path(copy.name))
    assert CliRunner().invoke(cli, ["show", copy.name, "--out", "x/y.html"]).stdout == "page: x/y.html\n"
    assert isinstance(CliRunner().invoke(cli, ["show", "nowhere.h5"]).exception, CacheMissing)


def test_a_page_says_that_it_shows_the_test_images_of_a_split(copy: Path) -> None:
    def said() -> str:
        return ParsedPage(show_cache(copy)).text

    assert "split" not in said()
    beside = write_folds(TensorCache(copy), copy.with_name("copy-split.csv"), 2)
    assert "split" not in said()  # it keeps no test
    write_folds(TensorCache(copy), beside, 2, 1)
    assert "copy-split.csv keeps 2 images for the test; this page shows them with all others." in said()
    beside.write_text("class,file\n")
    assert "A split of this cache lies beside it, and cannot be read: " in said()

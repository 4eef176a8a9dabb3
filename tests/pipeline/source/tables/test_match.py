"""Which images the rows of a table name. Also of `column`."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from pipeline.build.build import build_cache
from pipeline.errors import SourceError, TableDamaged
from pipeline.format.sharded import open_reader
from pipeline.source.tables.column import read_column
from pipeline.source.tables.match import Matched, values_of_cache
from tests.support.builds import InThisProcess
from tests.support.photos import save_jpeg

FILES = ("cat/a.jpg", "cat/b.jpg", "dog/a.jpg", "dog/deep/c.d.jpg")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables") / "photos"
    for seed, name in enumerate(FILES):
        save_jpeg(folder / name, 20, 20, seed)
    build_cache(folder, folder.parent / "c.h5", size=8, executor=InThisProcess())
    return folder


def table(folder: Path, lines: Iterable[str], header: str = "file,patient") -> Path:
    path = folder / "t.csv"
    path.write_text("\n".join([header, *lines]) + "\n", "utf-8")
    return path


def matched(photos: Path, path: Path, column: str = "patient") -> Matched:
    return values_of_cache(open_reader(photos.parent / "c.h5"), path, column)


def test_images_are_named_by_path_name_or_name_without_suffix(photos: Path, tmp_path: Path) -> None:
    path = table(tmp_path, ["dog/a.jpg,7", "./cat/a.jpg,8", "b,9", "deep/c.d.jpg,7", "~x.jpg,1"])

    found = matched(photos, path)

    assert found.values() == ["8", "9", "7", "7"]
    assert list(found.notes()) == [f"1 row of {path} without image: ~x.jpg (line 6)"]


def test_letters_may_be_composed_in_one_place_and_not_in_the_other(tmp_path: Path) -> None:
    names = ["caf\u00e9.jpg", "se\u0301.jpg"]  # as Windows and as macOS write an accent
    for seed, name in enumerate(names):
        save_jpeg(tmp_path / "photos" / "1" / name, 20, 20, seed)
    build_cache(tmp_path / "photos", tmp_path / "c.h5", size=8, executor=InThisProcess())
    path = table(tmp_path, ["cafe\u0301.jpg,p", "s\u00e9.jpg,q", "\u00e9.jpg,r"])

    found = values_of_cache(open_reader(tmp_path / "c.h5"), path, "patient")

    assert found.values() == ["p", "q"]
    assert list(found.notes()) == [f"1 row of {path} without image: \u00e9.jpg (line 4)"]


def test_spaces_around_a_name_are_ignored_unless_a_file_has_them(tmp_path: Path) -> None:
    names = [" a.jpg", " x.jpg", "b.jpg", "x.jpg"]
    for seed, name in enumerate(names):
        save_jpeg(tmp_path / "photos" / "1" / name, 20, 20, seed)
    build_cache(tmp_path / "photos", tmp_path / "c.h5", size=8, executor=InThisProcess())
    path = table(tmp_path, ["p, a.jpg", "q,x.jpg", "r, x.jpg", "s, b.jpg "], "patient,file")

    found = values_of_cache(open_reader(tmp_path / "c.h5"), path, "patient")

    assert found.values() == ["p", "r", "s", "q"]
    assert list(found.notes()) == []


def test_images_are_named_by_the_sha256_of_their_content(photos: Path, tmp_path: Path) -> None:
    digests = [hashlib.sha256((photos / name).read_bytes()).hexdigest() for name in FILES]
    path = table(tmp_path, [f"{digests[3].upper()},p", f"{digests[0]},q", f"{'0' * 64},r"])

    found = matched(photos, path)

    assert found.values() == ["q", None, None, "p"]
    assert list(found.notes()) == [
        f"2 images in no row of {path}: cat/b.jpg, dog/a.jpg",
        f"1 row of {path} without image: {'0' * 64} (line 4)",
    ]
    with pytest.raises(TableDamaged, match=r"line 3: cat/b\.jpg is no SHA-256"):
        matched(photos, table(tmp_path, [f"{digests[0]},p", "cat/b.jpg,q"]))


def test_copies_of_an_image_share_the_row_of_their_content(tmp_path: Path) -> None:
    for name in ("x/1.jpg", "x/2.jpg", "y/3.jpg"):
        save_jpeg(tmp_path / "photos" / name, 20, 20, 0)
    save_jpeg(tmp_path / "photos" / "y/4.jpg", 20, 20, 1)
    build_cache(tmp_path / "photos", tmp_path / "c.h5", size=8, executor=InThisProcess())
    digest = hashlib.sha256((tmp_path / "photos/x/1.jpg").read_bytes()).hexdigest()

    found = values_of_cache(open_reader(tmp_path / "c.h5"), table(tmp_path, [f"{digest},p"] * 2), "patient")

    assert found.values() == ["p", "p", "p", None]
    assert found.repeated == 1


def test_an_empty_value_is_not_an_image_in_no_row(photos: Path, tmp_path: Path) -> None:
    assert matched(photos, table(tmp_path, ["cat/a.jpg,", "b.jpg,NaN"])).values() == ["", "", None, None]


def test_a_value_is_the_text_of_its_cell(photos: Path, tmp_path: Path) -> None:
    assert matched(photos, table(tmp_path, ["cat/a.jpg,1", "b.jpg,1.0"])).values() == ["1", "1.0", None, None]


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (["a.jpg,1"], "line 2: a.jpg is the name of 2 images: cat/a.jpg, dog/a.jpg. Give the path"),
        (["b.jpg,1", "cat/b.jpg,2"], r"line 3: patient of cat/b.jpg is 1 \(line 2\) and 2 \(line 3\)"),
        (["b.jpg,1", "/data/b.jpg,2"], "line 3: /data/b.jpg is not a path below the source"),
        (["~/b.jpg,1"], "line 2: ~/b.jpg is not a path below the source"),
        (["dog/../cat/b.jpg,1"], r"line 2: dog/\.\./cat/b.jpg is not a path below the source"),
        (["C:\\photos\\b.jpg,1"], "is not a path below the source"),
        (["b.jpg,1", ",2"], "line 3: it names no image"),
    ],
)
def test_a_row_that_names_no_one_image_is_refused(photos: Path, tmp_path: Path, lines: list[str], why: str) -> None:
    with pytest.raises(TableDamaged, match=why):
        matched(photos, table(tmp_path, lines))


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "it has no rows"),
        (["x.jpg,1", "y.jpg,2"], r"column file names no image here; its first name is x\.jpg\. Give the right"),
        (["cat\\a.jpg,1"], r"is cat\\a\.jpg\. Write paths with /, not with"),
    ],
)
def test_a_table_of_other_images_is_refused(photos: Path, tmp_path: Path, lines: list[str], why: str) -> None:
    with pytest.raises(SourceError, match=why) as refused:
        matched(photos, table(tmp_path, lines))
    assert refused.value.exit_code == 66


def test_the_nearest_column_is_named(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="it has no column patiant; the nearest is patient"):
        matched(photos, table(tmp_path, ["b.jpg,1"]), "patiant")


def test_a_column_in_memory_is_its_texts_and_their_codes(tmp_path: Path) -> None:
    column = read_column(table(tmp_path, ["a.jpg,x", "b.jpg,y", "c.jpg,x"], "image,label"))

    assert (column.file_column, column.name, column.texts) == ("image", "label", ["x", "y"])
    assert list(column.codes) == [0, 1, 0] and list(column.numbers) == [2, 3, 4]
    assert np.array_equal(column.rows_of("x"), [0, 2]) and not len(column.rows_of("z"))

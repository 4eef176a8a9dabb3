"""split.csv: what is written is read back, by the content of the images; damage is named with file and line."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from modelnet.data.split_table import TEST, UNLISTED, SplitTable, match_split, read_split, write_split
from pipeline import TensorCache, build_cache
from pipeline.errors import SourceError, TableDamaged

DIGESTS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(5)]
HEADER = "class,file,sha256,group,fold\n"
FOLDS = [0, 1, 0, TEST, 1]


def lines(folds: list[str], groups: str = "     ") -> str:
    """Return the text of a split of `DIGESTS`, one letter a group."""
    return HEADER + "".join(
        f"1,{number}.jpg,{digest},{group.strip()},{fold}\n"
        for number, (digest, group, fold) in enumerate(zip(DIGESTS, groups, folds, strict=False))
    )


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def of_cache(cache: TensorCache, path: Path, folds: list[int]) -> SplitTable:
    classes = [str(cache.class_ids[label]) for label in cache.labels.tolist()]
    count = cache.num_images
    return SplitTable(path, classes, list(cache.filenames), cache.source_sha256, [""] * count, np.array(folds))


def test_a_split_is_read_as_it_was_written(tmp_path: Path) -> None:
    names = ["Icon\r", 'odd \udcff,\n"name".jpg', "c.jpg", "d.jpg", "e.jpg"]
    digests = np.array([list(bytes.fromhex(digest)) for digest in DIGESTS], np.uint8)
    split = SplitTable(tmp_path / "s.csv", list("12121"), names, digests, ["p\r", "", "p\r", "", ""], np.array(FOLDS))
    write_split(split)
    back = read_split(split.path)
    assert (back.classes, back.files, back.groups) == (split.classes, split.files, split.groups)
    assert (back.folds.tolist(), back.num_folds) == (FOLDS, 2)
    assert np.array_equal(back.sha256, digests)
    assert [path.name for path in tmp_path.iterdir()] == ["s.csv"]


def test_a_spreadsheet_may_have_saved_the_split_again(tmp_path: Path) -> None:
    plain = read_split(written(tmp_path / "plain.csv", lines(list("01011"))))
    columns = [[f'"{cell}"' for cell in line.split(",")][::-1] for line in lines(list("01011")).split()]
    text = "\r\n".join(",".join(["note", *cells]) for cells in columns) + "\r\n\r\n"
    (tmp_path / "saved.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    saved = read_split(tmp_path / "saved.csv")
    assert (saved.files, saved.folds.tolist()) == (plain.files, plain.folds.tolist())
    assert np.array_equal(saved.sha256, plain.sha256)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (lines(["0", "1", "2x"]), r"line 4: fold is a number from 0 or 'test', not '2x'"),
        (lines(["0", "val"]), r"line 3: fold is a number from 0 or 'test', not 'val'"),
        (lines(["0", "1"]).replace(DIGESTS[1], "ab"), r"line 3: sha256 is 64 hexadecimal digits, not 'ab'"),
        (lines(["0", "1"]) + "1,x.jpg\n", r"line 4: it has 2 cells, and the header 5"),
        (lines(["0", "1", "3"]), r"no image is in fold 2, and some are in fold 3"),
        (lines(["0", "0", "test"]), r"it has 1 folds, and 2 or more are needed"),
        (lines(["0", "1", "test"], "p p"), r"line 4: group 'p' is in test, and in fold 0 in line 2"),
        (
            lines(["0", "1"]).replace(DIGESTS[1], DIGESTS[0]),
            r"line 3: it is in fold 1, and the same content is in fold 0",
        ),
    ],
)
def test_a_damaged_split_is_named_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(TableDamaged, match=reason) as caught:
        read_split(written(tmp_path / "s.csv", text))
    assert (caught.value.exit_code, caught.value.path) == (65, tmp_path / "s.csv")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "there is no such file"),
        ("", "it is empty"),
        (HEADER, "it lists no image"),
        (HEADER.replace("fold", "Folds"), "it has no column fold; the nearest is Folds"),
    ],
)
def test_a_split_that_is_missing_or_empty_is_said_so(text: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "s.csv" if text is None else written(tmp_path / "s.csv", text)
    with pytest.raises(SourceError, match=reason) as caught:
        read_split(path)
    assert caught.value.exit_code == 66


def test_images_are_found_in_another_cache_by_their_content(cache_path: Path, photos: Path, tmp_path: Path) -> None:
    cache = TensorCache(cache_path)
    folds = [0, 1, TEST, 1, 0, TEST, 1, 0]
    write_split(of_cache(cache, tmp_path / "s.csv", folds))
    split = read_split(tmp_path / "s.csv")
    assert match_split(split, cache.reader).folds.tolist() == folds

    (photos / "2").rename(photos / "0")
    for image in sorted((photos / "1").iterdir()):
        image.rename(image.with_name(f"renamed-{image.name}"))
    shutil.copy(next((photos / "0").iterdir()), photos / "0" / "copy.jpg")
    build_cache(photos, tmp_path / "other.h5", size=32, dtype="uint8", workers=1)
    other = TensorCache(tmp_path / "other.h5")
    matched = match_split(split, other.reader)
    fold_of = {digest.tobytes(): fold for digest, fold in zip(cache.source_sha256, folds, strict=True)}
    assert matched.folds.tolist() == [fold_of[digest.tobytes()] for digest in other.source_sha256]
    assert matched.warnings == []


def test_images_on_one_side_only_are_counted_and_named(cache_path: Path, tmp_path: Path) -> None:
    cache = TensorCache(cache_path)
    folds = [0, 1, 1, 0, 0, 1, 1, 0]
    whole = of_cache(cache, tmp_path / "s.csv", folds)
    part = SplitTable(
        whole.path, whole.classes[2:], whole.files[2:], whole.sha256[2:], whole.groups[2:], whole.folds[2:]
    )
    matched = match_split(part, cache.reader)
    assert matched.folds.tolist() == [UNLISTED, UNLISTED, *folds[2:]]
    names = [f"1/{name}" for name in cache.filenames[:2]]
    assert matched.warnings == [
        f"2 of 8 images of the cache are not in the split, and are left out: {names[0]}, {names[1]}"
    ]

    digests = whole.sha256.copy()
    digests[:2] = 0
    moved = SplitTable(whole.path, whole.classes, whole.files, digests, whole.groups, whole.folds)
    assert match_split(moved, cache.reader).warnings[1] == (
        f"2 images of the split are not in the cache: {names[0]}, {names[1]}"
    )
    nothing = SplitTable(whole.path, whole.classes, whole.files, digests * 0, whole.groups, whole.folds)
    with pytest.raises(TableDamaged, match="it lists none of the 8 images of") as caught:
        match_split(nothing, cache.reader)
    assert caught.value.exit_code == 65

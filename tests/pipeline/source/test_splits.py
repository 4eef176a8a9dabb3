"""Training and validation sets that lie together, as folders or as archives, are refused; classes are not."""

import shlex
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.source.splits import refuse_split_archives
from tests.support.archives import packed, tar_of, tree
from tests.support.photos import make_photos


@pytest.mark.parametrize(
    "names",
    [
        ("ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"),
        ("imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"),
        ("Train.zip", "test.zip"),
    ],
)
def test_images_to_train_on_and_to_validate_on_are_not_put_together(names: tuple[str, str], tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    (tmp_path / "in").mkdir()
    for name in names:
        tar_of(photos, tmp_path / "in" / name)
    for source in (tmp_path / "in", tar_of(tmp_path / "in", tmp_path / "all.tar")):
        with pytest.raises(SourceError, match=" and ".join(sorted(names))) as refused:
            scan_source(source)
        assert refused.value.exit_code == 66


@pytest.mark.parametrize(
    "names",
    [
        ("train-0.tar", "train-1.tar", "training-2.tar"),
        ("train.tar", "bus.tar", "car.tar"),  # classes
        ("valley.tar", "trainers.tar", "contest.tar"),
        ("n01440764.tar", "n01443537.tar"),
    ],
)
def test_parts_of_one_source_and_classes_with_such_names_are_let_through(names: tuple[str, ...]) -> None:
    refuse_split_archives([name.encode() for name in names], "in")


# --- folders -----------------------------------------------------------------------------------------------------

SPLITS = {
    "train and val": (["train/cats/a.jpg", "val/cats/a.jpg"], "train/ and val/", "/train"),
    "upper case, and a stray image": (
        ["train/cats/a.jpg", "Val/cats/a.jpg", "train/a.jpg"],
        "train/ and Val/",
        "/train",
    ),
    "an empty one": (["train/cats/a.jpg", "val/"], "train/ and val/", "/train"),
    "flat ones": (["train/a.jpg", "val/b.jpg", "test/c.jpg"], "train/ and val/ and test/", "/train"),
    "a stray class": (
        ["train/cats/a.jpg", "valid/cats/a.jpg", "test/cats/a.jpg", "bus/a.jpg"],
        "train/ and valid/ and test/",
        "/train",
    ),
    "with other words": (["train2017/cats/a.jpg", "Val-set/cats/a.jpg"], "train2017/ and Val-set/", "/train2017"),
    "in one folder": (
        ["images/train/a.jpg", "images/val/a.jpg"],
        "images/train/ and images/val/",
        "/images/train",
    ),
    "beside labels": (
        ["images/train/a.jpg", "images/val/a.jpg", "labels/train/a.txt", "labels/val/a.txt"],
        "images/train/ and images/val/",
        "/images/train",
    ),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_folders_named_as_splits_are_refused_with_what_to_build(kind: str, tmp_path: Path) -> None:
    paths, shown, _ = SPLITS[kind]
    for source in packed(tree(tmp_path / "tvt", *paths)):
        with pytest.raises(SourceError) as refused:
            scan_source(source)
        around = "" if source.is_dir() else "tvt/"
        assert refused.value.exit_code == 66
        assert refused.value.reason == "it looks like " + " and ".join(f"{around}{p}" for p in shown.split(" and "))
        assert "--classes " in refused.value.advice


@pytest.mark.parametrize("kind", SPLITS)
def test_the_source_that_the_advice_names_is_there(kind: str, tmp_path: Path) -> None:
    paths, _, built = SPLITS[kind]
    for source in packed(tree(tmp_path / "my tvt", *paths)):
        with pytest.raises(SourceError, match="Build each: build-cache ") as refused:
            scan_source(source)
        named = Path(shlex.split(refused.value.advice)[3].rstrip("."))
        assert str(named) == f"{source}{'' if source.is_dir() else '/my tvt'}{built}"
        if "cats" in paths[0]:  # otherwise its images lie in no class folder
            assert scan_source(named).class_folders == [b"cats"]


def test_splits_within_classes_are_refused_with_how_to_sort_them(tmp_path: Path) -> None:
    source = tree(tmp_path / "x", *(f"{c}/{split}/a.jpg" for c in ("cat", "dog") for split in ("train", "test")))

    with pytest.raises(SourceError, match=r"looks like cat/train/ and cat/test/\. Sort the images into train/CLASS/"):
        scan_source(source)
    assert scan_source(source, None, Choice(("cat", "dog"))).class_ids == ["cat", "dog"]


def test_classes_whose_names_hold_such_words_are_classes(tmp_path: Path) -> None:
    names = ["test tube", "train station", "train1", "train2", "trainer", "valley"]
    for source in packed(tree(tmp_path / "x", *(f"{name}/a.jpg" for name in names))):
        assert scan_source(source).class_ids == names


def test_one_class_named_as_a_split_is_a_class(tmp_path: Path) -> None:
    for source in packed(tree(tmp_path / "x", "train/a.jpg", "bus/b.jpg", "trains/c.jpg")):
        assert scan_source(source).class_ids == ["bus", "train", "trains"]


def test_classes_that_are_named_as_splits_can_be_asked_for(tmp_path: Path) -> None:
    for source in packed(tree(tmp_path / "x", "train/a.jpg", "test/b.jpg")):
        assert scan_source(source, None, Choice(("train", "test"))).class_ids == ["test", "train"]
    for name in ("train", "test"):
        tar_of(tmp_path / "x" / name, tmp_path / "tars" / f"{name}.tar")
    assert scan_source(tmp_path / "tars", None, Choice(("train", "test"))).class_ids == ["test", "train"]
    with pytest.raises(SourceError, match="archives of several sources"):
        scan_source(tmp_path / "tars")

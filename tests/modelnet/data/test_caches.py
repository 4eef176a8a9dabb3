"""Which cache is found, and which go together."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from modelnet.data.caches import find_cache, match_labels, open_to_train, pair_warnings, shard_warnings
from pipeline import TensorCache, build_shards
from pipeline.build.build import build_cache
from pipeline.errors import CacheMissing, CacheStale, OptionsError, SourceError
from tests.support.photos import make_photos, save_jpeg


def cache_of(folder: Path, classes: dict[str, int], **recipe: Any) -> TensorCache:
    """Build a cache of so many pictures in each class; the picture follows from class and number."""
    for class_id, count in classes.items():
        for i in range(count):
            save_jpeg(folder / class_id / f"{i}.jpg", 70, 60, seed=1000 * int(class_id) + i)
    path = folder.with_suffix(".h5")
    build_cache(folder, path, workers=1, **({"size": 64} | recipe))
    return TensorCache(path)


def test_the_shards_of_a_set_are_one_cache_to_train_on(tmp_path: Path) -> None:
    for name in ("a-00000-of-00002.h5", "a-00001-of-00002.h5", "a-val-00000-of-00002.h5", "b-test.h5"):
        (tmp_path / name).touch()
    assert find_cache(tmp_path) == tmp_path / "a.h5"

    (tmp_path / "b.h5").touch()
    with pytest.raises(OptionsError, match=r"a\.h5, b\.h5"):
        find_cache(tmp_path)


def test_a_shard_alone_is_called_one_and_a_set_and_a_whole_cache_are_not(tmp_path: Path) -> None:
    whole = cache_of(tmp_path / "a", {"1": 3, "2": 3})
    build_shards(tmp_path / "a", tmp_path / "b.h5", 2, size=64, workers=1)
    assert shard_warnings(whole) == shard_warnings(TensorCache(tmp_path / "b.h5")) == []
    alone = tmp_path / "b-00001-of-00002.h5"
    assert shard_warnings(TensorCache(alone)) == [f"{alone} is only shard 1 of 2; all of them are {tmp_path / 'b.h5'}"]


def test_the_one_cache_that_is_not_for_validation_is_found(tmp_path: Path) -> None:
    with pytest.raises(CacheMissing, match=r"Type: python cli.py build-cache"):
        find_cache(tmp_path / "nowhere")
    for name in ("bees-train.h5", "bees-val.h5", "bees-test.h5", "notes.txt"):
        (tmp_path / name).touch()
    assert find_cache(tmp_path) == tmp_path / "bees-train.h5"
    (tmp_path / "example.h5").touch()
    with pytest.raises(OptionsError, match=r"bees-train.h5, example.h5. Type: python cli.py train --cache"):
        find_cache(tmp_path)


def test_the_advice_to_type_quotes_the_path_of_a_cache(tmp_path: Path) -> None:
    folder = tmp_path / "my caches"
    folder.mkdir()
    for name in ("a.h5", "b.h5"):
        (folder / name).touch()
    with pytest.raises(OptionsError) as refused:
        find_cache(folder)
    assert str(refused.value).endswith(f"Type: python cli.py train --cache {shlex.quote(str(folder / 'a.h5'))}")
    assert shlex.quote(str(folder / "a.h5")).startswith("'")


def test_labels_are_matched_by_class_id_not_by_position(tmp_path: Path) -> None:
    train = cache_of(tmp_path / "train", {"1": 2, "2": 2, "10": 2})
    val = cache_of(tmp_path / "val", {"10": 1, "2": 1})
    assert val.class_ids == [2, 10]
    assert match_labels(train.class_ids, train.recipe, val).tolist() == [1, 2]
    assert pair_warnings(train, val)[0] == "the validation set has no images of class 1"


def test_a_class_that_the_training_set_does_not_have_is_refused(tmp_path: Path) -> None:
    train, val = cache_of(tmp_path / "train", {"1": 1, "2": 1}), cache_of(tmp_path / "val", {"2": 1, "3": 1})
    with pytest.raises(CacheStale, match=r"class 3 is unknown to the training set, which has 1, 2"):
        match_labels(train.class_ids, train.recipe, val)


def test_other_preparation_is_refused_and_another_stored_dtype_is_not(tmp_path: Path) -> None:
    train = cache_of(tmp_path / "train", {"1": 1, "2": 1})
    same = cache_of(tmp_path / "same", {"1": 1, "2": 1}, dtype="uint8")
    other = cache_of(tmp_path / "other", {"1": 1, "2": 1}, size=96)
    assert match_labels(train.class_ids, train.recipe, same).tolist() == [0, 1]
    with pytest.raises(CacheStale, match="size 64 → 96"):
        match_labels(train.class_ids, train.recipe, other)


def test_classes_of_the_same_id_and_other_names_are_named(tmp_path: Path) -> None:
    for side, names in {"train": "1,ants\n2,bees\n", "val": "1,paddle\n2,bees\n"}.items():
        (tmp_path / side).mkdir()
        (tmp_path / side / "classes.csv").write_text("id,name\n" + names)
    train = cache_of(tmp_path / "train", {"1": 1, "2": 1})
    val = cache_of(tmp_path / "val", {"1": 2, "2": 1})
    assert pair_warnings(train, val)[0] == (
        "classes are matched by their ids, and some have other names in the validation set: 1 is ants and paddle"
    )
    assert not any("names" in warning for warning in pair_warnings(train, train))


def test_images_in_both_sets_are_counted_by_content_whatever_their_names(tmp_path: Path) -> None:
    train = cache_of(tmp_path / "train", {"1": 2, "2": 3})
    save_jpeg(tmp_path / "val" / "1" / "new.jpg", 80, 80, seed=5)
    copied = (tmp_path / "train" / "2" / "1.jpg").read_bytes()
    for name in ("copy.jpg", "again.jpg"):
        (tmp_path / "val" / "1" / name).write_bytes(copied)
    val = cache_of(tmp_path / "val", {"2": 0})
    assert pair_warnings(train, val)[-1].startswith("2 of 3 validation images are in the training set too")
    assert pair_warnings(train, train)[-1].startswith("5 of 5 validation images are in the training set too")


def test_near_copies_in_both_sets_are_counted_and_blank_images_are_not(tmp_path: Path) -> None:
    """Case 53: training images that were compressed again, under other labels, as validation images."""
    for side in ("train", "val"):
        for class_id in ("1", "2"):
            (tmp_path / side / class_id).mkdir(parents=True)
            Image.new("RGB", (40, 40)).save(tmp_path / side / class_id / f"blank-{side}.png")
    train = cache_of(tmp_path / "train", {"1": 3, "2": 3})
    for number, photo in enumerate(sorted((tmp_path / "train" / "1").glob("*.jpg"))):
        Image.open(photo).save(tmp_path / "val" / "2" / f"{number}.jpg", quality=40)
    save_jpeg(tmp_path / "val" / "1" / "new.jpg", 80, 80, seed=50)
    val = cache_of(tmp_path / "val", {"2": 0})

    assert pair_warnings(train, val)[-1] == (
        "3 of 6 validation images are near copies of training images (scaled or compressed again): "
        "validation will look better than it is"
    )


def test_one_class_is_nothing_to_train_on(tmp_path: Path) -> None:
    (tmp_path / "photos" / "7").mkdir(parents=True)
    cache = cache_of(tmp_path / "photos", {"1": 3})
    assert cache.class_ids == [1, 7]
    with pytest.raises(SourceError, match="at least 2 classes, and all images are of class 1"):
        open_to_train(cache.path)


def test_a_class_with_a_number_as_id_matches_the_class_with_it_as_text(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    build_cache(photos, tmp_path / "val.h5", size=64, workers=1)
    (photos / "extra").mkdir()
    build_cache(photos, tmp_path / "train.h5", size=64, workers=1)
    train, val = TensorCache(tmp_path / "train.h5"), TensorCache(tmp_path / "val.h5")
    assert train.class_ids == ["1", "2", "extra"] and val.class_ids == [1, 2]

    assert match_labels(train.class_ids, train.recipe, val).tolist() == [0, 1]
    assert pair_warnings(train, val) == [
        "8 of 8 validation images are in the training set too (the same content): "
        "validation will look better than it is"
    ]

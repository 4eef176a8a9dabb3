"""Shards read as one cache (`sharded`, `mapping`, `fingerprint`)."""

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.build.build import build_cache
from pipeline.errors import CacheDamaged, CacheMissing, CacheStale, WorkerDied
from pipeline.format.header import IMAGES_OFFSET, TABLE_NAMES
from pipeline.format.paths import shard_path
from pipeline.format.reader import CacheReader
from pipeline.format.sharded import ShardedReader, open_reader
from pipeline.load.cache import TensorCache
from pipeline.load.loader import make_loader
from pipeline.recipe import Recipe
from pipeline.shards.build import build_shards
from tests.support.builds import files_left
from tests.support.command_line import REPOSITORY
from tests.support.photos import SIZE, make_photos, save_jpeg

TABLES = ("filenames", "labels", "classes", "class_names", "row_hash", "source_sha256", "image_hash", "failed", "alike")


@pytest.fixture
def copied(shards_path: Path, tmp_path: Path) -> Path:
    """A set of its own for each test, to do anything with."""
    shutil.copytree(shards_path.parent, tmp_path / "set")
    return tmp_path / "set" / shards_path.name


def test_a_set_is_the_single_cache_of_the_same_images(shards_path: Path, cache_path: Path) -> None:
    one, many = TensorCache(cache_path), TensorCache(shards_path)
    rows = torch.arange(one.num_images)

    assert many.read(rows).equal(one.read(rows)) and many.read_stored(rows).equal(one.images)
    assert many.fingerprint == one.fingerprint
    assert many.labels.equal(one.labels) and list(many.filenames) == list(one.filenames)
    assert (many.class_ids, many.class_names, many.recipe) == (one.class_ids, one.class_names, one.recipe)
    for name in TABLES:
        assert many.reader.table(name).tolist() == one.reader.table(name).tolist(), name
    assert many.reader.class_starts.tolist() == one.reader.class_starts.tolist()
    assert many["n03874293_775.JPEG"][2].equal(one["n03874293_775.JPEG"][2])
    assert set(many) == set(one) and len(many) == len(one)


@pytest.mark.parametrize(
    ("count", "size", "dtype"), [(1, SIZE, "uint8"), (3, 37, "uint8"), (7, 45, "float32"), (3, 224, "uint8")]
)
def test_rows_of_any_width_lie_in_step_across_files(
    count: int, size: int, dtype: Any, shared_photos: Path, tmp_path: Path
) -> None:
    build_cache(shared_photos, tmp_path / "one.h5", size=size, dtype=dtype, workers=1)
    build_shards(shared_photos, tmp_path / "many.h5", count, size=size, dtype=dtype, workers=1)
    one, many = TensorCache(tmp_path / "one.h5"), TensorCache(tmp_path / "many.h5")

    rows = torch.tensor([7, 0, 3, 3, 5])

    assert many.read(rows).equal(one.read(rows))
    assert many.read_stored(rows).equal(one.read_stored(rows))
    with pytest.raises(IndexError):
        many.read(torch.tensor([8]))


def test_failures_remarks_and_pairs_are_those_of_the_single_cache(photos: Path, tmp_path: Path) -> None:
    for number in range(6):
        (photos / "2" / f"broken{number}.jpg").write_bytes(b"no image %d" % number)
    save_jpeg(photos / "1" / "zz_tiny.jpg", 20, 20, 3)
    save_jpeg(photos / "1" / "alike.jpg", 64, 48, 0, quality=60)  # near to another, most likely in another shard
    build_cache(photos, tmp_path / "one.h5", size=SIZE, workers=1)
    build_shards(photos, tmp_path / "many.h5", 3, size=SIZE, workers=1)

    one, many = open_reader(tmp_path / "one.h5"), open_reader(tmp_path / "many.h5")

    assert len(one.failed) == 6 and len(one.notes) > 0 and len(one.table("alike")) > 0
    assert (many.failed, many.notes) == (one.failed, one.notes)
    for name in TABLE_NAMES:
        assert many.table(name).tolist() == one.table(name).tolist(), name
    assert many.fingerprint == one.fingerprint


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_of_a_set_are_those_of_a_single_cache(workers: int, shards_path: Path, cache_path: Path) -> None:
    options: dict[str, Any] = {"multiprocessing_context": "fork"} if workers else {}
    one = list(make_loader(TensorCache(cache_path), 3, seed=5))
    many = list(make_loader(TensorCache(shards_path), 3, seed=5, workers=workers, **options))

    assert len(one) == len(many) == 3
    for (images, labels), (others, other_labels) in zip(one, many, strict=True):
        assert images.equal(others) and labels.equal(other_labels)


def test_a_set_is_opened_by_list_in_any_order_by_pattern_and_by_name(shards_path: Path) -> None:
    files = sorted(shards_path.parent.glob("*.h5"), reverse=True)

    for typed in (
        files,
        [os.fspath(file) for file in files],
        shards_path.parent / "photos-*.h5",
        shards_path.with_suffix(""),
    ):
        opened = open_reader(typed)
        assert isinstance(opened, ShardedReader) and opened.num_images == 8 and opened.path == shards_path


def test_a_single_shard_is_a_cache_like_any_other(shards_path: Path) -> None:
    caches = [TensorCache(shard_path(shards_path, index, 4)) for index in range(4)]

    assert [cache.num_images for cache in caches] == [0, 2, 3, 3]
    assert all(cache.class_ids == [1, 2] for cache in caches)
    assert all(torch.isfinite(cache.images).all() for cache in caches)


def test_the_images_of_a_set_are_no_array_and_the_error_says_what_is(shards_path: Path) -> None:
    with pytest.raises(AttributeError, match=r"is a set of shards; read_stored\(rows\) reads any of its rows"):
        _ = TensorCache(shards_path).images


def test_missing_shards_are_named(copied: Path) -> None:
    shard_path(copied, 1, 4).unlink()
    shard_path(copied, 3, 4).unlink()

    with pytest.raises(CacheMissing) as missing:
        TensorCache(copied)

    assert missing.value.exit_code == 66
    names = "photos-00001-of-00004.h5, photos-00003-of-00004.h5"
    assert missing.value.reason == f"2 of 4 shards missing: {names}"


def _give_twice(copied: Path, photos: Path) -> Any:
    return [*sorted(copied.parent.glob("*.h5")), shard_path(copied, 2, 4)]


def _copy_under_another_number(copied: Path, photos: Path) -> Any:
    shutil.copy(shard_path(copied, 2, 4), shard_path(copied, 1, 4))
    return copied


def _add_a_whole_cache(copied: Path, photos: Path) -> Any:
    build_cache(photos, copied.with_name("photos-x.h5"), size=SIZE, workers=1)
    return copied.with_name("photos-*.h5")


def _replace_by_another_recipe(copied: Path, photos: Path) -> Any:
    build_shards(photos, copied.with_name("other.h5"), 4, only=2, size=48, workers=1)
    shutil.copy(shard_path(copied.with_name("other.h5"), 2, 4), shard_path(copied, 2, 4))
    return copied


def _replace_by_another_number(copied: Path, photos: Path) -> Any:
    build_shards(photos, copied.with_name("other.h5"), 5, only=2, size=SIZE, workers=1)
    shutil.copy(shard_path(copied.with_name("other.h5"), 2, 5), shard_path(copied, 2, 4))
    return copied


def _replace_by_other_classes(copied: Path, photos: Path) -> Any:
    save_jpeg(photos / "3" / "a.jpg", 40, 40, 5)
    build_shards(photos, copied.with_name("other.h5"), 4, only=2, size=SIZE, workers=1)
    shutil.copy(shard_path(copied.with_name("other.h5"), 2, 4), shard_path(copied, 2, 4))
    return copied


def _forge_the_mark_of_another_recipe(copied: Path, photos: Path) -> Any:
    _replace_by_another_recipe(copied, photos)
    forged = shard_path(copied, 2, 4)
    mark = CacheReader(shard_path(copied, 1, 4)).header.shard
    assert mark is not None
    header = replace(CacheReader(forged).header, shard=replace(mark, index=2))
    with forged.open("r+b") as file:
        file.write(header.encode())
    return copied


def _mix_two_sets(copied: Path, photos: Path) -> Any:
    build_shards(photos, copied.with_name("val.h5"), 4, only=2, size=SIZE, workers=1)
    files = [shard_path(copied.with_name("val.h5") if index == 2 else copied, index, 4) for index in range(4)]
    return files


@pytest.mark.parametrize(
    ("mix", "message"),
    [
        (_give_twice, r"00002-of-00004.h5: it is shard 2 of 4, named twice"),
        (_copy_under_another_number, r"00002-of-00004.h5: it is shard 2 of 4, and so is .*00001-of-00004.h5"),
        (_add_a_whole_cache, r"photos-x.h5: it is a whole cache, and no shard"),
        (_replace_by_another_recipe, r"00002-of-00004.h5: it is of another set than .*: size 64 → 48"),
        (_forge_the_mark_of_another_recipe, r"00002-of-00004.h5: it is of another set than .*: size 64 → 48"),
        (_replace_by_another_number, r"00002-of-00004.h5: it is of another set than .*: 4 → 5 shards"),
        (_replace_by_other_classes, r"00002-of-00004.h5: it is of another set than .*: other classes"),
        (_mix_two_sets, r"the files are of sets called photos.h5, val.h5"),
    ],
)
def test_shards_that_do_not_go_together_are_named(
    mix: Callable[[Path, Path], Any], message: str, copied: Path, tmp_path: Path
) -> None:
    typed = mix(copied, make_photos(tmp_path / "photos"))

    with pytest.raises(CacheStale, match=message) as stale:
        TensorCache(typed)

    assert stale.value.exit_code == 65


def test_the_same_image_in_two_shards_is_named(photos: Path, copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.source.partition.shard_of", lambda folder, name, count: 2)
    build_shards(photos, copied.with_name("all.h5"), 4, only=2, size=SIZE, workers=1)
    shutil.copy(shard_path(copied.with_name("all.h5"), 2, 4), shard_path(copied, 2, 4))

    with pytest.raises(CacheStale, match=r"\(class 1, n03874293_\d+.JPEG\) is in .*photos-0000\d-of-00004.h5 too"):
        TensorCache(copied)


@pytest.mark.parametrize("verify", ["first", "always", "off"])
def test_a_damaged_row_is_named_with_its_shard(verify: Any, copied: Path) -> None:
    file = shard_path(copied, 2, 4)
    with file.open("r+b") as opened:
        opened.seek(IMAGES_OFFSET + Recipe(size=SIZE).row_bytes + 100)
        opened.write(b"\xff\xff")
    cache = TensorCache(copied, verify=verify)
    shard = TensorCache(file, verify="off")
    row = list(zip(cache.filenames, cache.labels.tolist(), strict=True)).index(
        (shard.filenames[1], int(shard.labels[1]))
    )

    if verify == "off":
        assert cache.read(torch.tensor([row]))[0].numpy().tobytes() == shard.images[1].numpy().tobytes()
        return
    with pytest.raises(CacheDamaged, match=rf"photos-00002-of-00004.h5: row 1 \(class .*{shard.filenames[1]}\)"):
        cache.read(torch.arange(8))
    others = torch.tensor([other for other in range(8) if other != row])
    assert len(cache.read(others)) == 7


def test_a_pickled_set_is_the_one_that_was_open(copied: Path, photos: Path) -> None:
    cache = TensorCache(copied)
    pickled, rows = pickle.dumps(cache), torch.arange(8)
    before = cache.read(rows)
    save_jpeg(photos / "1" / "n03874293_7.JPEG", 50, 50, 99)
    build_shards(photos, copied, 4, size=SIZE, workers=1)

    again = pickle.loads(pickled)  # from the files that are still open here

    assert again.read(rows).equal(before) and again.path == copied
    assert not TensorCache(copied).read(rows).equal(before)
    cache.reader.close()
    with pytest.raises(CacheStale, match="it was replaced since it was opened"):
        pickle.loads(pickled)


def _sum(cache: TensorCache, answers: Any) -> None:
    answers.put(float(cache.read(torch.arange(8)).double().sum()))


def test_a_set_outlives_its_files_and_a_fork(copied: Path) -> None:
    cache = TensorCache(copied)
    expected = float(cache.read(torch.arange(8)).double().sum())
    shutil.rmtree(copied.parent)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()

    process = context.Process(target=_sum, args=(cache, answers))
    process.start()
    process.join(30)

    assert answers.get() == expected == float(cache.read(torch.arange(8)).double().sum())


def test_the_map_of_a_set_is_given_back(copied: Path) -> None:
    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(f"{copied.parent}/photos-")

    before = mapped()
    cache = TensorCache(copied)
    kept = cache.read(torch.tensor([1]))
    during = mapped()
    del cache

    assert (before, during, mapped()) == (0, 8, 0)
    assert np.isfinite(kept.numpy()).all()


def test_each_shard_reads_ahead_its_own_rows(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(copied)
    rows = torch.tensor([7, 0, 3, 4])
    asked: dict[str, set[tuple[bytes, int]]] = {"in_memory": set(), "will_need": set()}
    for name, named in asked.items():

        def ask(shard: CacheReader, there: Any, named: set[tuple[bytes, int]] = named) -> bool:
            named.update((shard.table("filenames")[row], int(shard.table("labels")[row])) for row in there)
            return True

        monkeypatch.setattr(CacheReader, name, ask)

    assert cache.in_memory(rows) and cache.in_memory(rows[:0])
    cache.will_need(rows)

    wanted = {(cache.filenames[row].encode(), int(cache.labels[row])) for row in rows.tolist()}
    assert asked == {"in_memory": wanted, "will_need": wanted}


def test_a_set_is_in_memory_where_all_its_shards_are(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(copied)
    reader, row = cache.reader, 5
    assert isinstance(reader, ShardedReader)
    home, _ = reader.home(row)
    monkeypatch.setattr(CacheReader, "in_memory", lambda shard, rows: shard is not home)

    assert not cache.in_memory(torch.tensor([row]))
    assert cache.in_memory(torch.tensor([other for other in range(8) if reader.home(other)[0] is not home]))


def test_more_shards_than_open_files_are_allowed_are_an_error(shards_path: Path) -> None:
    for files in range(3, 8):
        with (
            files_left(files),
            pytest.raises(WorkerDied, match=r"photos-0000.-of-00004.h5: Too many .*Raise the limit \(ulimit -n\)"),
        ):
            open_reader(shards_path)


def test_a_command_raises_the_limit_of_open_files_as_far_as_it_may(shards_path: Path) -> None:
    command = f"ulimit -Sn 10; exec {sys.executable} cli.py info {shards_path}"
    ended = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
    assert "8 images in 4 shards" in ended.stdout

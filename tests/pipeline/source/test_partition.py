"""Images are divided among shards by their class and name."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import xxhash

from pipeline.format.fingerprint import shards_id
from pipeline.recipe import Recipe
from pipeline.source.partition import Partition, shard_of, shards_for
from pipeline.source.scan import scan_source
from tests.support.photos import save_jpeg


def test_an_image_is_placed_by_the_hash_of_its_class_and_name() -> None:
    assert shard_of(b"2", b"a/b.jpg", 64) == xxhash.xxh3_64(b"2/a/b.jpg").intdigest() % 64


def test_images_are_spread_evenly() -> None:
    counts = Counter(shard_of(b"%d" % (i % 10), b"n%d.JPEG" % i, 8) for i in range(8000))

    assert set(counts) == set(range(8))
    assert all(abs(count - 1000) < 5 * np.sqrt(1000) for count in counts.values())


def test_shards_hold_each_image_once_in_order_with_all_classes(photos: Path) -> None:
    (photos / "1" / "lost.jpg").symlink_to("nowhere")
    (photos / "notes.txt").touch()
    manifest = scan_source(photos)

    shards = [Partition(manifest, 3).shard(index) for index in range(3)]

    images = [(label, name) for shard in shards for label, name in zip(shard.labels.tolist(), shard.names, strict=True)]
    assert sorted(images) == list(zip(manifest.labels.tolist(), manifest.names, strict=True))
    for index, shard in enumerate(shards):
        here = list(zip(shard.labels.tolist(), shard.names, strict=True))
        assert here == sorted(here)
        assert all(shard_of(manifest.class_folders[label], name, 3) == index for label, name in here)
        assert shard.class_folders == manifest.class_folders and shard.class_ids == manifest.class_ids
        assert not shard.left_out and shard.stats.shape == (len(here), 4)
    assert [f.name for shard in shards for f in shard.failed] == ["lost.jpg"]
    assert Partition(manifest, 3).sizes() == [len(shard.names) for shard in shards]


def test_growth_moves_no_image_to_another_shard(photos: Path) -> None:
    def homes() -> dict[tuple[int, bytes], int]:
        partition = Partition(scan_source(photos), 5)
        return {
            (int(label), name): index
            for index in range(5)
            for label, name in zip(partition.shard(index).labels, partition.shard(index).names, strict=True)
        }

    before = homes()
    for seed in range(20):
        save_jpeg(photos / "1" / f"a{seed}.jpg", 20, 20, seed)
    after = homes()

    assert len(after) == len(before) + 20
    assert {image: after[image] for image in before} == before


def test_the_id_of_a_set_follows_from_recipe_classes_and_number() -> None:
    one = shards_id(Recipe(), [b"1", b"2"], ["", ""], 4)

    assert len(one) == 32 and set(one) <= set("0123456789abcdef")
    others = [
        shards_id(Recipe(size=96), [b"1", b"2"], ["", ""], 4),
        shards_id(Recipe(), [b"1", b"3"], ["", ""], 4),
        shards_id(Recipe(), [b"1", b"2"], ["", "snake"], 4),
        shards_id(Recipe(), [b"1", b"2"], ["", ""], 5),
    ]
    assert len({one, *others}) == 5


@pytest.mark.parametrize(
    ("images", "rows", "count"), [(1, 10, 1), (10, 10, 1), (11, 10, 2), (1000, 3, 334), (10**9, 1, 99_999)]
)
def test_rows_per_shard_choose_the_number_of_shards(images: int, rows: int, count: int) -> None:
    assert shards_for(images, rows) == count

"""The list of caches (modelnet/pages/cache_list.py, commands/workplace/caches.py): size, age, who used them."""

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from modelnet import TrainOptions, train
from modelnet.pages.cache_list import ListedCache, caches_table, list_caches
from pipeline.errors import CacheMissing
from tests.support.command_line import RunCli

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")

FOLDER = Path("data/cache")


def test_a_cache_is_listed_with_the_runs_that_used_it_wherever_it_is_now(
    cache_path: Path, shards_path: Path, run_cli: RunCli
) -> None:
    FOLDER.mkdir(parents=True)
    shutil.copy(cache_path, FOLDER / "a.h5")
    for shard in shards_path.parent.glob("photos-*.h5"):
        shutil.copy(shard, FOLDER)
    (FOLDER / "a.h5").rename(FOLDER / "moved.h5")
    train(TrainOptions(cache_path, epochs=1, name="r"))
    before = time.time() - 3 * 86_400 - 60
    os.utime(FOLDER / "moved.h5", (before, before))

    moved, shards = list_caches([FOLDER, Path("nowhere")], Path("runs"))

    assert (moved.cache, moved.images, moved.classes, moved.runs) == ("data/cache/moved.h5", 8, 2, ["r"])
    assert moved.file_bytes == (FOLDER / "moved.h5").stat().st_size
    assert (shards.cache, shards.images) == ("data/cache/photos.h5", 8)
    assert shards.file_bytes == sum(file.stat().st_size for file in FOLDER.glob("photos-*.h5"))
    lines = caches_table([moved, shards]).splitlines()
    assert "3 days" in lines[1] and lines[1].endswith("1  r") and lines[3].startswith("2 caches, ")
    assert json.loads(run_cli("caches", "--json").stdout) == [moved.to_dict(), shards.to_dict()]
    assert "each FOLDER, by default data/cache/ and data/features/:" in " ".join(run_cli("caches", "-h").stdout.split())


def test_a_file_that_is_no_cache_has_its_line() -> None:
    FOLDER.mkdir(parents=True)
    (FOLDER / "bad.h5").write_bytes(b"no cache")

    (bad,) = list_caches([FOLDER], Path("runs"))

    assert bad.cache == "data/cache/bad.h5" and bad.problem.startswith("not a cache: ")
    assert caches_table([bad]).splitlines()[-2:] == ["1 cache, 0 bytes", f"warning: {bad.problem}"]


def test_many_runs_are_counted_and_the_first_named() -> None:
    cache = ListedCache("c.h5", 8, 2, 10**6, time.time(), [f"r{i}" for i in range(5)])

    assert caches_table([cache]).splitlines()[1].split() == [
        *("c.h5", "8", "2", "1.0", "MB", "just", "now", "5", "r0,", "r1,", "r2", "and", "2", "more")
    ]


def test_no_caches_are_an_error_that_says_what_to_type() -> None:
    with pytest.raises(CacheMissing, match=r"no caches there: data/cache: .*build-cache SOURCE"):
        list_caches([FOLDER], Path("runs"))

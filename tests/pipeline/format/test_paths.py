"""The names of shards, and which files a person means."""

import os
from pathlib import Path

import pytest

from pipeline.format.paths import base_path, cache_exists, cache_files, cache_name, is_shard_of, shard_path, shards_at


def test_a_shard_is_named_by_its_number_and_gives_back_the_name_of_its_set() -> None:
    path = shard_path(Path("data/a-b.c.h5"), 3, 64)

    assert path == Path("data/a-b.c-00003-of-00064.h5")
    assert base_path(path) == Path("data/a-b.c.h5")


@pytest.mark.parametrize(
    "name", ["a.h5", "a-3-of-64.h5", "a-00003-of-00064", "-00003-of-00064.h5", "a-00003-of-00064.h5.lock"]
)
def test_what_is_named_otherwise_is_no_shard_of_a_set(name: str) -> None:
    assert not is_shard_of(b"x" + os.fsencode(name), b"a.h5")


def test_files_beside_a_shard_belong_to_its_set() -> None:
    for suffix in ("", ".lock", ".stat", ".building", ".building.new", ".journal"):
        assert is_shard_of(b"a-00003-of-00064.h5" + suffix.encode(), b"a.h5")
        assert not is_shard_of(b"a-00003-of-00064.h5" + suffix.encode(), b"b.h5")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "a-00000-of-00002.h5",
        "a-00001-of-00002.h5.building",
        "a-00000-of-00003.h5",
        "b.h5",
        "a-b-00000-of-00001.h5",
    ):
        (tmp_path / name).touch()
    return tmp_path


def test_sets_are_found_by_their_name_with_unfinished_shards(folder: Path) -> None:
    found = shards_at(folder / "a.h5")

    assert {count: [file.name for file in files] for count, files in found.items()} == {
        2: ["a-00000-of-00002.h5", "a-00001-of-00002.h5.building"],
        3: ["a-00000-of-00003.h5"],
    }
    assert shards_at(folder / "none" / "a.h5") == {} and shards_at(folder / "b.h5") == {}


@pytest.mark.parametrize("typed", ["a.h5", "a", "a-0*.h5"])
def test_a_set_is_meant_by_its_name_or_by_a_pattern(typed: str, folder: Path) -> None:
    assert [file.name for file in cache_files(folder / typed)] == ["a-00000-of-00002.h5", "a-00000-of-00003.h5"]
    assert cache_exists(folder / typed) and cache_name(folder / typed) == "a"


def test_a_file_that_is_there_is_meant_itself_whatever_its_name(folder: Path) -> None:
    (folder / "[x]*.h5").touch()

    assert cache_files(folder / "[x]*.h5") == [folder / "[x]*.h5"]
    assert cache_files(folder / "none*.h5") == [folder / "none*.h5"] and not cache_exists(folder / "none*.h5")
    assert cache_files(folder / "none") == [folder / "none"] and not cache_exists(folder / "none")

"""Which images stay together, against plain loops over all pairs of images."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from modelnet.data.groups import (
    NamedGroups,
    connected,
    group_images,
    groups_by_pattern,
    groups_by_table,
    near_copies,
)
from pipeline import build_cache
from pipeline.errors import OptionsError, SourceError
from pipeline.format.duplicates import NEAR_BITS
from pipeline.format.sharded import Reader, open_reader
from tests.support.photos import save_jpeg, textured


class Tables:
    """The tables of a cache, where no images are needed."""

    def __init__(self, image_hash: NDArray[np.uint64], blank: list[int], path: Path = Path("c.h5")) -> None:
        count = len(image_hash)
        self.num_images, self.path, self.class_ids = count, path, ["1"]
        self.notes = [(row, "blank: nearly one color all over") for row in blank]
        rng = np.random.default_rng(0)
        self.tables = {
            "image_hash": image_hash,
            "row_hash": np.arange(count, dtype=np.uint64),
            "source_sha256": rng.integers(0, 256, (count, 32), np.uint8),
            "labels": np.zeros(count, np.int64),
            "filenames": np.array([b"%d.jpg" % row for row in range(count)]),
        }

    def table(self, name: str) -> NDArray[np.generic]:
        return self.tables[name]


def reader_of(*arguments: object) -> Reader:
    return Tables(*arguments)  # type: ignore[arg-type,return-value]  # has what the functions ask for


def components(count: int, edges: list[tuple[int, int]]) -> list[set[int]]:
    """Join sets until no edge leads out of one: the plain way."""
    sets = [{row} for row in range(count)]
    for a, b in edges:
        one, other = (next(s for s in sets if row in s) for row in (a, b))
        if one is not other:
            sets.remove(other)
            one |= other
    return sorted(sets, key=min)


def sets_of(numbers: NDArray[np.int64]) -> list[set[int]]:
    return sorted((set(np.flatnonzero(numbers == number).tolist()) for number in set(numbers.tolist())), key=min)


@pytest.mark.parametrize("seed", range(10))
def test_components_are_those_of_a_plain_loop(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelnet.data.groups._MOST_EDGES", 6)
    edges = np.random.default_rng(seed).integers(0, 40, (30, 2))
    found = connected(40, ((edges[i : i + 4, 0], edges[i : i + 4, 1]) for i in range(0, 30, 4)))
    assert sets_of(found) == components(40, [(int(a), int(b)) for a, b in edges])


@pytest.mark.parametrize("seed", range(10))
def test_near_copies_are_joined_through_others_and_blank_images_never(seed: int) -> None:
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, 60, np.uint64)
    for row in range(1, 60, 2):
        bits = rng.choice(64, rng.integers(0, NEAR_BITS + 2), replace=False).astype(np.uint64)
        hashes[row] = hashes[rng.integers(0, row)] ^ np.bitwise_or.reduce(np.uint64(1) << bits, initial=np.uint64(0))
    blank = rng.choice(60, 12, replace=False).tolist()
    edges = [
        (a, b)
        for a in range(60)
        for b in range(a)
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= NEAR_BITS and not {a, b} & set(blank)
    ]
    found = sets_of(near_copies(reader_of(hashes, blank)))
    assert found == components(60, edges)
    assert max(map(len, found)) > 2  # joined through others


def test_more_near_pairs_than_a_cache_stores_are_all_joined() -> None:
    hashes = np.arange(3000, dtype=np.uint64) >> np.uint64(1)  # pairs in the thousands of thousands, one chain
    assert len(set(near_copies(reader_of(hashes, [])).tolist())) == 1


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """Six images: a copy of the first, the same pixels in another file, a copy that was scaled, two others."""
    folder = tmp_path_factory.mktemp("copies")
    photos = folder / "photos"
    save_jpeg(photos / "1" / "p1_a.jpg", 90, 70, seed=1)
    (photos / "2").mkdir()
    (photos / "2" / "p2_copy.jpg").write_bytes((photos / "1" / "p1_a.jpg").read_bytes())
    Image.open(photos / "1" / "p1_a.jpg").save(photos / "1" / "p3_pixels.png")
    textured(90, 70, 1).resize((60, 47)).save(photos / "2" / "p4_scaled.png")
    save_jpeg(photos / "1" / "p5_b.jpg", 90, 70, seed=2)
    save_jpeg(photos / "2" / "p6_c.jpg", 90, 70, seed=3)
    build_cache(photos, folder / "c.h5", size=32, workers=1)
    return open_reader(folder / "c.h5")


def named(reader: Reader, groups: NDArray[np.int64]) -> list[set[str]]:
    names = [name.decode() for name in reader.table("filenames").tolist()]
    return [{names[row] for row in rows} for rows in sets_of(groups)]


def test_exact_copies_and_the_same_pixels_are_one_group(reader: Reader) -> None:
    groups = group_images(reader)
    assert named(reader, groups.of) == [
        {"p1_a.jpg", "p2_copy.jpg", "p3_pixels.png"},
        {"p5_b.jpg"},
        {"p4_scaled.png"},
        {"p6_c.jpg"},
    ]
    smallest = min(bytes(digest).hex() for digest in reader.table("source_sha256")[groups.of == groups.of[0]])
    assert groups.names[groups.of[0]] == f"copies-{smallest[:16]}"
    assert sorted(groups.names)[:3] == ["", "", ""]
    near = group_images(reader, near=near_copies(reader))
    assert {"p1_a.jpg", "p2_copy.jpg", "p3_pixels.png", "p4_scaled.png"} in named(reader, near.of)


def test_groups_of_a_table_and_a_pattern_join(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text(
        "file,patient\np6_c.jpg,ann\np5_b.jpg,ann\np1_a.jpg,bob\np4_scaled.png,\nno.jpg,x\n"
    )
    by_table = groups_by_table(reader, tmp_path / "l.csv", "patient")
    assert by_table.notes == [
        f"2 images in no row of {tmp_path}/l.csv: 1/p3_pixels.png, 2/p2_copy.jpg",
        f"1 row of {tmp_path}/l.csv without image: no.jpg (line 6)",
        "1 image without patient: each is a group of its own",
    ]
    groups = group_images(reader, [by_table])
    assert {"p5_b.jpg", "p6_c.jpg"} in named(reader, groups.of)
    assert {groups.names[number] for number in groups.of.tolist()} == {"ann", "bob", ""}

    by_name = groups_by_pattern(reader, r"p([45])_")
    assert by_name.notes == ["4 images without a match of 'p([45])_': each is a group of its own"]
    pair = NamedGroups("pair", np.where(by_name.codes >= 0, 0, -1), ["4 or 5"], [])
    both = group_images(reader, [by_table, pair])
    assert {"p4_scaled.png", "p5_b.jpg", "p6_c.jpg"} in named(reader, both.of)
    assert set(both.names) == {"patient=ann", "patient=bob"}


def test_columns_of_one_name_name_different_groups(reader: Reader) -> None:
    codes = np.full((2, 6), -1)
    rows = [reader.table("filenames").tolist().index(name) for name in (b"p5_b.jpg", b"p6_c.jpg")]
    codes[[0, 1], rows] = 0
    groups = group_images(reader, [NamedGroups("patient", codes[table], ["7"], []) for table in (0, 1)])
    assert [groups.names[groups.of[row]] for row in rows] == ["patient=7", "patient-2=7"]
    assert [groups.keys[groups.of[row]] for row in rows] == ["patient=7", "patient-2=7"]


def test_a_pattern_takes_group_1_or_the_whole_match(reader: Reader) -> None:
    assert set(groups_by_pattern(reader, r"^[12]/").names) == {"1/", "2/"}
    assert set(groups_by_pattern(reader, r"/p[0-9]_(\w)").names) == {"a", "c", "p", "s", "b"}
    assert set(groups_by_pattern(reader, r"(nothing)?_a").names) == {"_a"}


def test_a_pattern_that_matches_nothing_or_is_none_is_refused(reader: Reader) -> None:
    with pytest.raises(SourceError, match=r"'zz' is in none of their names. It is searched in names like 1/p1_a.jpg"):
        groups_by_pattern(reader, "zz")
    with pytest.raises(SourceError, match=r"'x\*' is in none of their names"):  # an empty match names no group
        groups_by_pattern(reader, "x*")
    with pytest.raises(OptionsError, match=r"'\(' is no regular expression") as caught:
        groups_by_pattern(reader, "(")
    assert caught.value.exit_code == 2

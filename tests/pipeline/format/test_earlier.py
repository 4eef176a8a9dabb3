"""Caches of an earlier state of format 1 (`tables`, `checks`, `header`): read, out of date, never decoded again."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import build_cache
from pipeline.build import image_table
from pipeline.build.features import write_features
from pipeline.build.journal import Entry, _plain  # an entry as it stands in the file
from pipeline.errors import CacheUnsafe, OutputError
from pipeline.format.features import Features
from pipeline.format.reader import CacheReader
from pipeline.format.sharded import open_reader
from pipeline.format.tables import Failed, byte_table, failed_table
from pipeline.inspect.info import check_source, describe_cache
from pipeline.inspect.plan import plan_build
from pipeline.inspect.verify import verify_cache
from pipeline.load.cache import TensorCache
from pipeline.recipe import WITHOUT_KEY, Recipe
from pipeline.shards.build import build_shards
from pipeline.source.reader import Stat
from tests.support.photos import save_jpeg

WHY = "made by an earlier version"


def earlier_table(failed: list[Failed]) -> NDArray[np.bytes_]:
    """Return the table of failures as the earlier state wrote it: the key `passing` where `transient` stands now."""
    return byte_table([entry.replace(b'"transient":', b'"passing":') for entry in failed_table(failed).tolist()])


@pytest.fixture
def broken(photos: Path) -> Path:
    """Return photographs of which one is damaged for good, and one cannot be followed today."""
    (photos / "2" / "broken.JPEG").write_bytes(b"not a JPEG")
    (photos / "1" / "dangling.jpg").symlink_to("nowhere")
    return photos


@pytest.fixture
def earlier(broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a cache of `broken` as the earlier state wrote it."""
    path = tmp_path / "earlier.h5"
    with monkeypatch.context() as patch:
        patch.setattr(image_table, "failed_table", earlier_table)
        build_cache(broken, path, size=16)
    assert b'"passing":' in path.read_bytes() and b'"transient":' not in path.read_bytes()
    return path


def test_an_earlier_cache_is_read_like_any_other(earlier: Path) -> None:
    info = describe_cache(earlier)

    assert [(f.name, f.reason, f.transient) for f in info.failed] == [
        ("dangling.jpg", "a link that leads nowhere", True),
        ("broken.JPEG", "not an image", False),
    ]
    assert CacheReader(earlier).earlier and list(verify_cache(earlier)) == []
    assert TensorCache(earlier).num_images == info.images


def test_an_earlier_cache_is_replaced_without_decoding(earlier: Path, broken: Path, tmp_path: Path) -> None:
    now = build_cache(broken, tmp_path / "now.h5", size=16)
    assert check_source(earlier, broken) == WHY
    assert plan_build(broken, earlier, Recipe(16)).state == f"out of date: {WHY}"

    report = build_cache(broken, earlier, size=16)

    assert (report.why, report.decoded, report.copied) == (WHY, 0, now.cached)
    assert earlier.read_bytes() == (tmp_path / "now.h5").read_bytes()
    assert build_cache(broken, earlier, size=16).up_to_date


def test_an_earlier_cache_of_other_photographs_is_kept(earlier: Path, tmp_path: Path) -> None:
    before, others = earlier.read_bytes(), tmp_path / "others"
    save_jpeg(others / "1" / "a.jpg", 50, 50, 99)

    with pytest.raises(OutputError, match="holds other photographs"):
        build_cache(others, earlier, size=16)

    assert earlier.read_bytes() == before


def test_a_cache_without_failures_is_not_earlier(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_table, "failed_table", earlier_table)
        build_cache(photos, tmp_path / "c.h5", size=16)

    assert not CacheReader(tmp_path / "c.h5").earlier
    assert build_cache(photos, tmp_path / "c.h5", size=16).up_to_date


def test_a_journal_keeps_the_keys_that_the_earlier_state_wrote() -> None:
    """So an unfinished build of that state goes on; a journal says nothing of transient failures."""
    entry = Entry(b"1", b"a", bytes(32), Stat(1, 2, 3, 4), notes=("tiny",))

    assert _plain(entry) == {
        "folder": "1",
        "name": "a",
        "source_sha256": "00" * 32,
        "stat": Stat(1, 2, 3, 4),
        "row_hash": 0,
        "image_hash": 0,
        "remarks": ("tiny",),
        "reason": "",
    }


def test_earlier_shards_are_replaced_without_decoding(
    broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(image_table, "failed_table", earlier_table)
        build_shards(broken, tmp_path / "c.h5", 3, size=16)
    assert len(open_reader(tmp_path / "c.h5").failed) == 2

    report = build_shards(broken, tmp_path / "c.h5", 3, size=16)

    assert (report.decoded, set(report.whys)) == (0, {WHY})


def test_features_of_an_earlier_cache_have_the_new_key(earlier: Path, tmp_path: Path) -> None:
    reader = open_reader(earlier)
    features = Features("sum", "none", 200, "0" * 64, reader.fingerprint)

    write_features(reader, tmp_path / "f.h5", features, lambda first, end: np.ones((end - first, 200), np.float32))

    assert not CacheReader(tmp_path / "f.h5").earlier
    assert CacheReader(tmp_path / "f.h5").failed == reader.failed


def _without_key(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this version be the later one, whose recipe has gained a key."""
    monkeypatch.setitem(WITHOUT_KEY, key, getattr(Recipe, key))


def test_a_recipe_that_lacks_a_later_key_is_earlier(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, path = build_cache(photos, tmp_path / "now.h5", size=16), tmp_path / "c.h5"
    to_dict = Recipe.to_dict
    with monkeypatch.context() as patch:
        patch.setattr(Recipe, "to_dict", lambda self: {k: v for k, v in to_dict(self).items() if k != "exif_rotate"})
        _without_key("exif_rotate", patch)
        build_cache(photos, path, size=16)
    with pytest.raises(CacheUnsafe, match="a recipe has"):
        CacheReader(path)
    _without_key("exif_rotate", monkeypatch)
    assert CacheReader(path).earlier and CacheReader(path).recipe == Recipe(16)

    report = build_cache(photos, path, size=16)

    assert (report.why, report.decoded, report.copied) == (WHY, 0, now.cached)
    assert path.read_bytes() == (tmp_path / "now.h5").read_bytes()

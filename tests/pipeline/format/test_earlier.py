"""Caches of an earlier state of format 1 (`tables`, `checks`, `header`): read, out of date, never decoded again."""

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import build_cache
from pipeline.build import partial, staleness, worker
from pipeline.build.features import write_features
from pipeline.build.journal import Entry, _plain  # an entry as it stands in the file
from pipeline.decode.decode import Decoded, decode, earlier_decoder_identity
from pipeline.errors import CacheUnsafe, OutputError
from pipeline.format.features import Features
from pipeline.format.fingerprint import features_fingerprint
from pipeline.format.reader import CacheReader
from pipeline.format.sharded import open_reader
from pipeline.inspect.info import check_source, describe_cache
from pipeline.inspect.plan import plan_build
from pipeline.inspect.verify import verify_cache
from pipeline.load.cache import TensorCache
from pipeline.recipe import WITHOUT_KEY, Recipe
from pipeline.shards.build import build_shards
from pipeline.source.reader import Stat
from tests.support.builds import InThisProcess
from tests.support.earlier import make_earlier, make_earlier_build
from tests.support.photos import save_jpeg, textured

WHY = "made by an earlier version"


@pytest.fixture
def broken(photos: Path) -> Path:
    """Return photographs of which one is damaged for good, and one cannot be followed today."""
    (photos / "2" / "broken.JPEG").write_bytes(b"not a JPEG")
    (photos / "1" / "dangling.jpg").symlink_to("nowhere")
    textured(40, 30, 9).save(photos / "1" / "p.png")
    return photos


@pytest.fixture(params=["transient", "passing"])
def earlier(request: pytest.FixtureRequest, broken: Path, tmp_path: Path) -> Path:
    """Return a cache of `broken` as an earlier state wrote it; the one before that called failures otherwise."""
    path = tmp_path / "earlier.h5"
    build_cache(broken, path, size=16, executor=InThisProcess())
    make_earlier(path, passing=request.param == "passing")
    assert (b'"passing":' in path.read_bytes()) == (request.param == "passing")
    assert b'"decoder":"' in path.read_bytes() and b"source_format" not in path.read_bytes()
    return path


def test_the_earlier_state_wrote_this_header(earlier: Path) -> None:
    """The writer in `tests/support` gave the very bytes of real caches of that state."""
    data = earlier.read_bytes()
    header = json.loads(data[16 : 16 + int.from_bytes(data[12:16], "little")])
    old = {"size": 16, "mean": [0.5] * 3, "std": [0.5] * 3, "dtype": "float32", "exif_rotate": False}
    assert header["recipe"] == old | {"max_megapixels": 64} and header["decoder"] == earlier_decoder_identity()
    tables = "filenames labels classes class_names row_hash source_sha256 image_hash failed remarks alike"
    assert [entry["name"] for entry in header["datasets"]] == ["images", *tables.split()]
    digest = hashlib.sha256(json.dumps([1, header["decoder"], header["recipe"]], sort_keys=True).encode())
    reader = CacheReader(earlier)
    for name in ("classes", "class_names", "filenames", "labels", "source_sha256", "failed"):
        table = np.array(reader.table(name))
        if name == "failed":
            table = np.array([entry.replace(b"passing", b"transient") for entry in table.tolist()])
        digest.update(struct.pack("<QQ", len(table), table.itemsize) + table.tobytes())
    assert header["fingerprint"] == digest.hexdigest()


def test_an_earlier_cache_is_read_like_any_other(earlier: Path) -> None:
    info = describe_cache(earlier)

    assert [(f.name, f.reason, f.transient) for f in info.failed] == [
        ("dangling.jpg", "a link that leads nowhere", True),
        ("broken.JPEG", "not an image", False),
    ]
    assert CacheReader(earlier).earlier and list(verify_cache(earlier)) == []
    assert CacheReader(earlier).decoder == {"": earlier_decoder_identity()}
    assert TensorCache(earlier).num_images == info.images


def test_an_earlier_cache_is_replaced_without_decoding(earlier: Path, broken: Path, tmp_path: Path) -> None:
    now = build_cache(broken, tmp_path / "now.h5", size=16)
    assert check_source(earlier, broken) == WHY
    assert plan_build(broken, earlier, Recipe(16)).state == f"out of date: {WHY}"
    assert CacheReader(earlier).fingerprint == CacheReader(tmp_path / "now.h5").earlier_fingerprint

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


def test_rows_of_an_earlier_cache_are_derived_without_decoding(earlier: Path, broken: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"size": 16, "dtype": "uint8", "mean": (0.1, 0.2, 0.3)}
    build_cache(broken, tmp_path / "now.h5", **options)

    assert build_cache(broken, earlier, **options).decoded == 0
    assert earlier.read_bytes() == (tmp_path / "now.h5").read_bytes()


def test_failures_of_an_earlier_cache_are_tried_again(
    earlier: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It read fewer formats."""
    tried: list[bytes] = []

    def noting(data: bytes, recipe: Recipe) -> Decoded:
        tried.append(data)
        return decode(data, recipe)

    monkeypatch.setattr(worker, "decode", noting)

    build_cache(broken, earlier, size=16, executor=InThisProcess())

    assert tried == [b"not a JPEG"]


def test_rows_of_another_decoder_than_the_earlier_one_are_decoded(
    earlier: Path, broken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staleness, "decoder_identity", lambda name="": "1" * 32)

    report = build_cache(broken, earlier, size=16)

    assert (report.decoded, report.copied) == (9, 0)
    assert report.why == f"this installation decodes images to other pixels; {WHY}"


@pytest.mark.parametrize(("change", "kept"), [("", 6), ("content", 5), ("decoder", 0)])
def test_an_unfinished_build_of_an_earlier_state_goes_on(
    change: str, kept: int, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(done: int, total: int) -> None:
        if done >= 5:
            raise RuntimeError("stopped")

    path = tmp_path / "c.h5"
    textured(40, 30, 9).save(photos / "1" / "p.png")
    with pytest.raises(RuntimeError):
        build_cache(photos, path, size=16, executor=InThisProcess(), workers=1, progress=interrupted)
    make_earlier_build(path)
    if change == "content":
        first = json.loads(path.with_name("c.h5.journal").read_bytes().splitlines()[1].partition(b" ")[2])
        save_jpeg(photos / first["folder"] / first["name"], 60, 60, 77)
    if change == "decoder":
        monkeypatch.setattr(partial, "earlier_decoder_identity", lambda: "1" * 32)

    report = build_cache(photos, path, size=16)

    assert (report.kept, report.decoded) == (kept, 9 - kept)
    build_cache(photos, tmp_path / "now.h5", size=16)
    assert path.read_bytes() == (tmp_path / "now.h5").read_bytes()


def test_a_journal_keeps_the_keys_that_the_earlier_state_wrote() -> None:
    """So an unfinished build of that state goes on; a journal says nothing of transient failures."""
    entry = Entry(b"1", b"a", bytes(32), Stat(1, 2, 3, 4), notes=("tiny",))
    later = {"format": "", "source_size": (0, 0), "decoder": "", "box": ()}

    assert _plain(entry) == later | {
        "folder": "1",
        "name": "a",
        "source_sha256": "00" * 32,
        "stat": Stat(1, 2, 3, 4),
        "row_hash": 0,
        "image_hash": 0,
        "remarks": ("tiny",),
        "reason": "",
    }


def test_earlier_shards_are_replaced_without_decoding(broken: Path, tmp_path: Path) -> None:
    build_shards(broken, tmp_path / "c.h5", 3, size=16)
    now = open_reader(tmp_path / "c.h5").earlier_fingerprint
    for shard in tmp_path.glob("c-*.h5"):
        make_earlier(shard)
    reader = open_reader(tmp_path / "c.h5")
    assert len(reader.failed) == 2 and reader.fingerprint == reader.earlier_fingerprint == now

    report = build_shards(broken, tmp_path / "c.h5", 3, size=16)

    assert (report.decoded, set(report.whys)) == (0, {WHY})


def test_features_of_an_earlier_cache_have_the_new_key(earlier: Path, tmp_path: Path) -> None:
    reader = open_reader(earlier)
    features = Features("sum", "none", 200, "0" * 64, reader.fingerprint)

    write_features(reader, tmp_path / "f.h5", features, lambda first, end: np.ones((end - first, 200), np.float32))

    assert not CacheReader(tmp_path / "f.h5").earlier
    assert CacheReader(tmp_path / "f.h5").failed == reader.failed


def test_features_are_known_by_the_images_of_an_earlier_cache(earlier: Path, broken: Path, tmp_path: Path) -> None:
    features, before = Features("sum", "none", 200, "0" * 64, CacheReader(earlier).fingerprint), CacheReader(earlier)
    build_cache(broken, earlier, size=16)
    now = replace(features, images=CacheReader(earlier).fingerprint)
    write_features(open_reader(earlier), tmp_path / "f.h5", now, lambda a, b: np.ones((b - a, 200), np.float32))

    assert CacheReader(earlier).earlier_fingerprint == before.fingerprint != CacheReader(earlier).fingerprint
    assert CacheReader(tmp_path / "f.h5").earlier_fingerprint == features_fingerprint(features)


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

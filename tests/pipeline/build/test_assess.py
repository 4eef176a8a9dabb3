"""One answer to "is the cache fresh?" for everybody who asks (`assess`, `plan`, `info`)."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import build_cache, build_shards
from pipeline.build.assess import Assessment, assess
from pipeline.build.output import identity
from pipeline.build.task import Task
from pipeline.inspect.info import check_source, describe_cache
from pipeline.inspect.plan import plan_build
from pipeline.recipe import Recipe
from pipeline.shards.choice import ShardChoice
from pipeline.source.scan import scan_source
from tests.support.builds import names_in
from tests.support.photos import save_jpeg

FIRST = "n03874293_7.JPEG"


def nothing(photos: Path, cache: Path) -> None:
    pass


def another_photo(photos: Path, cache: Path) -> None:
    save_jpeg(photos / "1" / "new.jpg", 50, 50, 99)


def a_photo_gone(photos: Path, cache: Path) -> None:
    (photos / "1" / FIRST).unlink()


def a_photo_changed(photos: Path, cache: Path) -> None:
    save_jpeg(photos / "1" / FIRST, 50, 50, 99)


def a_class_renamed(photos: Path, cache: Path) -> None:
    (photos / "1").rename(photos / "3")


def a_row_damaged(photos: Path, cache: Path) -> None:
    for file in cache.parent.glob("*.h5"):
        data = bytearray(file.read_bytes())
        data[8192 + 5] ^= 1
        file.write_bytes(data)


CHANGES = [nothing, another_photo, a_photo_gone, a_photo_changed, a_class_renamed, a_row_damaged]


def assessed(photos: Path, cache: Path, **options: Any) -> Assessment:
    recipe = Recipe(16)
    return assess(Task(photos, None, scan_source(photos, cache), cache, recipe, None, **options))


@pytest.mark.parametrize("change", CHANGES)
def test_everybody_gives_the_answer_that_the_build_acts_on(
    change: Callable[[Path, Path], None], photos: Path, out: Path
) -> None:
    build_cache(photos, out, size=16, workers=1)
    change(photos, out)

    found = assessed(photos, out)
    plan, check = plan_build(photos, out, Recipe(16)), check_source(out, photos)
    report = build_cache(photos, out, size=16, workers=1)

    assert plan.state == found.state and check == found.why == report.why
    assert (found.up_to_date, found.todo) == (report.up_to_date, report.decoded) == (change is nothing, found.todo)


@pytest.mark.parametrize("change", CHANGES)
def test_shards_are_judged_as_a_whole_cache_is(change: Callable[[Path, Path], None], photos: Path, out: Path) -> None:
    build_shards(photos, out, 2, size=16, workers=1)
    change(photos, out)

    plan, check = plan_build(photos, out, Recipe(16), ShardChoice(2)), check_source(out, photos)
    report = build_shards(photos, out, 2, size=16, workers=1)

    assert (not check) == report.up_to_date == (change is nothing) == (plan.state == "up to date")
    assert all(why in plan.state for why in report.whys)


def test_an_assessment_changes_nothing(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=16, workers=1)
    shutil.copy(out, out.with_name("copy.h5"))
    another_photo(photos, out)
    before = names_in(out.parent), identity(out)

    for path in (out, out.with_name("copy.h5"), out.with_name("none.h5")):
        assessed(photos, path)

    assert (names_in(out.parent), identity(out)) == before


def test_without_a_cache_everything_is_to_be_decoded(photos: Path, out: Path) -> None:
    found = assessed(photos, out)

    assert (found.old, found.why, found.todo, found.up_to_date) == (None, "", 8, False)
    assert found.state == "not there yet"


def test_a_rebuild_reuses_nothing(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=16, workers=1)

    found = assessed(photos, out, rebuild=True)

    assert (found.why, found.reusable, found.todo) == ("a rebuild was asked for", False, 8)


@pytest.mark.parametrize("shards", [None, ShardChoice(2)])
def test_everybody_names_failures_in_the_order_of_the_rows(
    shards: ShardChoice | None, tmp_path: Path, out: Path
) -> None:
    photos = tmp_path / "photos"
    for seed, class_id in enumerate(("2", "10")):
        save_jpeg(photos / class_id / "good.jpg", 50, 50, seed)
        for name in ("b.jpg", "B.jpg"):
            (photos / class_id / name).write_bytes(b"no image")
    expected = [(2, "B.jpg"), (2, "b.jpg"), (10, "B.jpg"), (10, "b.jpg")]

    built = build_shards(photos, out, 2, size=16, workers=1) if shards else build_cache(photos, out, size=16, workers=1)
    plan, info = plan_build(photos, out, Recipe(16), shards), describe_cache(out)

    for failed in (built.failed, plan.failed, info.failed):
        assert [(f.class_id, f.name) for f in failed] == expected

"""A dry run tells the space that the build needs, and what it would do (`plan`)."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import build_cache, build_shards
from pipeline.errors import OutputError
from pipeline.format.paths import shard_path
from pipeline.inspect.plan import Plan, plan_build
from pipeline.recipe import Recipe
from pipeline.shards.choice import ShardChoice
from tests.support.photos import SIZE, save_jpeg

RECIPE = Recipe(SIZE)
ROW_BYTES = RECIPE.row_bytes


@pytest.fixture
def leave_free(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Gives out what makes the disk have so many free bytes."""
    usage = shutil.disk_usage("/")

    def leave(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))

    return leave


def space_lines(plan: Plan) -> list[str]:
    return [line for line in str(plan).splitlines() if line.startswith("needs ")]


def test_a_cache_that_is_up_to_date_needs_no_space(photos: Path, out: Path, leave_free: Callable[[int], None]) -> None:
    build_cache(photos, out, size=SIZE, workers=1)
    build_shards(photos, out.with_name("s.h5"), 2, size=SIZE, workers=1)
    leave_free(1000)

    for plan in (plan_build(photos, out, RECIPE), plan_build(photos, out.with_name("s.h5"), RECIPE, ShardChoice(2))):
        assert space_lines(plan) == [] and str(plan).endswith("up to date\nnothing would be decoded")


def test_a_cache_that_is_replaced_needs_space_for_the_new_one(
    photos: Path, out: Path, leave_free: Callable[[int], None]
) -> None:
    build_cache(photos, out, size=SIZE, workers=1)
    save_jpeg(photos / "1" / "new.jpg", 40, 40, 77)
    leave_free(1000)

    plan = plan_build(photos, out, RECIPE)

    assert 9 * ROW_BYTES < plan.room.needed < 11 * ROW_BYTES
    assert space_lines(plan)[0].endswith("1.0 kB free: NOT ENOUGH")


@pytest.mark.parametrize("only", [None, 0, 2])
def test_shards_are_refused_where_the_plan_says_not_enough(
    only: int | None, photos: Path, out: Path, leave_free: Callable[[int], None]
) -> None:
    for index in (0, 1, 3):
        build_shards(photos, out, 4, only=index, size=SIZE, workers=1)
    if only == 0:
        shard_path(out, 0, 4).unlink()  # the one without an image
    choice: Any = ShardChoice(4, None, only)
    needed = plan_build(photos, out, RECIPE, choice).room.needed

    leave_free(needed - 1)
    assert space_lines(plan_build(photos, out, RECIPE, choice))[0].endswith("NOT ENOUGH")
    with pytest.raises(OutputError, match=r"needs .* free\. Free some space, or give another --out"):
        build_shards(photos, out, 4, only=only, size=SIZE, workers=1)

    leave_free(needed)
    assert not space_lines(plan_build(photos, out, RECIPE, choice))[0].endswith("NOT ENOUGH")
    assert build_shards(photos, out, 4, only=only, size=SIZE, workers=1).built == 1


def test_a_plan_of_one_shard_counts_that_shard_alone(photos: Path, out: Path) -> None:
    (photos / "notes.txt").touch()
    (photos / "1" / "gone.jpg").symlink_to("nowhere")
    plans = [plan_build(photos, out, RECIPE, ShardChoice(4, None, index)) for index in range(4)]
    whole = plan_build(photos, out, RECIPE, ShardChoice(4))

    reports = [build_shards(photos, out, 4, only=index, size=SIZE, workers=1) for index in range(4)]

    for plan, report in zip(plans, reports, strict=True):
        assert (plan.counts, plan.failed) == (report.counts, report.failed)
        assert str(plan).splitlines()[:4] == str(report).splitlines()[:4]
    assert whole.room.needed == sum(plan.room.needed for plan in plans)
    assert whole.counts == [4, 4] and [failed.name for failed in whole.failed] == ["gone.jpg"]


def test_what_an_unfinished_build_has_counts_as_free(photos: Path, out: Path, leave_free: Any) -> None:
    leave_free(10**6)
    begun = out.with_name("c.h5.building")
    begun.write_bytes(b"x" * 100_000)

    assert plan_build(photos, out, RECIPE).room.free == 10**6 + begun.stat().st_blocks * 512 >= 11 * 10**5


def test_the_cache_of_pixels_beside_a_build_with_their_mean_and_std_counts(
    photos: Path, out: Path, leave_free: Callable[[int], None], no_decoding: None
) -> None:
    alone, both = (plan_build(photos, out, RECIPE, own_mean_std=own).room.needed for own in (False, True))
    assert alone + 2 * ROW_BYTES < both < alone + 4 * ROW_BYTES  # 8 rows, each a quarter as large

    leave_free(both - 1)
    assert space_lines(plan_build(photos, out, RECIPE, own_mean_std=True))[0].endswith("NOT ENOUGH")
    with pytest.raises(OutputError, match=r"needs .* free\. Free some space, or give another --out"):
        build_cache(photos, out, size=SIZE, workers=1, mean_std="auto")


def test_rows_that_are_pixels_need_no_other_cache_of_them(photos: Path, out: Path) -> None:
    plans = [plan_build(photos, out, Recipe(SIZE, dtype="uint8"), own_mean_std=own) for own in (False, True)]

    assert plans[0].room.needed == plans[1].room.needed


def test_a_cache_of_pixels_that_is_there_needs_no_space_and_no_time(photos: Path, out: Path) -> None:
    def stop_in_the_second_stage(done: int, total: int) -> None:
        if out.with_name(f"{out.name}.building").exists():
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError):
        build_cache(photos, out, size=SIZE, workers=1, mean_std="auto", progress=stop_in_the_second_stage)

    plan = plan_build(photos, out, RECIPE, own_mean_std=True)

    assert plan.room.needed == plan_build(photos, out, RECIPE).room.needed
    assert str(plan).endswith("nothing would be decoded")

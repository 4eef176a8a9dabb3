"""The recipe of a build: options that are not given are those of the cache that is there."""

from pathlib import Path
from typing import Any

import pytest

from pipeline import build_cache, build_shards
from pipeline.build.journal import Journal
from pipeline.build.task import choose_recipe
from pipeline.format.reader import CacheReader
from pipeline.recipe import Recipe
from tests.support.command_line import RunCli

OPTIONS: dict[str, Any] = {"size": 48, "dtype": "uint8", "exif_rotate": True, "scaled_decode": True}
SAID = (
    "as the cache that is there: size 48, dtype uint8, exif_rotate True, scaled_decode True "
    "(--rebuild starts from the defaults)"
)


def test_without_a_cache_the_defaults_count(tmp_path: Path) -> None:
    assert choose_recipe(tmp_path / "c.h5", size=None, dtype="uint8") == (Recipe(dtype="uint8"), "")


@pytest.fixture
def cache(photos: Path, out: Path) -> Path:
    """Return a cache of another recipe than the default."""
    build_cache(photos, out, **OPTIONS)
    return out


def test_a_build_without_options_leaves_the_recipe_alone(photos: Path, cache: Path) -> None:
    report = build_cache(photos, cache)

    assert report.up_to_date and str(report).splitlines()[0] == SAID == report.inherited
    assert CacheReader(cache).recipe == Recipe(**OPTIONS)


def test_an_option_that_is_given_replaces_the_cache_and_says_so(photos: Path, cache: Path) -> None:
    report = build_cache(photos, cache, size=32, exif_rotate=False)

    assert (
        report.why == "size 48 → 32; exif_rotate True → False" and "dtype uint8, scaled_decode True" in report.inherited
    )
    assert CacheReader(cache).recipe == Recipe(**OPTIONS | {"size": 32, "exif_rotate": False})


def test_a_rebuild_starts_from_the_defaults(photos: Path, cache: Path) -> None:
    report = build_cache(photos, cache, size=32, rebuild=True)

    assert CacheReader(cache).recipe == Recipe(32) and report.inherited == ""


def test_shards_keep_the_recipe_that_they_have(photos: Path, out: Path) -> None:
    build_shards(photos, out, 2, **OPTIONS)

    report = build_shards(photos, out, 2)

    assert report.up_to_date and str(report).splitlines()[0] == SAID


def test_an_unfinished_build_goes_on_with_its_recipe(out: Path) -> None:
    build = {"format": 1, "recipe": Recipe(**OPTIONS).to_dict(), "decoder": "0" * 32, "anew": False}
    Journal.start(out.with_name("c.h5.journal"), build)

    assert choose_recipe(out) == (Recipe(**OPTIONS), SAID)
    assert choose_recipe(out, rebuild=True) == (Recipe(), "")


@pytest.mark.parametrize("content", [b"", b"not a cache", b"\x93MNCACHE"])
def test_a_file_that_cannot_be_read_has_no_recipe(content: bytes, out: Path) -> None:
    out.write_bytes(content)

    assert choose_recipe(out, size=48) == (Recipe(48), "")


def test_the_command_line_says_what_stays(photos: Path, cache: Path, run_cli: RunCli) -> None:
    for command in (("build-cache", photos, "--out", cache), ("build-cache", photos, "--out", cache, "--dry-run")):
        assert run_cli(*command).stdout.splitlines()[0] == SAID
    turned = run_cli("build-cache", photos, "--out", cache, "--no-exif-rotate", "--no-scaled-decode").stdout
    assert "was out of date: exif_rotate True → False; scaled_decode True → False" in turned
    assert "[default: the cache's, else 224]" in " ".join(run_cli("build-cache", "--help").stdout.split())


def test_pads_follow_the_mean_as_in_a_fresh_cache(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=32, fit="pad", workers=1)

    report = build_cache(photos, out, mean=(0.485, 0.456, 0.406), workers=1)

    assert report.decoded == 8 and "pad_color 128 128 128 → 124 116 104" in report.why
    assert report.inherited == "as the cache that is there: size 32, fit pad (--rebuild starts from the defaults)"
    fresh = out.with_name("fresh.h5")
    build_cache(photos, fresh, size=32, fit="pad", mean=(0.485, 0.456, 0.406), workers=1)
    assert fresh.read_bytes() == out.read_bytes()

"""The options of build-cache that shape rows (commands/_recipe): geometry, colors, and --like."""

from pathlib import Path

import pytest

from pipeline import TensorCache
from tests.support.command_line import RunCli


def test_the_shape_of_rows_is_typed(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    typed = ("--fit", "crop", "--size", "48x64", "--resize-to", "70", "--interpolation", "bicubic", "--dtype", "uint8")
    assert run_cli("build-cache", photos, "--out", "c.h5", *typed).code == 0
    recipe = TensorCache(tmp_path / "c.h5").recipe
    assert (recipe.size, recipe.fit, recipe.resize_to, recipe.interpolation) == ((48, 64), "crop", 70, "bicubic")
    assert "48 × 64 RGB, shorter side to 70, center kept, bicubic filter" in run_cli("info", "c.h5").stdout

    wider = run_cli("build-cache", photos, "--out", "c.h5", "--size", "48x80")
    assert "out of date: size 48x64 → 48x80; resize_to 70 → 91" in wider.stdout


def test_like_a_network_stands_for_the_options_that_it_prints(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    built = run_cli("build-cache", photos, "--out", "c.h5", "--like", "resnet18", "--dtype", "uint8")
    line = built.stdout.splitlines()[0]
    assert line == (
        "like resnet18: --size 224 --fit crop --resize-to 256 --interpolation bilinear "
        "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"
    )
    again = run_cli("build-cache", photos, "--out", "d.h5", "--dtype", "uint8", *line.partition(": ")[2].split())
    assert again.code == 0 and (tmp_path / "c.h5").read_bytes() == (tmp_path / "d.h5").read_bytes()


def test_mean_and_std_of_the_images_are_computed_shown_and_kept(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    built = run_cli("build-cache", photos, "--out", "c.h5", "--size", "32", "--mean-std", "auto")
    recipe = TensorCache(tmp_path / "c.h5").recipe
    mean, std = (" ".join(f"{value:.4f}" for value in values) for values in (recipe.mean, recipe.std))
    assert built.code == 0 and built.stdout.startswith(f"mean and std of the pixels: {mean} and {std}\n")
    assert f"pixels: mean {mean}, std {std}\n" in run_cli("info", "c.h5").stdout

    run_cli("build-cache", photos, "--out", "d.h5", "--like", "c.h5")
    assert TensorCache(tmp_path / "d.h5").recipe == recipe


def test_like_a_cache_takes_its_preparation_but_not_what_it_stores(
    photos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    run_cli("build-cache", photos, "--out", "c.h5", "--size", "40x30", "--fit", "pad", "--pad-color", "edge")
    assert run_cli("build-cache", photos, "--out", "v.h5", "--like", "c.h5", "--dtype", "uint8").code == 0
    of_train, of_val = (TensorCache(tmp_path / name).recipe for name in ("c.h5", "v.h5"))
    assert of_val.pixels == of_train.pixels and of_val.dtype == "uint8"


@pytest.mark.parametrize(
    ("typed", "text"),
    [
        (("--like", "resnet18", "--size", "96"), "--like resnet18 sets --size; leave one of them out"),
        (("--like", "resnet1"), "Near it: resnet18"),
        (("--size", "64x"), "a size is a number of pixels, 224, or height x width, 192x256, not '64x'"),
        (("--size", "4097"), "from 1 to 4096"),
        (("--resize-to", "300"), "--resize-to belongs to fit crop, not to squash"),
        (("--fit", "pad", "--resize-to", "300"), "--resize-to belongs to fit crop, not to pad"),
        (("--fit", "crop", "--resize-to", "223"), "from the longer side of size, 224, to 8192, not 223"),
        (("--like", ""), "no such network: ''"),
        (("--pad-color", "1,2,3"), "--pad-color belongs to fit pad, not to squash"),
        (("--fit", "pad", "--pad-color", "1,2,256"), "numbers from 0 to 255, or edge, not '1,2,256'"),
        (("--mean-std", "auto", "--mean", "0", "0", "0"), "--mean-std auto and --mean exclude each other"),
        (("--mean-std", "auto", "--std", "1", "1", "1"), "--mean-std auto and --std exclude each other"),
        (("--mean-std", "auto", "--like", "resnet18"), "--mean-std auto and --like exclude each other"),
        (("--mean-std", "auto", "--shards", "3"), "--mean-std auto and --shards exclude each other"),
        (("--mean-std", "auto", "--shard", "1/3"), "--mean-std auto and --shards exclude each other"),
        (("--background", "white"), "a color is R,G,B with numbers from 0 to 255, not 'white'"),
    ],
)
def test_options_that_make_no_row_are_usage_errors(
    typed: tuple[str, ...], text: str, photos: Path, run_cli: RunCli
) -> None:
    ended = run_cli("build-cache", photos, "--out", "c.h5", *typed)
    assert ended.code == 2 and text in ended.stderr

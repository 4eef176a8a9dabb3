"""build-cache: what it prints, its options, its dry run, how it is stopped."""

import json
import os
import re
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from modelnet.commands.build_cache import default_cache
from pipeline.build.lock import build_lock
from tests.support.command_line import REPOSITORY, RunCli, one_line
from tests.support.photos import save_jpeg


def test_a_build_prints_its_work_and_a_second_build_decodes_nothing(
    shared_photos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    command = ("build-cache", shared_photos, "--size", "64", "--workers", "1")

    first, second = run_cli(*command), run_cli(*command)

    assert (first.code, first.stderr, second.code, second.stderr) == (0, "", 0, "")  # and no progress bar
    table = ["label  class  images", "    0  1           4", "    1  2           4"]
    assert first.stdout.splitlines()[:-1] == second.stdout.splitlines()[:-1] == table
    where = re.escape("data/cache/photos.h5: 8 images, 406.6 kB")
    assert re.fullmatch(where + r": 8 decoded in \d+\.\d s, \d+ images/s", first.stdout.splitlines()[-1])
    last = second.stdout.splitlines()[-1]
    assert re.fullmatch(where + r", is up to date; nothing was decoded \(\d\.\d\d s\)", last)


def test_the_options_of_a_build_are_the_recipe(cache_path: Path, shared_photos: Path, run_cli: RunCli) -> None:
    numbers = ("--mean", "0.1", "0.2", "0.3", "--std", "1", "2", "3.5")
    run_cli(
        "build-cache",
        shared_photos,
        "--out",
        "c.h5",
        "--size",
        "20",
        "--dtype",
        "uint8",
        "--exif-rotate",
        "--scaled-decode",
        *numbers,
    )

    recipe = json.loads(run_cli("info", "c.h5", "--json").stdout)["recipe"]

    assert recipe == {
        "size": [20, 20],
        "mean": [0.1, 0.2, 0.3],
        "std": [1.0, 2.0, 3.5],
        "dtype": "uint8",
        "exif_rotate": True,
        "max_megapixels": 64,
        "scaled_decode": True,
        "fit": "squash",
        "resize_to": None,
        "interpolation": "bilinear",
        "pad_color": None,
        "background": None,
    }


@pytest.mark.parametrize(
    ("source", "cache"),
    [
        ("data/example", "example"),
        ("data/example/", "example"),
        ("/photos/ants-bees/train", "ants-bees-train"),
        ("/photos/ants-bees/val", "ants-bees-val"),
        ("/photos/ants-bees/test", "ants-bees-test"),
        ("/photos/training", "training"),
        ("/photos/shapes.parquet", "shapes"),
        ("/photos/shapes/data/validation", "shapes-validation"),
        ("/photos/my.photos", "my.photos"),
        ("/", "cache"),
    ],
)
def test_a_cache_is_named_after_its_source(source: str, cache: str) -> None:
    assert default_cache(Path(source)) == Path("data/cache") / f"{cache}.h5"


def test_the_current_folder_has_a_name_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "birds" / "train" / "1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "birds" / "train")

    assert default_cache(Path()).name == "birds-train.h5"
    assert default_cache(Path("1/..")).name == "birds-train.h5"
    assert default_cache(Path("..")).name == "birds.h5"


def test_strict_ends_with_3_after_a_failed_image_and_keeps_the_cache(photos: Path, run_cli: RunCli) -> None:
    command = ("build-cache", photos, "--out", "c.h5", "--size", "64", "-j", "1", "--strict")
    assert run_cli(*command).code == 0
    (photos / "1" / "broken.JPEG").write_bytes(b"no image")

    ended = run_cli(*command)

    assert ended.code == 3
    assert "was out of date: class 1: 1 added" in ended.stdout
    assert "failed: 1\n  class 1, broken.JPEG: not an image\n" in ended.stdout
    assert run_cli(*command).code == 3  # up to date, and still so
    assert run_cli("info", "c.h5").code == 0
    assert run_cli(*command[:-1]).code == 0


def test_a_dry_run_tells_everything_and_does_nothing(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (photos / "1" / "notes.txt").write_text("x")
    (photos / "1" / "gone.jpg").symlink_to("nowhere")
    before = sorted(tmp_path.rglob("*"))

    ended = run_cli("build-cache", photos, "--dry-run", "--size", "64")

    assert (ended.code, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[:-2] == [
        "label  class  images",
        "    0  1           4",
        "    1  2           4",
        "left out: 1 × suffix .txt",
        "failed: 1",
        "  class 1, gone.jpg: a link that leads nowhere (the next build tries again)",
        "data/cache/photos.h5: not there yet",
    ]
    assert re.fullmatch(r"needs 4\d\d\.\d kB, \d+\.\d [GM]B free", lines[-2])
    assert re.fullmatch(r"would take about \d+ s", lines[-1])
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_counts_the_cache_of_pixels_that_mean_and_std_need(photos: Path, run_cli: RunCli) -> None:
    def needed(*options: str) -> float:
        found = re.search(r"^needs ([\d.]+) kB", run_cli(*command, *options).stdout, re.MULTILINE)
        assert found
        return float(found[1])

    command = ("build-cache", photos, "--dry-run", "--size", "64")
    pixels = needed("--dtype", "uint8")
    assert 0.9 * pixels < needed("--mean-std", "auto") - needed() < pixels
    assert needed("--mean-std", "auto", "--dtype", "uint8") == pixels


def test_a_dry_run_over_a_cache_tells_whether_it_is_up_to_date(photos: Path, run_cli: RunCli) -> None:
    command = ("build-cache", photos, "--size", "64", "-j", "1")
    run_cli(*command)
    same = run_cli(*command, "--dry-run").stdout.splitlines()
    (photos / "1" / "n03874293_7.JPEG").unlink()
    changed = run_cli(*command, "--dry-run").stdout.splitlines()
    another = run_cli("build-cache", photos, "--size", "48", "--dry-run").stdout.splitlines()

    assert same[3] == "data/cache/photos.h5: up to date" and same[-1] == "nothing would be decoded"
    assert changed[3] == "data/cache/photos.h5: out of date: class 1: 1 removed"
    assert changed[-1] == "nothing would be decoded"
    assert another[3] == "data/cache/photos.h5: out of date: class 1: 1 removed; size 64 → 48"
    assert another[-1].startswith("would take about")


@pytest.mark.parametrize("shards", [(), ("--shards", "2")])
def test_a_dry_run_over_a_cache_counts_known_failures_as_failed(
    shards: tuple[str, ...], photos: Path, run_cli: RunCli
) -> None:
    (photos / "1" / "broken.jpg").write_bytes(b"no image")
    command = ("build-cache", photos, "--size", "64", "-j", "1", *shards)

    built = run_cli(*command).stdout.splitlines()
    same = run_cli(*command, "--dry-run").stdout.splitlines()

    told = built[:5]
    assert told[1:] == [
        "    0  1           4",
        "    1  2           4",
        "failed: 1",
        "  class 1, broken.jpg: not an image",
    ]
    assert same[:5] == told and same[-1] == "nothing would be decoded"


def test_a_builder_that_is_not_alone_ends_with_75(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    with build_lock(tmp_path / "c.h5"):
        ended = run_cli("build-cache", photos, "--out", "c.h5", "--size", "64")

    assert ended.code == 75
    assert f"c.h5: another build (pid {os.getpid()} on " in one_line(ended.stderr)
    assert ended.stderr.endswith("is running. Wait for it, or give --wait\n")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_a_build_without_standard_streams_is_a_build(
    closed: tuple[int, ...], shared_photos: Path, cache_path: Path, tmp_path: Path
) -> None:
    program = f"import os, sys; [os.close(fd) for fd in {closed}]; os.execv(sys.executable, sys.argv[1:])"
    command = [
        sys.executable,
        "-c",
        program,
        sys.executable,
        str(REPOSITORY / "cli.py"),
        "build-cache",
        str(shared_photos),
    ]
    command += ["--size", "64", "--out", str(tmp_path / "c.h5"), "-j", "1"]

    ended = subprocess.run(command)

    assert ended.returncode == 0
    assert (tmp_path / "c.h5").read_bytes() == cache_path.read_bytes()


def test_a_terminal_gets_a_progress_bar_and_stdout_only_results(shared_photos: Path, tmp_path: Path) -> None:
    terminal, inside = os.openpty()
    termios.tcsetwinsize(inside, (25, 100))
    arguments = ["build-cache", str(shared_photos), "--out", str(tmp_path / "c.h5"), "--size", "64"]
    command = [sys.executable, str(REPOSITORY / "cli.py"), *arguments]
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=inside, text=True)
    drawn = os.read(terminal, 100_000).decode()
    os.close(inside)
    os.close(terminal)

    assert ended.returncode == 0
    assert "decode: " in drawn and " images/s" in drawn and "\r" in drawn
    assert "\r" not in ended.stdout and ended.stdout.startswith("label  class")


HELD = """if True:
    import sys, time
    from itertools import count
    from pathlib import Path
    import cli
    from pipeline.build import worker

    def held(data, recipe, decode=worker.decode, images=count()):
        while next(images) >= 16 and not Path("go").exists():
            time.sleep(0.001)
        return decode(data, recipe)

    worker.decode = held
    cli.main()
"""


def start_held_build(folder: Path, lines: int, *arguments: str) -> "subprocess.Popen[str]":
    """Start a build that cannot end before folder/go is there, and wait until it has noted some images.

    On a busy machine it might be done before a signal comes. Each of its workers decodes 16 images before it waits.
    """
    command = [sys.executable, "-c", HELD, "build-cache", *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    build = subprocess.Popen(
        command, cwd=folder, stdout=pipe, stderr=pipe, env=environment, text=True, start_new_session=True
    )
    journal = folder / "c.h5.journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        assert build.poll() is None
        time.sleep(0.001)
    return build


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_build_that_is_stopped_says_how_to_go_on_and_goes_on(
    number: int, code: int, word: str, tmp_path: Path, run_cli: RunCli
) -> None:
    for seed in range(60):
        save_jpeg(tmp_path / "photos" / "1" / f"{seed:02}.jpg", 60, 60, seed)
    arguments = ("photos", "--out", "c.h5", "--size", "700", "-j", "1")
    build = start_held_build(tmp_path, 12, *arguments)

    os.killpg(build.pid, number)
    (tmp_path / "go").touch()
    stdout, stderr = build.communicate(timeout=60)

    assert (build.returncode, stdout) == (code, "")
    assert one_line(stderr) == f"error: {word}. Run the same command again to continue"
    assert not (tmp_path / "c.h5").exists()
    again = run_cli("build-cache", *arguments)
    assert again.code == 0
    found = re.search(r"(\d+) decoded, (\d+) kept from the unfinished build", again.stdout)
    assert found and int(found[1]) + int(found[2]) == 60 and int(found[2]) >= 8


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.03])
def test_a_second_ctrl_c_ends_a_build_too(seconds: float, tmp_path: Path) -> None:
    for seed in range(30):
        save_jpeg(tmp_path / "photos" / "1" / f"{seed:02}.jpg", 60, 60, seed)
    build = start_held_build(tmp_path, 2, "photos", "--out", "c.h5", "--size", "700", "-j", "1")

    os.killpg(build.pid, signal.SIGINT)
    time.sleep(seconds)
    os.killpg(build.pid, signal.SIGINT)
    (tmp_path / "go").touch()

    try:
        _, stderr = build.communicate(timeout=30)
    finally:
        build.kill()
    assert build.returncode == 130
    assert one_line(stderr) == "error: interrupted. Run the same command again to continue"

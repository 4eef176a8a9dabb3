import json
import os
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import click
import pytest

import cli as cli_module
from cli import cli, default_cache
from pipeline.build.lock import build_lock
from pipeline.errors import AccessDenied
from tests.support.command_line import REPOSITORY, RunCli
from tests.support.photos import make_photos, save_jpeg


def all_commands() -> dict[str, click.Command]:
    """Every command that there is, by what is typed for it; the group itself under ""."""
    found: dict[str, click.Command] = {}

    def walk(command: click.Command, words: tuple[str, ...]) -> None:
        found[" ".join(words)] = command
        if isinstance(command, click.Group):
            for name, inner in command.commands.items():
                walk(inner, (*words, name))

    walk(cli, ())
    return found


COMMANDS = all_commands()


def one_line(stderr: str) -> str:
    """Check that a failure was told in one line, without a traceback, and return it."""
    assert stderr.startswith("error: ") and stderr.endswith("\n") and stderr.count("\n") == 1, stderr
    assert "Traceback" not in stderr
    return stderr.rstrip("\n")


# --- help ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", COMMANDS)
def test_help_answers_at_once_and_ends_in_a_line_to_paste(words: str, run_cli: RunCli) -> None:
    seconds = []
    for _ in range(2):
        start = time.monotonic()
        ended = run_cli(*words.split(), "--help")
        seconds.append(time.monotonic() - start)
    print(f"{words or 'cli.py'} --help: {min(seconds):.2f} s")

    *_, heading, last = ended.stdout.rstrip("\n").splitlines()
    assert (ended.code, ended.stderr) == (0, "")
    assert heading.strip() == "Example:" and re.fullmatch(r" +python cli\.py \S.*", last)
    assert last.split()[2:3] == words.split()[:1] or not words
    assert min(seconds) < 1.5
    assert "-h, --help" in ended.stdout


@pytest.mark.parametrize("words", COMMANDS)
def test_every_line_to_paste_is_a_command_with_options_that_exist(words: str) -> None:
    epilog = COMMANDS[words].epilog or ""
    line = epilog.splitlines()[-1].split()
    assert line[:2] == ["python", "cli.py"]
    command = cli.commands[line[2]]

    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    assert {word for word in line[3:] if word.startswith("-")} <= known


@pytest.mark.parametrize("words", COMMANDS)
def test_options_are_written_with_hyphens_and_every_one_is_explained(words: str) -> None:
    for parameter in COMMANDS[words].params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name
            for option in (*parameter.opts, *parameter.secondary_opts):
                assert re.fullmatch(r"--[a-z0-9]+(-[a-z0-9]+)*|-[a-z]", option), option


def test_h_is_help_and_no_command_shows_the_help_too(run_cli: RunCli) -> None:
    asked = run_cli("-h")
    bare = run_cli()

    assert asked.code == 0 and "build-cache" in asked.stdout
    assert bare.code == 2 and "Usage: " in bare.stdout + bare.stderr and "build-cache" in bare.stdout + bare.stderr
    assert not bare.stderr.startswith("error: Usage")


def test_the_version_is_told(run_cli: RunCli) -> None:
    assert re.fullmatch(r"modelnet, version \d+\.\d+.*\n", run_cli("--version").stdout)


# --- build-cache --------------------------------------------------------------------------------------------------


def test_a_build_prints_what_it_did_and_a_second_one_that_nothing_is_left_to_do(
    shared_photos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    command = ("build-cache", shared_photos, "--size", "64", "--workers", "1")

    first, second = run_cli(*command), run_cli(*command)

    assert (first.code, first.stderr, second.code, second.stderr) == (0, "", 0, "")  # and no progress bar
    table = ["label  class  images", "    0  1           4", "    1  2           4"]
    assert first.stdout.splitlines()[:-1] == second.stdout.splitlines()[:-1] == table
    where = re.escape("data/cache/photos.h5: 8 images, 405.0 kB")
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
        "size": 20,
        "mean": [0.1, 0.2, 0.3],
        "std": [1.0, 2.0, 3.5],
        "dtype": "uint8",
        "exif_rotate": True,
        "max_megapixels": 64,
        "scaled_decode": True,
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


def test_strict_ends_with_3_where_an_image_failed_and_the_cache_is_there_all_the_same(
    photos: Path, run_cli: RunCli
) -> None:
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
def test_a_dry_run_over_a_cache_counts_what_is_known_to_fail_among_the_failed(
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


def test_weights_that_are_not_there_are_told_before_images_are_decoded(photos: Path, run_cli: RunCli) -> None:
    ended = run_cli("build-cache", photos, "--features", "resnet18", "--weights", "missing.pt")

    assert one_line(ended.stderr).startswith("error: no weights there: missing.pt: no such file")
    assert (ended.code, ended.stdout) == (66, "")
    assert not (photos.parent / "data").exists()


# --- info and verify ----------------------------------------------------------------------------------------------


def test_info_shows_what_is_in_a_cache(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    (photos / "classes.csv").write_text("id,name\n1,paddle\n2,snake\n")
    shutil.copy(photos / "1" / "n03874293_7.JPEG", photos / "2" / "copied.jpg")
    (photos / "2" / "broken.JPEG").write_bytes(b"no image")
    save_jpeg(photos / "1" / "tiny.jpg", 12, 40, 55)
    run_cli("build-cache", photos, "--out", "c.h5", "--size", "64", "-j", "1")
    start = time.monotonic()

    ended = run_cli("info", "c.h5")

    assert time.monotonic() - start < 3
    size = (tmp_path / "c.h5").stat().st_size
    first, recipe, fingerprint, *rest = ended.stdout.splitlines()
    assert first == f"c.h5: 10 images, {size / 1000:.1f} kB"
    assert recipe == "recipe: 64 × 64 RGB, mean 0.5 0.5 0.5, std 0.5 0.5 0.5, stored as float32"
    assert re.fullmatch(r"fingerprint: [0-9a-f]{64}", fingerprint)
    assert rest == [
        "label  class  name    images",
        "    0  1      paddle       5",
        "    1  2      snake        5",
        "failed: 1",
        "  class 2, broken.JPEG: not an image",
        "same content: 1",
        "  1/n03874293_7.JPEG = 2/copied.jpg",
        "remarkable: 1",
        "  1/tiny.jpg: tiny: 12 × 40 pixels",
    ]


def test_info_as_json_says_the_same_for_scripts(cache_path: Path, run_cli: RunCli) -> None:
    found = json.loads(run_cli("info", cache_path, "--json").stdout)

    assert found["images"] == 8 and found["file_bytes"] == cache_path.stat().st_size
    assert found["classes"] == [{"id": 1, "name": "", "images": 4}, {"id": 2, "name": "", "images": 4}]
    assert found["failed"] == [] and found["look"] == {"same_content": [], "nearly_alike": [], "remarks": []}
    assert len(found["fingerprint"]) == 64 and len(found["decoder"]) == 32


def test_info_tells_whether_a_source_still_matches(photos: Path, run_cli: RunCli) -> None:
    run_cli("build-cache", photos, "--out", "c.h5", "--size", "64", "-j", "1")

    assert run_cli("info", "c.h5", "--check", photos).stdout.splitlines()[-1] == "source: matches"
    (photos / "2" / "n01740131_12.JPEG").unlink()
    assert run_cli("info", "c.h5", "--check", photos).stdout.splitlines()[-1] == "source: class 2: 1 removed"
    assert run_cli("info", "c.h5", "--check", "missing").code == 66


def test_verify_says_that_all_is_well_or_names_what_is_not(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    data = bytearray(cache_path.read_bytes())
    data[8192 + 49152 * 3 + 5] ^= 1
    (tmp_path / "damaged.h5").write_bytes(data)

    good, bad = run_cli("verify", cache_path), run_cli("verify", "damaged.h5")

    assert (good.code, good.stdout, good.stderr) == (0, "every row and table is as it was built\n", "")
    assert bad.code == 65
    assert bad.stdout == "row 3 (class 1, n03874293_775.JPEG) is not as it was written\n"
    assert bad.stderr == "Run build-cache again: it rebuilds just the damaged rows.\n"


# --- failures -----------------------------------------------------------------------------------------------------


def make_failures(folder: Path, cache_path: Path) -> None:
    make_photos(folder / "photos")
    (folder / "empty").mkdir()
    (folder / "text.h5").write_text("no cache")
    (folder / "cut.h5").write_bytes(cache_path.read_bytes()[:-1])
    (folder / "link.h5").symlink_to("text.h5")
    (folder / "val.h5.building").touch()
    save_jpeg(folder / "others" / "1" / "a.jpg", 40, 40, 99)
    shutil.copy(cache_path, folder / "kept.h5")


FAILURES: list[tuple[tuple[str, ...], int, str]] = [
    (
        ("build-cache", "missing"),
        66,
        r"no images to read: missing: there is no such folder or archive\. Give a folder of",
    ),
    (("build-cache", "text.h5"), 66, r"no images to read: text\.h5: this is a file"),
    (("build-cache", "empty"), 66, r"no images to read: empty: no files ending in \.jpg, \.jpeg"),
    (("build-cache", "."), 66, r"no classes to read: \.: its folders .* hold only folders of images"),
    (("build-cache", "photos", "--out", "text.h5"), 73, r"text\.h5: there is a file that is no cache"),
    (("build-cache", "photos", "--out", "empty"), 73, r"empty: there is a folder of that name\. Give another --out"),
    (("build-cache", "photos", "--out", "empty", "--shards", "2"), 73, r"empty: there is a folder of that name"),
    (("build-cache", "photos", "--out", "x" * 300), 73, r"File name too long\. Give another --out"),
    (("build-cache", "photos", "--out", "link.h5"), 73, r"link\.h5: there is a link of that name\. Give another --out"),
    (("build-cache", "others", "--out", "kept.h5"), 73, r"kept\.h5: holds other photographs \(0 of 8 shared\)\. Give"),
    (("build-cache", "photos", "--out", "text.h5/c.h5"), 73, r"the cache cannot be created: text\.h5/c\.h5: "),
    (("build-cache", "photos", "--out", "/proc/c.h5"), 73, r"the cache cannot be created: /proc/c\.h5: "),
    (("train", "--seeds", "0,1", "--seed", "5"), 2, r"--seeds gives each network its own; leave out --seed\."),
    (("train", "--sweep", "wd=0,1", "--wd", "0"), 2, r"--sweep weight-decay=\.\.\. gives .*; leave out --weight-decay"),
    (("info", "missing.h5"), 66, r"no cache: missing\.h5: there is no such file\. Build it: build-cache SOURCE"),
    (("info", "val.h5"), 66, r"no cache yet: val\.h5: an unfinished build exists\. Run build-cache again to resume it"),
    (("info", "text.h5"), 65, r"not a cache: text\.h5: its first bytes are not a cache's; a tensor cache of format 1"),
    (("info", "cut.h5"), 65, r"the cache is damaged: cut\.h5: 404959 bytes, 404960 expected\. Run build-cache again"),
    (("verify", "cut.h5"), 65, r"the cache is damaged: cut\.h5"),
    (("info", "empty"), 65, r"not a cache: empty: not a regular file"),
    (("build-cache",), 2, r"Missing argument 'SOURCE'\. See .*build-cache --help"),
    (("build-cache", "photos", "--size", "0"), 2, r"size is a whole number of pixels from 1 to 4096, not 0\. See"),
    (("build-cache", "photos", "--std", "0", "1", "1"), 2, r"std is greater than 0 in every channel"),
    (("build-cache", "photos", "--workers", "0"), 2, r"Invalid value for '-j' / '--workers'"),
    (("build-cache", "photos", "--dtype", "float16"), 2, r"Invalid value for '--dtype'"),
    (("build-cache", "photos", "--sise", "3"), 2, r"No such option.*--sise"),
    (("bild-cache", "photos"), 2, r"No such command 'bild-cache'"),
    (("info",), 2, r"Missing argument 'CACHE'\. See .*info --help"),
]


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory, cache_path: Path) -> Path:
    folder = tmp_path_factory.mktemp("failures")
    make_failures(folder, cache_path)
    return folder


@pytest.mark.parametrize(("arguments", "code", "text"), FAILURES, ids=lambda value: str(value)[:60])
def test_a_failure_is_one_line_and_an_exit_code_that_says_what_kind(
    arguments: tuple[str, ...], code: int, text: str, failures: Path, run_cli: RunCli
) -> None:
    before = sorted(failures.rglob("*"))

    ended = run_cli(*arguments, cwd=failures)
    for name in ("text.h5.lock", "kept.h5.lock"):  # which may stay beside a file
        (failures / name).unlink(missing_ok=True)

    assert re.search(text, one_line(ended.stderr)), ended.stderr
    assert (ended.code, ended.stdout) == (code, "")
    assert sorted(failures.rglob("*")) == before


def test_a_builder_that_is_not_alone_ends_with_75(photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    with build_lock(tmp_path / "c.h5"):
        ended = run_cli("build-cache", photos, "--out", "c.h5", "--size", "64")

    assert ended.code == 75
    assert f"c.h5: another build (pid {os.getpid()} on " in one_line(ended.stderr)
    assert ended.stderr.endswith("is at it. Wait for it, or give --wait\n")


def test_debug_shows_the_traceback_before_the_line(run_cli: RunCli) -> None:
    ended = run_cli("--debug", "info", "missing.h5")

    *traceback, last = ended.stderr.splitlines()
    assert ended.code == 66
    assert traceback[0].startswith("Traceback") and any("CacheMissing" in line for line in traceback)
    assert last == "error: no cache: missing.h5: there is no such file. Build it: build-cache SOURCE"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_output_that_finds_no_room_is_no_bug_and_ends_with_74(photos: Path) -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", str(photos), "--dry-run"]
        ended = subprocess.run(command, cwd=photos.parent, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == 74
    assert one_line(ended.stderr).startswith("error: writing failed: No space left on device. ")


def test_a_bug_is_one_line_too_and_ends_with_1(tmp_path: Path) -> None:
    program = "import sys; sys.argv = ['cli.py', 'info', 'x']; import cli, pipeline.inspect.info as d; "
    program += "d.describe_cache = lambda path: 1 // 0; cli.main()"

    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)

    assert ended.returncode == 1
    assert one_line(ended.stderr).startswith("error: this is a bug: ZeroDivisionError: ")


def test_a_library_that_cannot_be_loaded_is_no_bug_and_ends_with_71() -> None:
    program = "import sys; sys.modules['PIL'] = None; sys.argv = ['cli.py', 'build-cache', 'x']; import cli; cli.main()"

    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)

    assert ended.returncode == 71
    assert re.match(r"error: a library that is needed cannot be loaded: .*PIL.*\. Install it: ", one_line(ended.stderr))


def test_odd_names_are_shown_by_repr_so_that_they_cannot_forge_a_line(photos: Path, run_cli: RunCli) -> None:
    forged = "x\nerror: forged\x1b[31m.jpg"
    (photos / "1" / forged).write_bytes(b"no image")
    (photos / os.fsdecode(b"\xff")).mkdir()

    built = run_cli("build-cache", photos, "--out", "c.h5", "--size", "64", "-j", "1")
    info = run_cli("info", "c.h5")
    missing = run_cli("info", "a\nerror: b.h5")

    for text in (built.stdout, info.stdout):
        assert f"  class 1, {forged!r}: not an image\n" in text
        assert "\x1b" not in text and "\nerror" not in text
        assert "'\\udcff'" in text
    assert one_line(missing.stderr).startswith("error: no cache: 'a\\nerror: b.h5': there is no such file")


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


def test_a_folder_that_was_deleted_under_the_shell_is_told(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    command = f"cd gone; rmdir ../gone; {sys.executable} {REPOSITORY / 'cli.py'} build-cache {photos}"

    ended = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)

    assert ended.returncode == 66
    assert ended.stderr.splitlines()[-1].startswith("error: the current folder is gone: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("build-cache", "closed"),
        ("build-cache", "photos", "--out", "closed/c.h5"),
        ("build-cache", "photos", "--out", "closed/c.h5", "--shards", "2"),
        ("build-cache", "photos", "--out", "closed.h5"),
        ("build-cache", "closed.h5"),
        ("info", "closed.h5"),
        ("info", "c.h5", "--check", "closed"),
    ],
)
def test_what_may_not_be_read_or_written_is_no_usage_error_and_no_bug(
    arguments: tuple[str, ...],
    photos: Path,
    cache_path: Path,
    tmp_path: Path,
    in_a_folder_of_its_own: None,
    unprivileged: None,
) -> None:
    for name in ("c.h5", "closed.h5"):
        shutil.copy(cache_path, tmp_path / name)
    (tmp_path / "closed").mkdir()
    for name in ("closed", "closed.h5"):
        (tmp_path / name).chmod(0)

    # in this process: another one would have all the rights of its user
    with pytest.raises(AccessDenied, match=r"(?i): closed.*: permission denied"):
        cli.main(arguments, standalone_mode=False)
    (tmp_path / "closed").chmod(0o755)


def test_output_that_nobody_reads_any_more_is_no_failure(cache_path: Path) -> None:
    command = f"{sys.executable} {REPOSITORY / 'cli.py'} info {cache_path} | true"

    ended = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True)

    assert (ended.returncode, ended.stderr) == (0, "")


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


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_build_that_is_stopped_says_how_to_go_on_and_goes_on(
    number: int, code: int, word: str, tmp_path: Path, run_cli: RunCli
) -> None:
    for seed in range(60):
        save_jpeg(tmp_path / "photos" / "1" / f"{seed:02}.jpg", 60, 60, seed)
    arguments: list[str | os.PathLike[str]] = [
        "build-cache",
        tmp_path / "photos",
        "--out",
        tmp_path / "c.h5",
        "--size",
        "700",
        "-j",
        "1",
    ]
    build = subprocess.Popen(
        [sys.executable, REPOSITORY / "cli.py", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journal = tmp_path / "c.h5.journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 12:
        assert build.poll() is None
        time.sleep(0.005)

    os.killpg(build.pid, number)
    stdout, stderr = build.communicate(timeout=60)

    assert (build.returncode, stdout) == (code, "")
    assert one_line(stderr) == f"error: {word}. Run the same command again to go on"
    assert not (tmp_path / "c.h5").exists()
    again = run_cli(*arguments)
    assert again.code == 0
    found = re.search(r"(\d+) decoded, (\d+) kept from the unfinished build", again.stdout)
    assert found and int(found[1]) + int(found[2]) == 60 and int(found[2]) >= 8


@pytest.mark.parametrize("seconds", [0.0, 0.001, 0.01, 0.03])
def test_a_second_ctrl_c_ends_a_build_too(seconds: float, tmp_path: Path) -> None:
    for seed in range(30):
        save_jpeg(tmp_path / "photos" / "1" / f"{seed:02}.jpg", 60, 60, seed)
    command = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", "photos", "--out", "c.h5", "--size", "700"]
    build = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True)
    journal = tmp_path / "c.h5.journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 2:
        assert build.poll() is None
        time.sleep(0.001)

    os.killpg(build.pid, signal.SIGINT)
    time.sleep(seconds)
    os.killpg(build.pid, signal.SIGINT)

    try:
        _, stderr = build.communicate(timeout=30)
    finally:
        build.kill()
    assert build.returncode == 130
    assert one_line(stderr) == "error: interrupted. Run the same command again to go on"


def test_the_exit_codes_of_the_command_line_are_those_of_the_errors() -> None:
    codes = (cli_module.DONE_WITH_FAILURES, cli_module.INTERRUPTED, cli_module.TERMINATED, cli_module.BUG)
    assert codes == (3, 130, 143, 1)


def test_a_pattern_that_the_shell_has_put_files_for_is_answered_with_how_to_keep_it_from_that(run_cli: RunCli) -> None:
    ended = run_cli("train", "--cache", "a-00000-of-00002.h5", "a-00001-of-00002.h5")
    assert ended.code == 2 and "so that the shell leaves it alone: 'NAME-*.h5'. See cli.py train --help" in ended.stderr

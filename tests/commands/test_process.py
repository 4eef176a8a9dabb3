"""How the process of a command ends (modelnet/commands/shared/process.py, console.py): one line and an exit code."""

import errno
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli import cli
from modelnet.commands._options import DONE_WITH_FAILURES
from modelnet.commands.shared.console import EpochJson, EpochLines
from modelnet.commands.shared.process import BUG, INTERRUPTED, TERMINATED, _unusable_path
from pipeline.errors import AccessDenied
from tests.support.command_line import REPOSITORY, RunCli, one_line
from tests.support.photos import make_photos, save_jpeg


def make_failures(folder: Path, cache_path: Path) -> None:
    make_photos(folder / "photos")
    (folder / "empty").mkdir()
    (folder / "text.h5").write_text("no cache")
    (folder / "cut.h5").write_bytes(cache_path.read_bytes()[:-1])
    (folder / "link.h5").symlink_to("text.h5")
    (folder / "val.h5.building").touch()
    (folder / "val.h5.journal").touch()
    save_jpeg(folder / "others" / "1" / "a.jpg", 40, 40, 99)
    for split in ("train", "val"):
        save_jpeg(folder / "tvt" / split / "1" / "a.jpg", 40, 40, 99)
    shutil.copy(cache_path, folder / "kept.h5")


FAILURES: list[tuple[tuple[str, ...], int, str]] = [
    (
        ("build-cache", "missing"),
        66,
        r"no images to read: missing: there is no such folder or archive\. Give a folder of",
    ),
    (("build-cache", "text.h5"), 66, r"no images to read: text\.h5: this is a file"),
    (("build-cache", "empty"), 66, r"no images to read: empty: no files ending in \.jpg, \.jpeg"),
    (
        ("build-cache", "tvt"),
        66,
        r"no classes to read: tvt: it looks like train/ and val/\. Build each: build-cache tvt",
    ),
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
    (("info", "cut.h5"), 65, r"the cache is damaged: cut\.h5: 406631 bytes, 406632 expected\. Run build-cache again"),
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
    program += "d.describe_cache = lambda path, **_: 1 // 0; cli.main()"

    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)

    assert ended.returncode == 1
    assert one_line(ended.stderr).startswith("error: this is a bug: ZeroDivisionError: ")


@pytest.mark.parametrize("library", ["PIL", "click"])  # click: another Python than that of the environment
def test_a_library_that_cannot_be_loaded_is_no_bug_and_ends_with_71(library: str) -> None:
    program = f"import sys; sys.modules[{library!r}] = None; sys.argv = ['cli.py', 'build-cache', 'x']; "
    program += "import cli; cli.main()"

    ended = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)

    assert ended.returncode == 71
    said = one_line(ended.stderr)
    assert re.match(
        rf"error: a library that is needed cannot be loaded: .*{library}.*\. Activate its environment, ", said
    )
    assert said.endswith("In a clone of modelnet-cache, type: pip install '.'; with a wheel: pip install 'FILE.whl'")


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


@pytest.mark.parametrize("command", [["show"], ["doctor"], ["runs"], ["evaluate"], ["train", "--from"]])
def test_a_name_longer_than_any_file_can_have_is_no_bug(run_cli: RunCli, command: list[str]) -> None:
    ended = run_cli(*command, "n" * 300)

    assert ended.code == 66
    assert re.fullmatch(r"error: no such path: n{300}(/\S+)?: file name too long\. Give a shorter one\n", ended.stderr)


def test_a_path_that_may_not_be_looked_at_is_no_bug() -> None:
    """`_unusable_path` is private: no command meets such a path in every place where one is looked at."""
    refused = _unusable_path(PermissionError(errno.EACCES, "Permission denied", "/secret/run"))

    assert isinstance(refused, AccessDenied)
    assert str(refused) == "the path cannot be used: /secret/run: permission denied"
    assert _unusable_path(PermissionError(errno.EACCES, "Permission denied")) is None


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


def test_the_exit_codes_of_the_command_line_are_those_of_the_errors() -> None:
    codes = (DONE_WITH_FAILURES, INTERRUPTED, TERMINATED, BUG)
    assert codes == (3, 130, 143, 1)


def test_a_pattern_expanded_by_the_shell_gives_the_advice_to_quote_it(run_cli: RunCli) -> None:
    ended = run_cli("train", "--cache", "a-00000-of-00002.h5", "a-00001-of-00002.h5")
    assert ended.code == 2
    assert "so that the shell leaves it alone: 'NAME-*.h5'. See python cli.py train --help" in ended.stderr


@pytest.mark.parametrize("lines", [EpochLines, EpochJson])
def test_the_bar_of_a_training_knows_its_end(
    lines: type[EpochLines], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with lines() as progress:
        progress.started(Path("runs/r"), 16, 4)
        time.sleep(0.2)  # an earlier bar is not drawn
        progress.step(8)
    assert "75%" in (shown := capsys.readouterr().err) and "12/16 images" in shown


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["--debug", "build-cache", "x"], " to continue"),
        (["verify", "build-cache"], ""),  # a file of that name
        (["train"], ""),
    ],
)
def test_only_a_build_that_is_stopped_continues(words: list[str], advice: str) -> None:
    program = """if True:
        import os, signal, sys
        import click
        from modelnet.commands.shared.process import run
        stopped = click.Command("any", callback=lambda words: os.kill(os.getpid(), signal.SIGTERM))
        stopped.params = [click.Argument(["words"], nargs=-1)]
        run(click.Group(commands=dict.fromkeys(("build-cache", "verify", "train"), stopped)))
    """
    command = [sys.executable, "-c", program, *words]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=50)
    assert ended.returncode == TERMINATED
    assert ended.stderr.endswith(f"error: terminated. Run the same command again{advice}\n")


@pytest.mark.parametrize("second", ["as the command is left", "before the first is told"])
def test_a_second_ctrl_c_at_the_very_end_is_one_line_too(second: str) -> None:
    program = """if True:
        import signal, sys
        import click
        from modelnet.commands.shared import process

        def command():
            if sys.argv[2:] == ["as the command is left"]:
                click.get_current_context().call_on_close(press)
            else:
                process._run_again = press_and_advise
            press()

        def press():
            signal.raise_signal(signal.SIGINT)

        def press_and_advise(advise=process._run_again):
            process._run_again = advise
            press()

        argument = click.Argument(["words"], nargs=-1, expose_value=False)
        process.run(click.Group(commands={"info": click.Command("info", callback=command, params=[argument])}))
    """
    command = [sys.executable, "-c", program, "info", second]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=50)
    assert ended.returncode == INTERRUPTED
    assert one_line(ended.stderr) == "error: interrupted. Run the same command again"

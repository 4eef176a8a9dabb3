"""Commands in odd surroundings (modelnet/commands/shared/process.py, runtime/launcher.py): encodings, pipes, limits."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY, RunCli, one_line
from tests.support.photos import save_jpeg

CLI = f"{sys.executable} {REPOSITORY / 'cli.py'}"
NOTEBOOK = "module://matplotlib_inline.backend_inline"


def shell(command: str, folder: Path, **env: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        cwd=folder,
        env=os.environ | env,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=100,
    )


@pytest.fixture(scope="module")
def named_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a class 猫, a cache of it, and a run."""
    folder = tmp_path_factory.mktemp("named")
    for seed in range(8):
        save_jpeg(folder / "photos" / ("猫" if seed % 2 else "Möwe") / f"собака-{seed}.jpg", 60, 60, seed)
    built = shell(f"{CLI} build-cache photos --size 64 -j 1 --out c.h5", folder)
    assert built.returncode == 0, built.stderr
    command = f"{CLI} train --cache c.h5 --val c.h5 --epochs 1 --threads 1 --name r"
    trained = shell(command, folder, PYTHONIOENCODING="latin-1", MPLBACKEND=NOTEBOOK)
    assert trained.returncode == 0, trained.stderr
    assert (folder / "runs/r/report.html").exists() and (folder / "runs/r/loss.png").exists()
    return folder


@pytest.mark.parametrize(
    ("encoding", "command"),
    [
        ("latin-1", "build-cache photos --size 64 -j 1 --out c.h5"),
        ("latin-1", "build-cache photos --dry-run"),
        ("latin-1", "info c.h5"),
        ("cp1252", "info c.h5"),
        ("koi8-r", "info c.h5"),
        ("ascii", "info c.h5 --json"),
        ("cp1252", "evaluate runs/r"),
        ("koi8-r", "predict runs/r photos/猫"),
        ("latin-1", "predict runs/r photos/Möwe --json"),
    ],
)
def test_output_never_fails_for_a_character(encoding: str, command: str, named_photos: Path) -> None:
    ended = shell(f"{CLI} {command}", named_photos, PYTHONIOENCODING=encoding)
    assert (ended.returncode, ended.stderr) == (0, "")
    if encoding != "ascii":  # which click takes for a terminal that is set up wrongly, and writes UTF-8
        assert "\\u732b" in ended.stdout


def test_an_error_that_names_a_character_is_one_line(run_cli: RunCli) -> None:
    ended = run_cli("info", "猫.h5", env={"PYTHONIOENCODING": "latin-1"}, fresh=True)
    assert (ended.code, one_line(ended.stderr)[:27]) == (66, "error: no cache: \\u732b.h5:")


@pytest.mark.parametrize("backend", [NOTEBOOK, "nonsense"])
def test_the_backend_of_a_notebook_does_not_matter(backend: str, named_photos: Path) -> None:
    ended = shell(f"{CLI} lr-find --cache c.h5 --epochs 1 --out lr.png", named_photos, MPLBACKEND=backend)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.long
def test_training_goes_on_where_nobody_reads_its_output(cache_path: Path, tmp_path: Path) -> None:
    for streams in ("2>/dev/null", "2>&1"):
        name = f"r{len(streams)}"
        command = f"{CLI} train --cache {cache_path} --epochs 6 --threads 1 --name {name} {streams} | head -1"
        ended = shell(command, tmp_path)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert (tmp_path / "runs" / name / "metrics.csv").read_text().count("\n") == 7
        assert (tmp_path / "runs" / name / "report.html").exists()


def test_a_build_goes_on_where_nobody_reads_its_output(shared_photos: Path, tmp_path: Path) -> None:
    ended = shell(f"{CLI} build-cache {shared_photos} --size 32 -j 1 --out c.h5 | true", tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "") and (tmp_path / "c.h5").exists()


def test_a_failure_keeps_its_code_where_nobody_reads_it(tmp_path: Path) -> None:
    assert shell(f"{CLI} info missing.h5 2>&1 | true", tmp_path).returncode == 66


@pytest.mark.parametrize(("ignored", "code"), [(False, 129), (True, 0)])
def test_sighup_stops_a_build_unless_it_is_ignored(ignored: bool, code: int, tmp_path: Path) -> None:
    for seed in range(40):
        save_jpeg(tmp_path / "photos" / "1" / f"{seed:02}.jpg", 60, 60, seed)
    nohup = ["nohup"] if ignored else []
    command = [*nohup, sys.executable, str(REPOSITORY / "cli.py")]
    command += ["build-cache", "photos", "--out", "c.h5", "--size", "700", "-j", "1"]
    build = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    journal = tmp_path / "c.h5.journal"
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert build.poll() is None
        time.sleep(0.005)
    os.killpg(build.pid, signal.SIGHUP)
    _, stderr = build.communicate(timeout=60)
    assert build.returncode == code
    if ignored:
        assert (tmp_path / "c.h5").exists()
    else:
        assert one_line(stderr) == "error: the terminal was closed. Run the same command again to continue"


@pytest.mark.long
def test_a_limit_of_file_sizes_is_named(cache_path: Path, shared_photos: Path, tmp_path: Path) -> None:
    build = shell(f"ulimit -f 100; {CLI} build-cache {shared_photos} --out c.h5", tmp_path)
    assert build.returncode == 73 and "File too large" in one_line(build.stderr)
    assert list(tmp_path.glob("c.h5*")) == []
    train = shell(f"ulimit -f 20; {CLI} train --cache {cache_path} --epochs 1 --threads 1 --name r", tmp_path)
    assert train.returncode in (73, 74) and "File too large" in train.stderr and "bug" not in train.stderr


def test_a_number_of_ranks_that_is_none_is_a_usage_error(cache_path: Path, run_cli: RunCli) -> None:
    ended = run_cli("train", "--cache", cache_path, env={"WORLD_SIZE": "x", "RANK": "0", "MASTER_PORT": "29500"})
    assert ended.code == 2 and "the ranks cannot meet: WORLD_SIZE is 'x', not a number" in ended.stderr


def test_world_size_alone_makes_no_ranks(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    train = ("train", "--cache", cache_path, "--epochs", "1", "--threads", "1", "--name", "r")
    ended = run_cli(*train, env={"WORLD_SIZE": "2"})
    assert ended.code == 0
    assert "warning: WORLD_SIZE is set and RANK, MASTER_PORT not: this process trains alone\n" in ended.stderr


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("localhost", port)) == 0


def test_a_signal_ends_the_wait_for_other_ranks(cache_path: Path, tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    env = os.environ | {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    command = [sys.executable, str(REPOSITORY / "cli.py"), "train", "--cache", str(cache_path)]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stderr=subprocess.DEVNULL) as waiting:
        while not _listens(port):
            assert waiting.poll() is None
            time.sleep(0.05)
        waiting.terminate()
        assert waiting.wait(20) == -signal.SIGTERM


@pytest.mark.parametrize("rank", ["0", "1"])
def test_commands_that_only_look_work_under_torchrun(rank: str, cache_path: Path, run_cli: RunCli) -> None:
    env = {"WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    assert run_cli("info", cache_path, env=env).stdout == run_cli("info", cache_path).stdout
    assert run_cli("verify", cache_path, env=env).code == 0
    missing = run_cli("info", "missing.h5", env=env)
    assert (missing.code, one_line(missing.stderr)[:16]) == (66, "error: no cache:")


def test_a_long_folder_for_temporary_files_stops_no_worker(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    folder = tmp_path / ("x" * 100)
    folder.mkdir()
    train = ("train", "--cache", cache_path, "--epochs", "1", "--threads", "1", "--workers", "2", "--name", "r")
    ended = run_cli(*train, env={"TMPDIR": str(folder)}, fresh=True)
    assert ended.code == 0, ended.stderr
    assert list(folder.iterdir()) == []


def test_a_tilde_behind_an_equals_sign_is_the_home_folder(
    cache_path: Path, shared_photos: Path, tmp_path: Path, run_cli: RunCli
) -> None:
    home = tmp_path / "home"
    shutil.copytree(shared_photos, home / "photos")
    build = ("build-cache", "~/photos", "--size", "64", "-j", "1", "--out=~/x.h5")
    assert run_cli(*build, env={"HOME": str(home)}).code == 0
    assert (home / "x.h5").read_bytes() == cache_path.read_bytes()
    assert run_cli("info", "~/x.h5", env={"HOME": str(home)}).code == 0
    assert "~nobody-of-this-name/x.h5" in run_cli("info", "~nobody-of-this-name/x.h5").stderr
    assert not (tmp_path / "~").exists()


@pytest.mark.parametrize("package", ["pipeline", "modelnet"])
def test_a_file_of_the_users_that_hides_a_package_is_named(package: str, tmp_path: Path) -> None:
    (tmp_path / f"{package}.py").write_text("x = 1\n")
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; sys.path.append({str(REPOSITORY)!r}); "
    expected = f"{tmp_path / package}.py hides the package {package} of modelnet-cache: rename that file\n"

    line = subprocess.run([sys.executable, "-c", program + "import cli"], cwd=tmp_path, capture_output=True, text=True)
    assert (line.returncode, line.stderr) == (1, f"error: {expected}")

    if package == "pipeline":
        name = "from modelnet import train"
        line = subprocess.run([sys.executable, "-c", program + name], cwd=tmp_path, capture_output=True, text=True)
        assert line.stderr.endswith(f"ImportError: {expected}")


def test_a_mistyped_option_or_command_is_answered_with_the_nearest(run_cli: RunCli) -> None:
    option = run_cli("train", "--batchsize", "4")
    assert option.code == 2 and re.search(r"No such option.*--batch-size", one_line(option.stderr))
    command = run_cli("trian")
    assert command.code == 2 and "train" in one_line(command.stderr)

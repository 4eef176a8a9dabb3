"""What the tests share: folders of small real JPEGs, a cache of them, and the command line in a process of its own."""

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: its threads spin, and everything here is small

import pytest

from pipeline.build import worker
from pipeline.build.build import build_cache
from pipeline.shards.build import build_shards
from tests.support.command_line import REPOSITORY, Ended, RunCli
from tests.support.command_server import CommandServer
from tests.support.photos import SIZE, make_photos, settle


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parts in C, compiled with the flags of pyproject.toml."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("kernels")
    flags = ["-O3", "-ffp-contract=off", "-fno-trapping-math", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    for source in (REPOSITORY / "pipeline/system").glob("_*.c"):
        target = folder / f"{source.stem}.so"
        subprocess.run([compiler, *flags, "-o", target, source], check=True)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make soak SCALE=x` say how much of the full counts the suites in tests/soak do; a hundredth by default."""
    parser.addoption("--soak-scale", type=float, default=0.01, help="of the full counts of tests/soak, 0..1")


@pytest.fixture(autouse=True, scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Note what code is trusted in no home of a person."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of its own for each test, to do anything with."""
    return make_photos(tmp_path / "photos")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """A place for a cache, in a folder with nothing else in it."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "c.h5"


@pytest.fixture
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let runs and caches with relative names land in the test's own folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where an image is decoded in this process, or in one that is forked from it."""

    def refused(*_: object) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(worker, "decode", refused)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without drawing curves and tables, which takes longer than these trainings."""
    for drawing in ("training.loop.loss_curves", "training.loop.confusion_picture", "sweep.group.group_curves"):
        monkeypatch.setattr(f"modelnet.{drawing}", lambda *_: b"")


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Gives out what sets the number of torch's threads, until the test ends."""
    import torch

    threads = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(threads)


@pytest.fixture
def one_thread(set_threads: Callable[[int], None]) -> None:
    """Compute with one thread of torch, and with as many as before afterwards."""
    set_threads(1)


@pytest.fixture(scope="session")
def shared_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder for tests that only read it."""
    return make_photos(tmp_path_factory.mktemp("shared") / "photos")


@pytest.fixture(scope="session")
def cache_path(shared_photos: Path) -> Path:
    """A float32 cache of `shared_photos` at size 64, for tests that only read it."""
    path = shared_photos.parent / "photos.h5"
    build_cache(shared_photos, path, size=SIZE, workers=1)
    return path


@pytest.fixture
def copy(cache_path: Path, tmp_path: Path) -> Path:
    """A copy of `cache_path` to damage."""
    return Path(shutil.copy(cache_path, tmp_path / "copy.h5"))


@pytest.fixture(scope="session")
def uint8_cache_path(shared_photos: Path) -> Path:
    """The same images as uint8."""
    path = shared_photos.parent / "photos-uint8.h5"
    build_cache(shared_photos, path, size=SIZE, dtype="uint8", workers=1)
    return path


@pytest.fixture(scope="session")
def shards_path(shared_photos: Path) -> Path:
    """The images of `cache_path` in 4 shards, of which the first is empty: the set's name."""
    path = shared_photos.parent / "set" / "photos.h5"
    build_shards(shared_photos, path, 4, size=SIZE, workers=1)
    return path


@pytest.fixture(scope="session")
def settled_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same photos and a broken file, to read only, old enough for their stat data to be trusted."""
    folder = make_photos(tmp_path_factory.mktemp("settled") / "photos")
    (folder / "1" / "broken.jpg").write_bytes(b"no image")
    settle(folder)
    return folder


@pytest.fixture(scope="session")
def command_server() -> Iterator[CommandServer]:
    """The process from which commands are forked."""
    server = CommandServer()
    yield server
    server.close()


@pytest.fixture
def run_cli(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> RunCli:
    """Run `cli.py` with these arguments, as a person would; in `tmp_path` unless told otherwise.

    `env` changes the environment. What reads it while Python starts needs a fresh Python.
    """

    def run(
        *arguments: "str | bytes | os.PathLike[str]",
        cwd: Path = tmp_path,
        env: dict[str, str] | None = None,
        fresh: bool = False,
    ) -> Ended:
        environment = os.environ | (env or {})
        if fresh:
            command = [sys.executable, str(REPOSITORY / "cli.py"), *arguments]
            done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, timeout=100)
            return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        server: CommandServer = request.getfixturevalue("command_server")
        streams = tmp_path_factory.mktemp("streams")
        words = [os.fsdecode(argument) for argument in arguments]
        code = server.run(words, cwd, streams / "out", streams / "err", environment)
        return Ended(code, *((streams / name).read_text(errors="replace") for name in ("out", "err")))

    return run


@pytest.fixture
def unprivileged() -> Iterator[None]:
    """Hold the superuser to the permissions of files too, as any other owner of them (Linux)."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    version_3 = 0x20080522
    header = (ctypes.c_uint32 * 2)(version_3, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable, twice 32 bits
    assert libc.capget(header, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~(1 << 1 | 1 << 2)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, without) == 0
    yield
    assert libc.capset(header, before) == 0

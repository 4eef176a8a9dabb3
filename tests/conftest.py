"""What the tests share: folders of small real JPEGs, a cache of them, and the command line in a process of its own."""

import ctypes
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported: its threads spin, and everything here is small

import numpy as np
import pytest
from PIL import Image

from pipeline import freshness, places, workers
from pipeline.build import build_cache
from pipeline.build_set import build_shards

REPOSITORY = Path(__file__).resolve().parent.parent

PHOTOS = {
    "1": {
        "n03874293_7.JPEG": (64, 48),
        "n03874293_43.JPEG": (40, 97),
        "n03874293_775.JPEG": (120, 80),
        "n03874293_1030.JPEG": (53, 53),
    },
    "2": {
        "n01740131_12.JPEG": (101, 45),
        "n01740131_300.JPEG": (77, 119),
        "n01740131_4405.JPEG": (48, 64),
        "n03874293_775.JPEG": (90, 110),  # a name that class 1 has too
    },
}
SIZE = 64


def textured(width: int, height: int, seed: int) -> Image.Image:
    """Draw a picture with structure at every scale, as photographs have; another seed, another picture."""
    rng = np.random.default_rng(seed)
    levels = [
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for side in (2, 5, 13, 31)
    ]
    weights = np.array([0.45, 0.3, 0.15, 0.1])[:, None, None, None]
    return Image.fromarray((weights * np.stack([np.asarray(level) for level in levels])).sum(0).astype(np.uint8))


def save_jpeg(path: Path, width: int, height: int, seed: int, quality: int = 85) -> None:
    """Write such a picture as a JPEG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    textured(width, height, seed).save(path, "JPEG", quality=quality)


def make_photos(folder: Path) -> Path:
    """Write `PHOTOS` into a folder, 4 pictures a class, each another; the same bytes every time."""
    places = [(class_id, name, size) for class_id, names in PHOTOS.items() for name, size in names.items()]
    for seed, (class_id, name, (width, height)) in enumerate(places):
        save_jpeg(folder / class_id / name, width, height, seed)
    return folder


def note_reads(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Note the place of every image that is read from now on, by this process."""
    read: list[Any] = []
    real = places.read_image

    def noting(place: Any) -> Any:
        read.append(place)
        return real(place)

    for module in (places, workers, freshness):
        monkeypatch.setattr(module, "read_image", noting)
    return read


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the parts in C, compiled with the flags of pyproject.toml."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler here")
    folder = tmp_path_factory.mktemp("kernels")
    flags = ["-O3", "-ffp-contract=off", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror"]
    for source in (REPOSITORY / "pipeline").glob("_*.c"):
        target = folder / f"{source.stem}{EXTENSION_SUFFIXES[0]}"
        subprocess.run([compiler, *flags, "-o", target, source], check=True)
    return folder


def names_in(folder: Path) -> set[str]:
    """Return what is in a folder."""
    return {entry.name for entry in folder.iterdir()}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `make soak SCALE=x` say how much of the full counts the suites in tests/soak do; a hundredth by default."""
    parser.addoption("--soak-scale", type=float, default=0.01, help="of the full counts of tests/soak, 0..1")


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

    monkeypatch.setattr(workers, "decode", refused)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without drawing curves, which takes longer than these trainings."""
    monkeypatch.setattr("modelnet.training.loss_curves", lambda rows, title: b"")


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


def settle(photos: Path) -> None:
    """Wait until files are old enough for their stat data to be trusted; the time of last change cannot be set."""
    newest = max(path.stat().st_ctime for path in photos.rglob("*"))
    time.sleep(max(0.0, newest + 2.05 - time.time()))


class InThisProcess(Executor):
    """Does the work of a build at once, without a process for it: quick, and within reach of a monkeypatch."""

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


class Ended(NamedTuple):
    """How a run of the command line ended."""

    code: int
    stdout: str
    stderr: str


RunCli = Callable[..., Ended]


@pytest.fixture
def run_cli(tmp_path: Path) -> RunCli:
    """Run `cli.py` with these arguments, as a person would; in `tmp_path` unless told otherwise."""

    def run(
        *arguments: "str | bytes | os.PathLike[str]", cwd: Path = tmp_path, env: dict[str, str] | None = None
    ) -> Ended:
        ended = subprocess.run(
            [sys.executable, str(REPOSITORY / "cli.py"), *arguments],
            cwd=cwd,
            env=os.environ | (env or {}),
            capture_output=True,
            timeout=100,
        )
        return Ended(ended.returncode, ended.stdout.decode(errors="replace"), ended.stderr.decode(errors="replace"))

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

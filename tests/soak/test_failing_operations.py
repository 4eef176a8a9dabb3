"""Every file operation of a build made to fail, one a build: the right exit code, and a clean resume after it.

The calls to the system that `pipeline` makes are counted through a stand-in for its `os` modules, in one process and
in forked workers; a few real failures (strace, a full disk) prove that the stand-in is not all there is to it.
"""

import errno
import importlib
import itertools
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.build.build import build_cache
from pipeline.errors import PipelineError
from pipeline.system import files
from tests.soak.trees import content, left_over, plant, plant_changed
from tests.support.builds import InThisProcess

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IMAGES = 32
MODULES = (
    "system.files",
    "build.lock",
    "build.journal",
    "build.partial",
    "format.reader",
    "format.checks",
    "format.header",
    "format.hdf5",
    "build.staleness",
    "build.stat_cache",
    "build.build",
    "source.manifest",
)
CALLS = ("open", "pwrite", "write", "pread", "read", "posix_fallocate", "ftruncate", "fsync", "rename", "unlink")
READING = ("open to read", "pread", "read")
SHORT = 0
FAULTS = {
    errno.ENOSPC: {73, 74},
    errno.EDQUOT: {73, 74},
    errno.EIO: {74},
    errno.EROFS: {73},
    errno.EMFILE: {71},
    errno.EACCES: {77},
    SHORT: {0},
}


class FailingOs:
    """Stands in for the module `os`: call number `fails_at` (or a later one, for a short write) goes wrong."""

    def __init__(self, fails_at: int, number: int) -> None:
        self.fails_at = fails_at
        self.number = number
        self.calls: list[str] = []
        self.failed = ""

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in CALLS else real

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls.append(name)
            if self.failed or len(self.calls) <= self.fails_at:
                return real(*arguments)
            if self.number == SHORT and name in ("write", "pwrite"):
                self.failed = name
                fd, data, *rest = arguments
                return real(fd, memoryview(data)[: (len(data) + 1) // 2], *rest)
            if self.number == SHORT:
                return real(*arguments)
            self.failed = f"{name} to read" if name == "open" and not arguments[1] & os.O_ACCMODE else name
            raise OSError(self.number, os.strerror(self.number), *arguments[:1] if name == "open" else ())

        return call


@contextmanager
def failing(fails_at: int, number: int) -> Iterator[FailingOs]:
    """Let one call of a build fail."""
    stand_in = FailingOs(fails_at, number)
    modules = [importlib.import_module(f"pipeline.{name}") for name in MODULES]
    try:
        for module in modules:
            module.os = stand_in  # type: ignore[attr-defined]
        yield stand_in
    finally:
        for module in modules:
            module.os = os  # type: ignore[attr-defined]


class Case:
    """A build to be disturbed, and its undisturbed result."""

    def __init__(self, workspace: Path, source: Path, old: Path | None) -> None:
        self.folder = workspace / "case"
        self.cache = self.folder / "c.h5"
        self.source = source
        self.old = old
        self.reset()
        with failing(10**9, errno.EIO) as counted:
            self.build()
        self.calls = counted.calls
        self.expected = self.cache.read_bytes()

    def reset(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        if self.old:
            shutil.copy(self.old, self.cache)

    def build(self, progress: Callable[[int, int], None] | None = None) -> Any:
        return build_cache(self.source, self.cache, size=8, executor=InThisProcess(), workers=1, progress=progress)

    def disturb(self, fails_at: int, number: int) -> list[str]:
        """Build with one failing call, then without; return what went wrong."""
        self.reset()
        old = content(self.cache)
        done = [0]
        unread = False
        wrong = []
        with failing(fails_at, number) as stand_in:
            try:
                report = self.build(lambda finished, total: done.append(finished))
            except PipelineError as error:
                wrong += self._wrong_code(error, number, stand_in.failed, max(done) > done[min(1, len(done) - 1)])
            except Exception as error:
                wrong.append(f"{type(error).__name__} escaped: {error}")
            else:
                unread = any(failed.transient for failed in report.failed)
                if number == SHORT and content(self.cache) != self.expected:
                    wrong.append("a short write was taken for a whole one")
                # a source that cannot be read is a failure of the day, and a call for neatness alone may fail unseen
                if any(not failed.transient for failed in report.failed if "broken" not in failed.name):
                    wrong.append(f"a final failure: {report.failed}")
        if wrong:
            wrong = [f"{os.strerror(number) if number else 'short'} at {stand_in.failed} {fails_at}: {wrong}"]
        if content(self.cache) not in (old, self.expected) and not unread:
            wrong.append(f"call {fails_at} ({stand_in.failed}, {number}): a partial file under the final name")
        try:
            self.build()
        except PipelineError as error:
            return [*wrong, f"call {fails_at}: the next build failed: {error}"]
        if content(self.cache) != self.expected:
            wrong.append(f"call {fails_at} ({stand_in.failed}): other bytes than an undisturbed build")
        if left_over(self.cache):
            wrong.append(f"call {fails_at} ({stand_in.failed}): left over: {left_over(self.cache)}")
        return wrong

    def _wrong_code(self, error: PipelineError, number: int, call: str, decoded: bool) -> list[str]:
        codes = {74} if decoded and 74 in FAULTS[number] else FAULTS[number]
        if call in READING:  # which never meets most of these
            codes = codes | {74}
        return [] if error.exit_code in codes else [f"exit code {error.exit_code} instead of {codes}: {error}"]


@pytest.fixture
def cases(workspace: Path) -> list[Case]:
    before = plant(workspace / "before", IMAGES, side=8)
    after = plant_changed(workspace / "after", before)
    old = workspace / "old.h5"
    build_cache(before, old, size=8, executor=InThisProcess())
    return [Case(workspace, before, None), Case(workspace, after, old)]


def test_every_failing_operation_ends_in_the_right_way_and_is_made_good(
    count: Callable[[int, int], int], cases: list[Case]
) -> None:
    every = [
        (case, fails_at, number) for case in cases for fails_at in range(len(case.calls)) for number in sorted(FAULTS)
    ]
    chosen = random.Random(3).sample(every, min(len(every), count(len(every), 70)))
    figures, wrong = Counter[str](), []
    for case, fails_at, number in chosen:
        found = case.disturb(fails_at, number)
        figures[errno.errorcode.get(number, "short")] += 1
        wrong += found
    kinds = ", ".join(f"{tried} {kind}" for kind, tried in sorted(figures.items()))
    print(f"\nfailing operations: {len(chosen)} of {len(every)} tried ({kinds}), {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EMFILE])
def test_what_fails_in_a_worker_ends_the_build_as_what_fails_in_the_parent(
    number: int, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, cache = plant(workspace / "source", IMAGES, side=8), workspace / "out" / "c.h5"
    whole = workspace / "whole.h5"
    build_cache(source, whole, size=8, workers=1)
    parent, writes = os.getpid(), itertools.count()
    write_all = files.write_all

    def full(fd: int, data: bytes, offset: int) -> None:
        if os.getpid() != parent and next(writes) == 5:
            raise OSError(number, os.strerror(number))
        write_all(fd, data, offset)

    monkeypatch.setattr(files, "write_all", full)
    with pytest.raises(PipelineError) as caught:
        build_cache(source, cache, size=8, workers=2)
    monkeypatch.undo()

    assert caught.value.exit_code == {errno.EMFILE: 71}.get(number, 74)
    report = build_cache(source, cache, size=8, workers=2)
    assert report.kept > 0
    assert cache.read_bytes() == whole.read_bytes()
    assert left_over(cache) == []


def test_a_failed_build_leaves_no_process_that_writes_into_the_next(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The HDF5 library keeps a file that it could not write, and tries again at the end of the process."""
    source = plant(workspace / "source", IMAGES, side=8)
    program = f"""
import errno, os, sys
from pathlib import Path
from pipeline.system import files
from pipeline.build.build import build_cache
resize, write_all, after = files.resize, files.write_all, []
files.resize = lambda fd, size: (resize(fd, size), after.append(size))
def full(fd, data, offset):
    if len(after) == 1 and offset >= 4096:
        raise OSError(errno.ENOSPC, "full")
    write_all(fd, data, offset)
files.write_all = full
try:
    build_cache({str(source)!r}, sys.argv[1], size=8, workers=1)
except Exception as error:
    print(type(error).__name__)
files.write_all, files.resize = write_all, resize
build_cache({str(source)!r}, sys.argv[1], size=8, workers=1)
kept_open = [os.open(sys.argv[1], os.O_RDWR) for _ in range(20)]
"""
    caches = [workspace / "a" / "c.h5", workspace / "b" / "c.h5"]
    build_cache(source, caches[0], size=8, workers=1)
    ended = subprocess.run([sys.executable, "-c", program, str(caches[1])], capture_output=True, text=True, timeout=60)

    assert (ended.stdout, ended.stderr, ended.returncode) == ("StorageError\n", "", 0)
    assert caches[1].read_bytes() == caches[0].read_bytes()


def test_without_writing_the_rest_of_a_short_write_the_suite_sees_it(
    cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(fd: int, data: bytes, offset: int) -> None:
        vars(files)["os"].pwrite(fd, memoryview(data).cast("B"), offset)

    monkeypatch.setattr(files, "write_all", once)
    first_row = cases[0].calls.index("pwrite", cases[0].calls.index("posix_fallocate"))

    assert cases[0].disturb(first_row, SHORT)


def command(source: Path, cache: Path) -> list[str]:
    return [
        *(sys.executable, str(REPOSITORY / "cli.py"), "build-cache", str(source)),
        *("--out", str(cache), "--size", "64", "-j", "2"),
    ]


@pytest.mark.parametrize(
    ("inject", "codes"),
    [
        ("pwrite64:error=ENOSPC:when=10", {74}),
        ("pwrite64:error=EIO:when=3", {74}),
        ("fsync:error=EIO:when=2", {74}),
        ("fallocate:error=ENOSPC:when=1", {73}),
        ("rename:error=EROFS:when=1", {73}),
    ],
)
def test_failures_that_the_kernel_gives_end_in_the_right_code_too(
    inject: str, codes: set[int], workspace: Path
) -> None:
    strace = shutil.which("strace")
    if not strace or subprocess.run([strace, "-f", "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("strace is missing, or ptrace is not permitted")
    source, cache = plant(workspace / "source", IMAGES, side=8), workspace / "out" / "c.h5"
    call = inject.split(":")[0]
    traced = [strace, "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={inject}"]

    ended = subprocess.run([*traced, *command(source, cache)], capture_output=True, text=True, timeout=100)

    assert ended.returncode in codes, ended.stderr
    assert ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    again = subprocess.run(command(source, cache), capture_output=True, text=True, timeout=100)
    assert again.returncode == 0, again.stderr
    assert left_over(cache) == []


def test_a_disk_that_is_full_ends_the_build_and_room_lets_it_go_on(workspace: Path) -> None:
    disk = workspace / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1500k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mount is missing or not permitted")
    try:
        source, cache = plant(workspace / "source", IMAGES, side=8), disk / "c.h5"
        (disk / "ballast").write_bytes(bytes(100_000))
        ended = subprocess.run(command(source, cache), capture_output=True, text=True, timeout=100)
        assert ended.returncode == 73
        assert "needs 1.7 MB" in ended.stderr and ended.stderr.count("\n") == 1
        assert sorted(entry.name for entry in disk.iterdir()) == ["ballast"]

        subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
        assert subprocess.run(command(source, cache), capture_output=True, timeout=100).returncode == 0
    finally:
        subprocess.run(["umount", str(disk)], check=True)

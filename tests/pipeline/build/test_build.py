"""A build from source to cache: the same bytes every time, whatever happens on the way (`build`, `worker`, `space`)."""

import concurrent.futures
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.build import pool, worker
from pipeline.build.build import build_cache
from pipeline.decode.decode import Decoded, decode
from pipeline.errors import OutputError, SourceError, WorkerDied
from pipeline.inspect.verify import verify_cache
from pipeline.load.cache import TensorCache
from pipeline.recipe import Recipe, pixels_to_row
from pipeline.system import files, processes
from tests.support.builds import InThisProcess, names_in
from tests.support.command_line import REPOSITORY
from tests.support.photos import SIZE, make_photos, save_jpeg

LEFT_BESIDE = {"c.h5", "c.h5.lock", "c.h5.stat"}


# --- what a build says and makes ---------------------------------------------------------------------------------


def test_a_build_caches_every_image_and_says_so(photos: Path, out: Path) -> None:
    seen: list[tuple[int, int]] = []

    report = build_cache(photos, out, size=SIZE, workers=2, progress=lambda done, total: seen.append((done, total)))

    assert (report.cached, report.decoded, report.copied, report.kept) == (8, 8, 0, 0)
    assert (report.class_ids, report.class_names, report.counts) == ([1, 2], ["", ""], [4, 4])
    assert (report.failed, report.left_out.total(), report.warnings, report.why) == ([], 0, [], "")
    assert not report.up_to_date and report.seconds > 0
    assert report.path == out and report.file_bytes == out.stat().st_size
    assert seen[0] == (0, 8) and seen[-1] == (8, 8) and sorted(seen) == seen
    assert names_in(out.parent) == LEFT_BESIDE
    *table, last = str(report).splitlines()
    assert table == ["label  class  images", "    0  1           4", "    1  2           4"]
    assert re.fullmatch(r".*c\.h5: 8 images, \d+\.\d kB: 8 decoded in \d+\.\d s, \d+ images/s", last)


def test_rows_are_those_of_a_plain_loop_over_the_files(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=SIZE, workers=2)

    cache = TensorCache(out)
    files = [path for class_id in ("1", "2") for path in sorted((photos / class_id).iterdir())]
    for row, path in enumerate(files):
        expected = pixels_to_row(decode(path.read_bytes(), Recipe(size=SIZE)).pixels_HWC, Recipe(size=SIZE))
        assert cache.filenames[row] == path.name and cache.class_ids[cache.labels[row]] == int(path.parent.name)
        assert cache.images[row].numpy().tobytes() == expected.tobytes()


def test_a_broken_image_is_named_and_the_others_are_cached(photos: Path, out: Path) -> None:
    (photos / "2" / "broken.JPEG").write_bytes(b"not a JPEG")

    report = build_cache(photos, out, size=SIZE, workers=2)

    assert [(f.class_id, f.name, f.reason) for f in report.failed] == [(2, "broken.JPEG", "not an image")]
    assert TensorCache(out).num_images == report.cached == 8
    assert report.seen == 9


def test_rows_behind_many_failed_ones_close_ranks(photos: Path, out: Path, tmp_path: Path) -> None:
    build_cache(photos, tmp_path / "whole.h5", size=SIZE, workers=1)
    for class_id in ("1", "2"):
        for name in ("a", "n01740131_2", "n03874293_5", "z"):
            (photos / class_id / f"{name}.jpg").write_bytes(b"no image")

    report = build_cache(photos, out, size=SIZE, workers=2)

    assert (report.cached, len(report.failed)) == (8, 8)
    assert TensorCache(out).images.equal(TensorCache(tmp_path / "whole.h5").images)


@pytest.mark.parametrize(
    ("size", "dtype"), [(14, "uint8"), (7, "float32"), (20, "uint8"), (13, "float32"), (26, "uint8")]
)
def test_a_single_small_image_is_a_cache_like_any_other(size: int, dtype: Any, tmp_path: Path, out: Path) -> None:
    save_jpeg(tmp_path / "photos" / "1" / "a.jpg", 40, 40, 0)

    build_cache(tmp_path / "photos", out, size=size, dtype=dtype, executor=InThisProcess())

    assert TensorCache(out)["a.jpg"][1].shape == (3, size, size)
    assert not list(verify_cache(out))


def test_images_too_small_for_the_format_are_refused_and_leave_nothing(tmp_path: Path, out: Path) -> None:
    save_jpeg(tmp_path / "photos" / "1" / "a.jpg", 40, 40, 0)

    with pytest.raises(OutputError, match=r"1 images of 13 × 13 are too little .* Give a larger --size"):
        build_cache(tmp_path / "photos", out, size=13, dtype="uint8", executor=InThisProcess())

    assert not names_in(out.parent)


# --- purity -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    workers: int, shared_photos: Path, cache_path: Path, out: Path
) -> None:
    build_cache(shared_photos, out, size=SIZE, workers=workers)

    assert out.read_bytes() == cache_path.read_bytes()


def test_the_order_in_which_images_are_finished_does_not_show(
    shared_photos: Path, cache_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = []
    real = worker.fill_rows

    class Backwards(concurrent.futures.Executor):
        """Does the work of the last call first."""

        def __init__(self) -> None:
            self.waiting: list[tuple[concurrent.futures.Future[Any], Any]] = []

        def submit(self, function: Any, /, *arguments: Any, **_: Any) -> concurrent.futures.Future[Any]:
            future: concurrent.futures.Future[Any] = concurrent.futures.Future()
            self.waiting.append((future, arguments))
            threading.Timer(0.2, self.work).start()
            return future

        def work(self) -> None:
            future, (job, items) = self.waiting.pop()
            finished.append(items[0].row)
            future.set_result(real(job, items))

    monkeypatch.setattr(pool, "LARGEST_CHUNK", 1)
    build_cache(shared_photos, out, size=SIZE, workers=3, executor=Backwards())

    assert len(finished) == 8 and finished != sorted(finished)
    assert out.read_bytes() == cache_path.read_bytes()


def test_umask_time_zone_locale_and_folder_do_not_show(
    shared_photos: Path, cache_path: Path, out: Path, tmp_path: Path
) -> None:
    program = "import os, sys; os.umask(0o077); from pipeline import build_cache; "
    program += f"build_cache(os.path.relpath(sys.argv[1]), sys.argv[2], size={SIZE}, workers=2)"
    environment = {"TZ": "Asia/Kathmandu", "LC_ALL": "C", "PYTHONPATH": str(REPOSITORY), "PYTHONHASHSEED": "7"}

    subprocess.run(
        [sys.executable, "-c", program, shared_photos, out], cwd=tmp_path, env=os.environ | environment, check=True
    )

    assert out.read_bytes() == cache_path.read_bytes()
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_copy_of_the_source_with_other_times_gives_the_same_bytes(photos: Path, cache_path: Path, out: Path) -> None:
    for path in photos.rglob("*.JPEG"):
        os.utime(path, (1, 1))

    build_cache(photos, out, size=SIZE, workers=1)

    assert out.read_bytes() == cache_path.read_bytes()


@pytest.mark.parametrize("kind", ["threads", "processes"])
def test_anybodys_executor_gives_the_same_bytes(kind: str, shared_photos: Path, cache_path: Path, out: Path) -> None:
    executors: dict[str, Callable[[], concurrent.futures.Executor]] = {
        "threads": lambda: concurrent.futures.ThreadPoolExecutor(1),
        "processes": lambda: processes.local_pool(2),
    }
    with executors[kind]() as executor:
        build_cache(shared_photos, out, size=SIZE, workers=2, executor=executor)

    assert out.read_bytes() == cache_path.read_bytes()


# --- publishing ---------------------------------------------------------------------------------------------------


def test_readers_keep_the_old_cache_when_a_new_one_is_published(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=SIZE, workers=1)
    before = out.stat().st_ino
    with out.open("rb") as reader:
        (photos / "1" / "n03874293_7.JPEG").unlink()
        build_cache(photos, out, size=SIZE, workers=1)
        old = reader.read()

    assert out.stat().st_ino != before
    assert len(old) == 406632 and out.stat().st_size < len(old)
    assert names_in(out.parent) == LEFT_BESIDE


def test_nothing_stands_under_the_final_name_before_the_end(photos: Path, out: Path) -> None:
    there = []

    build_cache(
        photos,
        out,
        size=SIZE,
        workers=1,
        progress=lambda *_: there.append(names_in(out.parent)),
    )

    assert len(there) > 2 and all("c.h5" not in names for names in there)
    assert there[-1] == {"c.h5.building", "c.h5.journal", "c.h5.lock"}


# --- 30, 34, 36, 66: where nothing can be made --------------------------------------------------------------------


def test_a_disk_that_is_too_small_is_told_before_any_decoding(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch, no_decoding: None
) -> None:
    real = os.statvfs(out.parent)

    def nearly_full(_: object) -> os.statvfs_result:
        values = list(real)
        values[4] = 300_000 // real.f_frsize  # f_bavail
        return os.statvfs_result(values)

    monkeypatch.setattr(os, "statvfs", nearly_full)

    with pytest.raises(OutputError, match=r"needs \d+\.\d kB, 29\d\.\d kB free\. Free some space, or give") as refused:
        build_cache(photos, out, size=SIZE, workers=1)
    assert refused.value.exit_code == 73
    assert names_in(out.parent) <= {"c.h5.lock"}


def test_an_output_inside_the_source_is_no_part_of_it(photos: Path, cache_path: Path) -> None:
    for _ in range(2):
        report = build_cache(photos, photos / "c.h5", size=SIZE, workers=1)
        assert report.seen == report.cached == 8
    inside_a_class = build_cache(photos, photos / "1" / "c.h5", size=SIZE, workers=1)

    assert report.up_to_date
    assert inside_a_class.left_out == {"suffix .lock": 1, "suffix .stat": 1}  # of the other cache
    assert (photos / "c.h5").read_bytes() == (photos / "1" / "c.h5").read_bytes() == cache_path.read_bytes()


@pytest.mark.parametrize("options", [{"workers": 0}, {"workers": -1}, {"size": 0}, {"dtype": "float64"}])
def test_impossible_options_are_refused_before_anything_is_done(options: Any, photos: Path, out: Path) -> None:
    with pytest.raises(ValueError):
        build_cache(photos, out, **options)
    assert not names_in(out.parent)


def test_a_missing_source_leaves_no_folder_behind(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        build_cache(tmp_path / "missing", tmp_path / "new" / "c.h5", size=8)
    assert not names_in(tmp_path)


# --- 29: what a decoder can do to its process ---------------------------------------------------------------------


def bad_decoder(monkeypatch: pytest.MonkeyPatch, bad: set[bytes], what: Callable[[], object]) -> None:
    """Let the workers, which are forked, do `what` where they would decode one of these files."""

    def decode_or_not(data: bytes, recipe: Recipe) -> Decoded:
        if data in bad:
            what()
        return decode(data, recipe)

    monkeypatch.setattr(worker, "decode", decode_or_not)


def hang() -> None:
    time.sleep(100)


def crash() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def devour() -> None:
    hoard = []
    while True:
        hoard.append(np.zeros(50_000_000, np.uint8))


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (crash, "its decoder crashed, or took over 60 s"),
        (hang, "its decoder crashed, or took over 60 s"),
        (devour, "needs more than 0.2 GB of memory"),
    ],
)
def test_a_decoder_that_crashes_or_hangs_costs_its_image_only(
    what: Callable[[], object], reason: str, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = photos / "1" / "n03874293_775.JPEG"
    bad_decoder(monkeypatch, {bad.read_bytes()}, what)
    monkeypatch.setattr(worker, "SECONDS_AN_IMAGE", 0.5)
    monkeypatch.setattr(worker, "BYTES_AN_IMAGE", 200_000_000)

    report = build_cache(photos, out, size=SIZE, workers=2)

    assert [(f.class_id, f.name, f.reason, f.transient) for f in report.failed] == [(1, bad.name, reason, True)]
    assert report.cached == 7
    monkeypatch.undo()
    again = build_cache(photos, out, size=SIZE, workers=1)
    assert (again.why, again.decoded, again.copied) == ("class 1: 1 to be tried again", 1, 7)


@pytest.mark.long
def test_a_fourth_crash_in_a_row_ends_the_build(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = sorted(photos.rglob("*.JPEG"))
    bad_decoder(monkeypatch, {path.read_bytes() for path in images[:3]}, crash)
    assert [f.name for f in build_cache(photos, out, size=SIZE, workers=2).failed] == [path.name for path in images[:3]]

    bad_decoder(monkeypatch, {path.read_bytes() for path in images}, crash)
    with pytest.raises(WorkerDied, match=r"4 workers died one after another, the last at .*JPEG") as died:
        build_cache(photos, out, size=SIZE, workers=2, rebuild=True)
    assert died.value.exit_code == 71
    assert TensorCache(out).num_images == 5  # the old one, whole


@pytest.mark.long
def test_crashes_with_good_images_between_them_do_not_end_the_build(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(16):
        save_jpeg(tmp_path / "photos" / "1" / f"{seed:02}.jpg", 40, 40, seed)
    images = sorted((tmp_path / "photos").rglob("*.jpg"))
    bad_decoder(monkeypatch, {path.read_bytes() for path in images[::2]}, crash)

    report = build_cache(tmp_path / "photos", out, size=SIZE, workers=1)

    assert [f.name for f in report.failed] == [path.name for path in images[::2]] and report.cached == 8


# --- what a build costs -------------------------------------------------------------------------------------------


def test_a_worker_decodes_with_one_thread(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def counting(data: bytes, recipe: Recipe) -> Decoded:
        decoded = decode(data, recipe)
        threads = len(list(Path("/proc/self/task").iterdir()))
        return decoded._replace(notes=(f"{threads} threads",))

    monkeypatch.setattr(worker, "decode", counting)

    report = build_cache(photos, out, size=SIZE, workers=2)

    assert {note for _, note in report.inspection.notes} == {"1 threads"} and len(report.inspection.notes) == 8


def peak_memory(source: Path, out: Path) -> tuple[int, int]:
    """Build in a fresh process; return the peak of the parent and of the largest worker, in kB."""
    program = """if True:
        import resource, sys
        from pipeline import build_cache
        build_cache(sys.argv[1], sys.argv[2], size=512, workers=1)
        print(*(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
    """
    found = subprocess.check_output([sys.executable, "-c", program, source, out], cwd=REPOSITORY, text=True)
    parent, child = map(int, found.split())
    return parent, child


@pytest.mark.long
def test_peak_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    for seed in range(40):
        save_jpeg(tmp_path / "many" / "1" / f"{seed}.jpg", 60, 60, seed)
    for seed in range(4):
        save_jpeg(tmp_path / "few" / "1" / f"{seed}.jpg", 60, 60, seed)

    few = peak_memory(tmp_path / "few", tmp_path / "few.h5")
    many = peak_memory(tmp_path / "many", tmp_path / "many.h5")

    rows = (tmp_path / "many.h5").stat().st_size // 1024
    assert rows > 120_000
    for before, after in zip(few, many, strict=True):
        assert after - before < 15_000, (few, many)  # 36 more rows are 113,000 kB


def test_building_imports_no_torch_and_starts_at_once(shared_photos: Path, out: Path) -> None:
    program = (
        "import sys; from pipeline import build_cache; build_cache(sys.argv[1], sys.argv[2], size=16, workers=1); "
    )
    program += "assert not {'torch', 'click', 'torchvision', 'matplotlib'} & set(sys.modules)"

    subprocess.run([sys.executable, "-c", program, shared_photos, out], cwd=REPOSITORY, check=True)


def test_a_build_without_file_handles_says_so(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = files.open_for_writing

    def with_few_handles(path: Path) -> int:
        fd = real(path)
        resource.setrlimit(resource.RLIMIT_NOFILE, (fd + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        return fd

    monkeypatch.setattr(files, "open_for_writing", with_few_handles)

    with pytest.raises(WorkerDied, match="Too many open files") as died:
        build_cache(photos, out, size=SIZE, workers=1)
    assert died.value.exit_code == 71


@pytest.fixture(autouse=True)
def no_process_is_left_over() -> Iterator[None]:
    before = set(_children())
    yield
    assert set(_children()) <= before


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_the_photos_of_the_tests_are_the_same_every_time(shared_photos: Path, tmp_path: Path) -> None:
    again = make_photos(tmp_path / "again")

    for path in shared_photos.rglob("*.JPEG"):
        assert (again / path.relative_to(shared_photos)).read_bytes() == path.read_bytes()


def test_an_interrupted_build_waits_for_a_foreign_executor_to_end(photos: Path, out: Path) -> None:
    """Work that is begun writes rows; none may be written once the lock is given back."""
    running, writing = threading.Event(), []

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with concurrent.futures.ThreadPoolExecutor(2) as executor, pytest.MonkeyPatch.context() as patch:
        real = files.write_all

        def slow(fd: int, data: bytes | memoryview, offset: int) -> None:
            if threading.current_thread() is not threading.main_thread():
                writing.append(True)
                running.set()
                time.sleep(0.05)
            real(fd, data, offset)
            if threading.current_thread() is not threading.main_thread():
                writing.pop()

        patch.setattr(files, "write_all", slow)
        with pytest.raises(KeyboardInterrupt):
            build_cache(photos, out, size=SIZE, workers=2, executor=executor, progress=stop)
        assert running.is_set() and not writing, "rows are still being written"
        assert not any(future_is_waiting(executor))


def future_is_waiting(executor: concurrent.futures.ThreadPoolExecutor) -> list[bool]:
    return [True] * executor._work_queue.qsize()


def test_a_rebuild_that_was_interrupted_goes_on_when_it_is_asked_for_again(photos: Path, out: Path) -> None:
    build_cache(photos, out, size=SIZE, workers=1)
    whole = out.read_bytes()

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_cache(photos, out, size=SIZE, workers=1, executor=InThisProcess(), rebuild=True, progress=stop)
    report = build_cache(photos, out, size=SIZE, workers=1, rebuild=True)

    assert report.kept > 0 and report.kept + report.decoded == 8
    assert out.read_bytes() == whole


def test_a_cache_is_complete_even_where_its_stat_data_cannot_be_kept(photos: Path, out: Path) -> None:
    out.with_name(out.name + ".stat").mkdir()

    report = build_cache(photos, out, size=SIZE, workers=1)

    assert report.cached == 8 and TensorCache(out).num_images == 8
    assert [w for w in report.warnings if w.startswith("the next build will read every file again")]

"""A cache in shards, built here or by an executor (`build`, `choice`, `local`, `remote`, `report`, `features`)."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.build import worker
from pipeline.build.build import build_cache
from pipeline.build.features import write_features
from pipeline.build.lock import build_lock
from pipeline.build.report import BuildReport
from pipeline.build.task import Task
from pipeline.errors import CacheBusy, OutputError, SourceError, WorkerDied
from pipeline.format.features import Features
from pipeline.format.paths import shard_path
from pipeline.format.reader import CacheReader
from pipeline.inspect.info import check_source, describe_cache
from pipeline.inspect.plan import plan_build
from pipeline.inspect.verify import verify_cache
from pipeline.load.cache import TensorCache
from pipeline.recipe import Recipe
from pipeline.shards import build, local, remote
from pipeline.shards.build import build_shards
from pipeline.shards.choice import ShardChoice
from pipeline.shards.remote import build_shard, installed_decoders
from pipeline.source.partition import shard_of
from pipeline.source.scan import scan_source
from tests.support.builds import InThisProcess
from tests.support.photos import SIZE, save_jpeg


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.glob("*.h5")}


def inodes(folder: Path) -> dict[str, int]:
    return {file.name: file.stat().st_ino for file in folder.glob("*.h5")}


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "c.h5"


def test_a_set_is_built_and_says_so(photos: Path, out: Path) -> None:
    (photos / "1" / "broken.jpg").write_bytes(b"no image")
    (photos / "notes.txt").touch()
    seen: list[tuple[int, int]] = []

    report = build_shards(photos, out, 4, size=SIZE, workers=1, progress=lambda *at: seen.append(at))

    assert (report.cached, report.decoded, report.counts, report.shards, report.built) == (8, 8, [4, 4], 4, 4)
    assert [f.name for f in report.failed] == ["broken.jpg"] and report.left_out.total() == 1 and report.seen == 10
    assert seen[0] == (0, 9) and seen[-1] == (9, 9) and sorted(seen) == seen
    assert {file.name for file in out.parent.iterdir()} == {
        f"c-0000{index}-of-00004.h5{suffix}" for index in range(4) for suffix in ("", ".lock", ".stat")
    }
    shown = rf"{re.escape(str(out.parent))}/c-\*-of-00004.h5: 8 images in 4 shards, .* kB: 8 decoded in .* s, .*"
    assert re.fullmatch(shown, str(report).splitlines()[-1])
    assert report.file_bytes == sum(file.stat().st_size for file in out.parent.glob("*.h5"))
    for index in range(4):
        shard = CacheReader(shard_path(out, index, 4)).header.shard
        assert shard is not None and (shard.index, shard.count) == (index, 4)
    assert not list(verify_cache(out))


def test_a_set_is_up_to_date_after_it_was_built(photos: Path, out: Path) -> None:
    build_shards(photos, out, 4, size=SIZE, workers=1)
    before = inodes(out.parent)

    report = build_shards(photos, out, 4, size=SIZE, workers=1)

    assert report.up_to_date and report.built == 0 and inodes(out.parent) == before
    assert "is up to date; nothing was decoded" in str(report)


def test_only_shards_whose_images_changed_are_touched(photos: Path, out: Path) -> None:
    build_shards(photos, out, 4, size=SIZE, workers=1)
    before = inodes(out.parent)
    name = next(f"new{i}.jpg" for i in range(100) if shard_of(b"1", b"new%d.jpg" % i, 4) == 2)
    save_jpeg(photos / "1" / name, 40, 40, 77)

    assert check_source(out, photos) == "class 1: 1 added"
    report = build_shards(photos, out, 4, size=SIZE, workers=1)

    assert (report.decoded, report.built) == (1, 1)
    assert str(report).startswith("1 shard was out of date: class 1: 1 added\n")
    after = inodes(out.parent)
    assert [file for file in after if after[file] != before[file]] == ["c-00002-of-00004.h5"]
    build_shards(photos, out.with_name("new") / "c.h5", 4, size=SIZE, workers=1)
    assert contents(out.parent) == contents(out.with_name("new"))


def test_one_shard_built_alone_is_the_one_that_the_whole_build_makes(
    photos: Path, out: Path, shards_path: Path
) -> None:
    reports = [build_shards(photos, out, 4, only=index, size=SIZE, workers=1) for index in (2, 0, 3)]

    assert reports[0].cached == 3 and reports[0].path == shard_path(out, 2, 4)
    assert [report.missing for report in reports] == [3, 2, 1]
    assert ": 3 images, shard 2 of 4, " in str(reports[0])
    assert str(reports[-1]).splitlines()[-1] == "3 of 4 shards are there"
    report = build_shards(photos, out, 4, size=SIZE, workers=1)
    assert (report.built, report.decoded) == (1, 2)
    assert {name.replace("c-", "photos-"): data for name, data in contents(out.parent).items()} == contents(
        shards_path.parent
    )


def test_rows_per_shard_count_at_the_first_build_alone(photos: Path, out: Path) -> None:
    assert build_shards(photos, out, rows_per_shard=3, size=SIZE, workers=1).shards == 3
    save_jpeg(photos / "1" / "new.jpg", 40, 40, 77)
    save_jpeg(photos / "1" / "newer.jpg", 40, 40, 78)

    assert build_shards(photos, out, rows_per_shard=3, size=SIZE, workers=1).shards == 3


@pytest.mark.parametrize("rebuild", [False, True])
def test_another_number_of_shards_is_refused_and_the_set_is_kept(rebuild: bool, photos: Path, out: Path) -> None:
    build_shards(photos, out, 3, size=SIZE, workers=1)
    before = contents(out.parent)

    with pytest.raises(
        OutputError, match=r"there is a set of 3 shards of that name, .* Give --shards 3 or another --out"
    ):
        build_shards(photos, out, 2, size=SIZE, workers=1, rebuild=rebuild)

    assert contents(out.parent) == before


def test_a_shard_of_other_photographs_that_came_meanwhile_is_kept(
    photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_others(self: build.ShardsBuild) -> None:
        monkeypatch.undo()
        build_shards(tmp_path / "others", out, 2, only=1, size=SIZE, workers=1)

    for seed in range(8):
        save_jpeg(tmp_path / "others" / "1" / f"{seed}.jpg", 40, 40, 100 + seed)
    monkeypatch.setattr(build.ShardsBuild, "check_room", publish_others)

    with pytest.raises(OutputError, match=r"c-00001-of-00002\.h5: holds other photographs \(0 of \d shared\)"):
        build_shards(photos, out, 2, size=SIZE, workers=1)
    assert CacheReader(shard_path(out, 1, 2)).table("filenames")[0].endswith(b".jpg")


def test_a_shard_of_the_same_photographs_that_came_meanwhile_is_taken(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish(self: build.ShardsBuild) -> None:
        monkeypatch.undo()
        build_shards(photos, out, 2, only=1, size=SIZE, workers=1)

    monkeypatch.setattr(build.ShardsBuild, "check_room", publish)

    report = build_shards(photos, out, 2, size=SIZE, workers=1)

    assert (report.cached, report.decoded) == (8, 8 - CacheReader(shard_path(out, 1, 2)).num_images)


def test_a_set_and_a_single_cache_never_have_one_name(photos: Path, out: Path, tmp_path: Path) -> None:
    build_shards(photos, out, 3, only=1, size=SIZE, workers=1)
    build_cache(photos, tmp_path / "one.h5", size=SIZE, workers=1)

    with pytest.raises(OutputError, match=r"there is a cache of that name in 3 shards\. Give --shards 3"):
        build_cache(photos, out, size=SIZE, workers=1)
    with pytest.raises(OutputError, match="there is a cache of that name in one file"):
        build_shards(photos, tmp_path / "one.h5", 2, size=SIZE, workers=1)


def test_a_set_of_other_photographs_is_kept_unless_a_rebuild_is_asked_for(
    photos: Path, out: Path, tmp_path: Path
) -> None:
    build_shards(photos, out, 2, size=SIZE, workers=1)
    for seed in range(8):
        save_jpeg(tmp_path / "others" / "1" / f"{seed}.jpg", 40, 40, 100 + seed)

    with pytest.raises(OutputError, match=r"c-\*-of-00002.h5: holds other photographs \(0 of 8 shared\)"):
        build_shards(tmp_path / "others", out, 2, size=SIZE, workers=1)

    assert build_shards(tmp_path / "others", out, 2, size=SIZE, workers=1, rebuild=True).decoded == 8


def test_a_shard_may_lose_all_its_images(photos: Path, out: Path) -> None:
    build_shards(photos, out, 4, size=SIZE, workers=1)
    for class_id in ("1", "2"):
        for image in list((photos / class_id).iterdir()):
            if shard_of(class_id.encode(), image.name.encode(), 4) == 1:
                image.unlink()

    report = build_shards(photos, out, 4, size=SIZE, workers=1)

    assert (report.cached, report.built) == (6, 1) and CacheReader(shard_path(out, 1, 4)).num_images == 0


def test_a_source_of_which_nothing_decodes_leaves_nothing(tmp_path: Path, out: Path) -> None:
    (tmp_path / "photos" / "1").mkdir(parents=True)
    (tmp_path / "photos" / "1" / "a.jpg").write_bytes(b"no image")

    with pytest.raises(SourceError, match=r"none of its files could be decoded \(1 × not an image\)"):
        build_shards(tmp_path / "photos", out, 2, size=SIZE, workers=1)

    assert not out.parent.exists()


def test_a_shard_that_somebody_builds_is_named(photos: Path, out: Path) -> None:
    out.parent.mkdir()
    with build_lock(shard_path(out, 1, 2)), pytest.raises(CacheBusy, match=r"c-00001-of-00002\.h5: another build"):
        build_shards(photos, out, 2, size=SIZE, workers=1)

    assert build_shards(photos, out, 2, size=SIZE, workers=1).built == 1


def test_a_disk_too_small_for_all_shards_is_refused_before_any_is_built(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=300_000))

    with pytest.raises(OutputError, match=r"needs .* kB, 300.0 kB free"):
        build_shards(photos, out, 2, size=SIZE, workers=1)

    assert not out.parent.exists()


def test_a_stopped_build_goes_on_in_the_shard_where_it_was(
    photos: Path, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_row = worker._fill_row  # private: what is called for each image

    def fill_slowly(*arguments: Any) -> worker.Result:
        time.sleep(0.2)
        return fill_row(*arguments)

    monkeypatch.setattr(worker, "_fill_row", fill_slowly)
    monkeypatch.setattr(remote, "_LOOK_SECONDS", 0.02)

    def stop(count: int, total: int) -> None:
        if count >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_shards(photos, out, 2, size=SIZE, workers=1, progress=stop)
    monkeypatch.undo()
    report = build_shards(photos, out, 2, size=SIZE, workers=1)

    assert report.kept + report.decoded + 3 == 8 and report.kept >= 1
    build_shards(photos, tmp_path / "whole" / "c.h5", 2, size=SIZE, workers=1)
    assert contents(out.parent) == contents(tmp_path / "whole")


def test_four_shards_are_built_at_a_time(photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build_together(task: Task, wait: bool) -> BuildReport:
        task.path.touch()
        deadline = time.monotonic() + 20
        while len(list(out.parent.iterdir())) < local.AT_A_TIME:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        task.path.unlink()
        raise CacheBusy("all have begun", task.path)

    monkeypatch.setattr(local, "build_file", build_together)

    with pytest.raises(CacheBusy, match="all have begun"):
        build_shards(photos, out, local.AT_A_TIME, size=SIZE, workers=local.AT_A_TIME)


@pytest.mark.parametrize(
    ("workers", "shards", "at_a_time", "each"),
    [(1, 8, 1, 1), (2, 8, 2, 1), (4, 8, 4, 1), (6, 8, 3, 2), (7, 8, 3, 2), (8, 8, 4, 2), (10, 8, 2, 5), (8, 1, 1, 8)],
)
def test_shards_share_nearly_all_workers(workers: int, shards: int, at_a_time: int, each: int) -> None:
    assert local.share(workers, shards) == (at_a_time, each)


def test_a_build_whose_process_died_says_so_and_goes_on(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "build_file", lambda task, wait: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(WorkerDied, match="the executor broke"):
        build_shards(photos, out, 2, size=SIZE, workers=1)
    monkeypatch.undo()

    assert build_shards(photos, out, 2, size=SIZE, workers=1).decoded == 8


def test_damage_is_named_with_its_shard_and_mended_there(photos: Path, out: Path) -> None:
    build_shards(photos, out, 4, size=SIZE, workers=1)
    before, whole = inodes(out.parent), contents(out.parent)
    with shard_path(out, 2, 4).open("r+b") as file:
        file.seek(9000)
        file.write(b"\xff")

    [damage] = verify_cache(out)

    assert re.match(r".*c-00002-of-00004.h5: row 0 \(class .*\) is not as it was written", str(damage))
    report = build_shards(photos, out, 4, size=SIZE, workers=1)
    assert (report.built, report.decoded) == (1, 1) and contents(out.parent) == whole
    assert sum(inodes(out.parent)[name] != before[name] for name in before) == 1


def test_a_plan_says_how_many_shards_are_out_of_date(photos: Path, out: Path) -> None:
    choice = ShardChoice(4)
    assert "4 not there yet" in str(plan_build(photos, out, Recipe(size=SIZE), choice)).replace(": not", ": 4 not")
    build_shards(photos, out, 4, size=SIZE, workers=1)
    save_jpeg(photos / "1" / "new.jpg", 40, 40, 77)

    plan = plan_build(photos, out, Recipe(size=SIZE), choice)

    assert plan.state == "3 up to date; 1 out of date: class 1: 1 added" and plan.seconds > 0


def test_info_sums_up_a_set(shards_path: Path, cache_path: Path) -> None:
    info, one = describe_cache(shards_path), describe_cache(cache_path)

    assert str(info).startswith(f"{shards_path.parent}/photos-*-of-00004.h5: 8 images in 4 shards, ")
    assert (info.to_dict()["shards"], one.to_dict()["shards"]) == (4, None)
    assert (info.counts, info.fingerprint, info.inspection) == (one.counts, one.fingerprint, one.inspection)


def test_info_of_a_shard_says_which_it_is(shards_path: Path) -> None:
    path = shard_path(shards_path, 2, 4)
    info = describe_cache(path)

    assert str(info).startswith(f"{path}: 3 images, shard 2 of 4, ")
    assert (info.to_dict()["shards"], info.to_dict()["shard"]) == (4, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((None, None), "the number of shards is needed"),
        ((2, 3), "not both"),
        ((0, None), "1 or more, not 0"),
        ((100_000, None), "at most 99999 shards, not 100000"),
        ((4, None, 4), "a shard of 4 is 0 to 3, not 4"),
    ],
)
def test_impossible_shards_are_refused(values: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ShardChoice(*values)


@pytest.mark.parametrize("typed", ["3", "a/4", "4/4", "-1/4", "1/0", "1/2/3", ""])
def test_a_shard_is_typed_as_its_number_and_how_many_there_are(typed: str) -> None:
    assert ShardChoice.of(None, None, "3/64") == ShardChoice(64, None, 3)
    with pytest.raises(ValueError, match=r"as in 3/64|a shard of 4 is 0 to 3|1 or more|has at most"):
        ShardChoice.of(None, None, typed)


# --- by the workers of an executor ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_any_executor_builds_the_same_bytes(
    make: Callable[[int], Executor], photos: Path, out: Path, shards_path: Path
) -> None:
    seen: list[tuple[int, int]] = []

    with make(2) as executor:
        report = build_shards(photos, out, 4, size=SIZE, executor=executor, progress=lambda *at: seen.append(at))

    assert {name.replace("c-", "photos-"): data for name, data in contents(out.parent).items()} == contents(
        shards_path.parent
    )
    assert report.decoded == 8 and seen[-1] == (8, 8) and sorted(seen) == seen
    assert sum(worker.shards for worker in report.workers) == 4 and sum(w.decoded for w in report.workers) == 8
    assert re.search(r"^worker .*:\d+: \d shards?, \d decoded in .* s, [\d.]+ images/s$", str(report), re.MULTILINE)


def test_what_a_worker_meets_is_told_with_its_name(photos: Path, out: Path) -> None:
    with pytest.raises(SourceError, match=r"it does not see .*/gone \(worker .*:\d+\)") as error:
        _built_elsewhere(photos, out, manifest=replace(scan_source(photos), root=photos / "gone"))
    assert error.value.exit_code == 66
    here = scan_source(photos)
    (photos / "empty").mkdir()  # as a file system that is not mounted leaves its folder
    with pytest.raises(SourceError, match=r"it does not see .*\.JPEG \(worker .*:\d+\)"):
        _built_elsewhere(photos, out, manifest=replace(here, root=photos / "empty"))
    (photos / "empty").rmdir()
    with pytest.raises(WorkerDied, match=r"its installation decodes to other pixels, .* \(worker .*:\d+\)"):
        _built_elsewhere(photos, out, decoder=installed_decoders() | {"PNG": "0" * 32})
    with pytest.raises(OutputError, match=r"Not a directory|File exists"):
        (out.parent).parent.joinpath("file").touch()
        _built_elsewhere(photos, out, path=out.parent.parent / "file" / "c.h5")


def _built_elsewhere(photos: Path, out: Path, **changed: Any) -> None:
    started = build.ShardsBuild(photos, scan_source(photos), out, Recipe(size=SIZE), ShardChoice(2))
    started.refuse()
    out.parent.mkdir(exist_ok=True)
    task = started.task(1)
    for name, value in ({"decoder": installed_decoders()} | changed).items():
        object.__setattr__(task, name, value)
    build_shard(task)


def test_a_process_that_is_killed_is_told_by_its_signal(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "_MAIN", "import os; os.kill(os.getpid(), 9)")

    with pytest.raises(WorkerDied, match=r"its process ended with signal 9 \(worker"):
        _built_elsewhere(photos, out)

    monkeypatch.setattr(remote, "_MAIN", "raise ImportError('no such thing')")
    with pytest.raises(WorkerDied, match=r"ended with exit code 1 \(ImportError: no such thing\) \(worker"):
        _built_elsewhere(photos, out)


def test_an_executor_that_fails_is_told_and_the_next_build_goes_on(photos: Path, out: Path) -> None:
    class Failing(InThisProcess):
        def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
            if arguments[0].shard.index == 2:
                return super().submit(int, "no number")
            return super().submit(function, *arguments, **options)

    with pytest.raises(WorkerDied, match=r"c-00002-of-00004.h5: a worker failed: ValueError: invalid literal"):
        build_shards(photos, out, 4, size=SIZE, executor=Failing())

    assert build_shards(photos, out, 4, size=SIZE, workers=1).built < 4


def test_a_shard_that_a_worker_published_elsewhere_is_told(
    photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnAnotherDisk(InThisProcess):
        def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
            future = super().submit(function, *arguments, **options)
            arguments[0].path.unlink()
            return future

    monkeypatch.setattr(remote, "_SEEN_SECONDS", 0)
    with pytest.raises(
        OutputError, match=r"worker .* has published it, and it is not seen here. Workers need the same"
    ):
        build_shards(photos, out, 2, only=1, size=SIZE, executor=OnAnotherDisk())


# --- as it is typed ------------------------------------------------------------------------------------------------


def test_shards_on_the_command_line(run_cli: Any, photos: Path, tmp_path: Path) -> None:
    built = run_cli("build-cache", photos, "--size", str(SIZE), "--shards", "2", "-j", "1")
    alone = run_cli("build-cache", photos, "--size", str(SIZE), "--shard", "1/2")
    verified = run_cli("verify", *sorted((tmp_path / "data" / "cache").glob("*.h5")))

    assert (built.code, alone.code, verified.code) == (0, 0, 0), built.stderr + alone.stderr
    assert "data/cache/photos-*-of-00002.h5: 8 images in 2 shards" in built.stdout
    assert "data/cache/photos-00001-of-00002.h5" in alone.stdout and "is up to date" in alone.stdout
    assert verified.stdout == "every row and table is as it was built\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shard", "2/2"], "a shard of 2 is 0 to 1, not 2"),
        (["--shard", "1/2", "--shards", "2", "--rows-per-shard", "4"], "leave out --shards and --rows-per-shard"),
        (["--shards", "2", "--rows-per-shard", "4"], "not both"),
        (["--engine", "dask", "--shards", "2"], "--engine dask and --scheduler ADDRESS go together"),
        (["--scheduler", "tcp://x:1", "--engine", "dask"], "--engine dask builds shards; give --shards"),
    ],
)
def test_options_that_do_not_go_together_are_a_usage_error(options: list[str], message: str) -> None:
    from click.testing import CliRunner

    from cli import cli

    ended = CliRunner().invoke(cli, ["build-cache", "photos", *options])

    assert ended.exit_code == 2 and message in " ".join(ended.output.split())


def test_shards_of_an_archive_are_those_of_the_folder(photos: Path, out: Path, shards_path: Path) -> None:
    archive = Path(shutil.make_archive(str(photos.with_name("archive")), "zip", photos))

    with ThreadPoolExecutor(2) as executor:
        build_shards(archive, out.with_name("photos.h5"), 4, size=SIZE, executor=executor)

    assert contents(out.parent) == contents(shards_path.parent)


def features_of(cache: TensorCache, path: Path) -> bytes:
    def rows_of(first: int, end: int) -> Any:
        return cache.read(torch.arange(first, end)).flatten(1)[:, :200].numpy()

    write_features(cache.reader, path, Features("sum", "none", 200, "0" * 64, cache.fingerprint), rows_of)
    return path.read_bytes()


def test_features_of_a_set_are_those_of_a_single_cache(shards_path: Path, cache_path: Path, tmp_path: Path) -> None:
    many = features_of(TensorCache(shards_path), tmp_path / "many.h5")

    assert many == features_of(TensorCache(cache_path), tmp_path / "one.h5")


def test_an_executor_that_was_shut_down_has_no_workers(photos: Path, out: Path) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()

    with pytest.raises(WorkerDied, match=r"no workers any more\. Start workers\. Run build-cache again"):
        build_shards(photos, out, 2, size=16, executor=executor)

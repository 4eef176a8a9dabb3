"""Power cuts among the file operations of a build: whatever the disk then holds, nothing wrong is ever accepted.

Builds are recorded (from nothing, bringing an old cache up to date, going on after a cut); then, thousands of times,
a moment is chosen, a state that the disk may be in is laid out (see `disk`), the cache in it is opened, and the build
goes on.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.build.build import build_cache
from pipeline.build.image_table import DONE, ImageTable
from pipeline.build.partial import PartialBuild
from pipeline.errors import PipelineError
from pipeline.format.reader import CacheReader
from pipeline.source import reader
from pipeline.system import files
from tests.soak.disk import Recorder, after_power_cut, recording
from tests.soak.trees import content, left_over, plant, plant_changed
from tests.support.builds import InThisProcess

IMAGES = 9


class Recorded(NamedTuple):
    """A build that the power may be cut in."""

    source: Path
    recorder: Recorder
    old: bytes | None
    expected: bytes


def build(source: Path, cache: Path) -> Any:
    return build_cache(source, cache, size=8, executor=InThisProcess(), workers=1)


def lay_out(folder: Path, state: dict[str, int | bytes]) -> Path:
    """Write a state of the disk into a folder of its own; return the cache's path."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    names = list(state)
    for name, data in state.items():
        if isinstance(data, bytes):
            (folder / name).write_bytes(data)
    for name, data in state.items():
        if isinstance(data, int):
            os.link(folder / names[data], folder / name)
    return folder / "c.h5"


def record(workspace: Path, leave_out: str = "") -> list[Recorded]:
    """Record builds from nothing, after a change, of another recipe, and of an unfinished one of each."""
    before = plant(workspace / "before", IMAGES, side=8)
    after = plant_changed(workspace / "after", before)
    rng = random.Random(0)
    found: list[Recorded] = []
    start: dict[str, int | bytes] = {}
    for source in (before, after):
        found.append(_record_one(workspace, source, start, leave_out))
        recorder = found[-1].recorder
        for _ in range(3):
            middle = rng.randrange(len(recorder.operations) // 2, len(recorder.operations))
            unfinished = after_power_cut(recorder, middle, rng)
            if leave_out == "":
                found.append(_record_one(workspace, source, unfinished, ""))
        start = {"c.h5": found[0].expected}
    return found


def _record_one(workspace: Path, source: Path, start: dict[str, int | bytes], leave_out: str) -> Recorded:
    cache = lay_out(workspace / "recorded", start)
    old = content(cache)
    with recording(cache.parent, leave_out) as recorder:
        build(source, cache)
    return Recorded(source, recorder, old, cache.read_bytes())


def look_and_resume(recorded: Recorded, cache: Path, figures: Counter[str]) -> list[str]:
    """Open what is there, let the build go on, and return what went wrong."""
    wrong = []
    there = content(cache)
    if there not in (None, recorded.old, recorded.expected):
        wrong.append("neither the old cache nor the new one")
    try:
        CacheReader(cache).close()
    except PipelineError:
        if there is not None:
            wrong.append("a cache that cannot be opened")
    try:
        report = build(recorded.source, cache)
    except PipelineError as error:
        return [*wrong, f"the build did not go on: {error}"]
    if content(cache) != recorded.expected:
        wrong.append("other bytes than an undisturbed build")
    if left_over(cache):
        wrong.append(f"left over: {left_over(cache)}")
    state = "new" if there == recorded.expected else "old" if there else "no"
    figures[state] += 1
    figures["kept"] += report.kept
    return wrong


def cut(workspace: Path, recordings: list[Recorded], cuts: int) -> tuple[list[str], Counter[str]]:
    """Cut the power so often; return what went wrong, and figures."""
    rng = random.Random(2)
    figures, wrong = Counter[str](), []
    for number in range(cuts):
        recorded = recordings[number % len(recordings)]
        moment = rng.randint(0, len(recorded.recorder.operations))
        cache = lay_out(workspace / "cut", after_power_cut(recorded.recorder, moment, rng))
        found = look_and_resume(recorded, cache, figures)
        wrong += [f"cut {number} after operation {moment}: {', '.join(found)}"] if found else []
    return wrong, figures


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let sources that were written just now count as settled, so that journals are taken at their word."""
    monkeypatch.setattr(reader, "_SETTLES_NS", -(10**9))


def test_no_power_cut_leaves_anything_wrong(count: Callable[[int, int], int], workspace: Path) -> None:
    recordings = record(workspace)
    assert {r.expected for r in recordings if r.source.name == "before"} == {recordings[0].expected}

    cuts = count(10_000, 100)
    wrong, figures = cut(workspace, recordings, cuts)

    print(
        f"\npower cuts: {cuts - len(wrong)} of {cuts} right, {len(wrong)} accepted and wrong; found the new cache "
        f"{figures['new']} times, the old one {figures['old']}, none {figures['no']}; {figures['kept']} rows kept"
    )
    assert not wrong, "\n".join(wrong[:10])
    assert min(figures["new"], figures["old"], figures["no"], figures["kept"]) > 0


def test_without_the_sync_before_the_rename_the_suite_sees_it(workspace: Path) -> None:
    recordings = record(workspace, leave_out="sync")
    wrong, _ = cut(workspace, recordings, 100)

    assert any("neither the old cache nor the new one" in what for what in wrong)


def test_with_a_journal_that_is_believed_unchecked_the_suite_sees_it(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def believe(self: PartialBuild, images: ImageTable, image: int, found: object) -> None:
        self.places[image] = image
        images.state[image] = DONE

    recordings = record(workspace)
    monkeypatch.setattr(PartialBuild, "_take_place", believe)
    wrong, _ = cut(workspace, recordings, 100)

    assert any("other bytes" in what for what in wrong)


def test_the_recorder_sees_every_byte_that_a_build_writes(workspace: Path) -> None:
    recorded = _record_one(workspace, plant(workspace / "before", IMAGES, side=8), {}, "")
    state = after_power_cut(recorded.recorder, len(recorded.recorder.operations), random.Random(0))

    assert state["c.h5"] == recorded.expected
    assert files.write_all.__module__ == "pipeline.system.files"

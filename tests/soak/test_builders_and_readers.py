"""Many builders of one cache at once, and readers while it is rebuilt: one builds, nobody reads anything wrong."""

import json
import os
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.build.build import build_cache
from pipeline.build.lock import build_lock
from pipeline.errors import CacheBusy
from pipeline.load.cache import TensorCache
from tests.soak.builders import Builders
from tests.soak.trees import content, jpeg, left_over, plant
from tests.support.builds import InThisProcess

BUILDERS = 8
READERS = 4
IMAGES = 24


def race(
    builders: Builders, source: Path, cache: Path, expected: bytes, **order: Any
) -> tuple[list[str], Counter[str]]:
    """Start builders of one cache at once, half of which wait for others; return what went wrong, and figures."""
    shutil.rmtree(cache.parent, ignore_errors=True)
    cache.parent.mkdir()
    common = {"source": str(source), "path": str(cache), "workers": 2, **order}
    answers = builders.run(*(common | {"wait": number % 2 == 0} for number in range(BUILDERS)))
    wrong, figures, decoded = [], Counter[str](), 0
    pids = {answer["pid"] for answer in answers}
    for number, answer in enumerate(answers):
        if answer["code"] == 75:
            holder = re.search(
                r"another build(?: \(pid (\d+) on \S+, since [-0-9]+ [:0-9]+\))? is running", answer["said"]
            )
            if not holder or number % 2 == 0 or (holder[1] and int(holder[1]) not in pids):
                wrong.append(f"turned away with: {answer['said']}")
            figures["turned away"] += 1
            figures["told by whom"] += bool(holder and holder[1])
        elif answer["code"] != 0:
            wrong.append(f"failed with {answer['code']}: {answer['said']}")
        else:
            decoded += answer["decoded"]
            figures["found it fresh" if answer["up_to_date"] else "built"] += 1
    if decoded != IMAGES:
        wrong.append(f"{decoded} images were decoded, of {IMAGES}")
    if content(cache) != expected:
        wrong.append("other bytes than a lone build")
    if left_over(cache):
        wrong.append(f"left over: {left_over(cache)}")
    return wrong, figures


def test_of_many_builders_at_once_one_builds(
    count: Callable[[int, int], int], workspace: Path, builders: Builders
) -> None:
    source = plant(workspace / "source", IMAGES)
    build_cache(source, workspace / "alone.h5", size=8, executor=InThisProcess())
    expected = (workspace / "alone.h5").read_bytes()
    rounds, figures, wrong = count(50, 3), Counter[str](), []
    for number in range(rounds):
        found, counted = race(builders, source, workspace / "race" / "c.h5", expected)
        figures += counted
        wrong += [f"round {number}: {what}" for what in found]
    print(
        f"\nbuilders: {rounds} × {BUILDERS} at once, {figures['built']} built, {figures['found it fresh']} found it "
        f"fresh, {figures['turned away']} turned away ({figures['told by whom']} told by whom), {len(wrong)} wrong"
    )
    assert not wrong, "\n".join(wrong[:20])
    assert figures["built"] == rounds
    assert figures["told by whom"] > 0


def test_without_the_lock_the_suite_sees_it(workspace: Path, builders: Builders) -> None:
    source = plant(workspace / "source", IMAGES)
    build_cache(source, workspace / "alone.h5", size=8, executor=InThisProcess())
    expected = (workspace / "alone.h5").read_bytes()
    for _ in range(5):
        wrong, _ = race(builders, source, workspace / "race" / "c.h5", expected, without="the lock")
        if wrong:
            return
    pytest.fail("nothing went wrong in five rounds without a lock")


def test_a_second_builder_is_told_who_builds_since_when(workspace: Path) -> None:
    source, cache = plant(workspace / "source", IMAGES), workspace / "c.h5"
    with build_lock(cache), pytest.raises(CacheBusy, match=rf"another build \(pid {os.getpid()} on .+, since .+\)"):
        build_cache(source, cache, size=8, executor=InThisProcess())


def read_until(stop: Path, cache: Path, right: list[bytes], say: int) -> None:
    """Open and read a cache again and again; the one opened first is kept, and read again at the end."""
    torch.set_num_threads(1)
    first = TensorCache(cache, verify="always")
    found, wrong = Counter[str](), []
    what = read(first)
    while not stop.exists():
        try:
            rows = read(TensorCache(cache))
            found[str(right.index(rows)) if rows in right else "neither"] += 1
        except Exception as error:  # whatever it is, it is wrong
            wrong.append(f"{type(error).__name__}: {error}")
        if read(first) != what:
            wrong.append("the cache that was opened first has changed")
    with os.fdopen(say, "w") as file:
        json.dump({"found": found, "wrong": wrong[:5]}, file)


def read(cache: TensorCache) -> bytes:
    rows = cache.read(torch.arange(cache.num_images)).numpy().tobytes()
    return rows + repr((list(cache.filenames), cache.labels.tolist(), cache.class_ids)).encode()


def test_readers_see_the_old_cache_or_the_new_one_while_it_is_rebuilt(
    count: Callable[[int, int], int], workspace: Path, builders: Builders
) -> None:
    sources = [plant(workspace / f"source-{number}", IMAGES) for number in range(2)]
    (sources[1] / "2" / "0001.jpg").write_bytes(jpeg(77))
    (sources[1] / "3" / "0002.jpg").unlink()
    right = []
    for number, source in enumerate(sources):
        build_cache(source, workspace / f"{number}.h5", size=8, executor=InThisProcess())
        right.append(read(TensorCache(workspace / f"{number}.h5")))
    cache, stop = workspace / "c.h5", workspace / "stop"
    shutil.copy(workspace / "0.h5", cache)
    readers = []
    for _ in range(READERS):
        answer, say = os.pipe()
        if not (pid := os.fork()):
            try:
                read_until(stop, cache, right, say)
            finally:
                os._exit(0)
        os.close(say)
        readers.append((pid, answer))
    time.sleep(0.2)
    rebuilds, rng, reads, wrong = count(50, 4), random.Random(7), Counter[str](), []
    for number in range(1, rebuilds + 1):
        (built,) = builders.run({"source": str(sources[number % 2]), "path": str(cache), "workers": 2})
        wrong += [] if built["code"] == 0 and not built["up_to_date"] else [f"rebuild {number}: {built}"]
        time.sleep(rng.random() / 20)
    stop.touch()
    for pid, answer in readers:
        os.waitpid(pid, 0)
        with os.fdopen(answer) as file:
            outcome = json.loads(file.read())
        reads.update(outcome["found"])
        wrong += outcome["wrong"]
    print(
        f"\nreaders: {READERS} during {rebuilds} rebuilds, {reads['0']} times read the one cache, {reads['1']} the "
        f"other, {reads['neither']} neither, {len(wrong)} wrong"
    )
    assert not wrong, "\n".join(wrong[:20])
    assert reads["neither"] == 0
    assert min(reads["0"], reads["1"]) > 0


def test_a_file_rewritten_in_place_is_seen_by_the_readers(workspace: Path) -> None:
    """The control of the test above: without a rename, an open cache changes under its reader."""
    source, cache = plant(workspace / "source", IMAGES), workspace / "c.h5"
    build_cache(source, cache, size=8, executor=InThisProcess())
    opened = TensorCache(cache, verify="off")
    before = read(opened)
    with cache.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 64)
    assert read(opened) != before

"""Builds killed at any moment: the next one goes on where they stopped, and ends with the same bytes.

Kills are placed by progress: at a row (in a worker: before it, with half of it written, with all of it) or at a file
operation of the parent (before, in the middle, after), in a build from nothing, in one that brings an old cache up to
date, and in builds that go on after a kill. Half of them hit the whole process group, a quarter the parent alone, a
quarter one worker.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.build.build import build_cache
from pipeline.build.journal import read_journal
from tests.soak.builders import Builders
from tests.soak.trees import content, left_over, plant, plant_changed
from tests.support.builds import InThisProcess

REPOSITORY = Path(__file__).resolve().parent.parent.parent
IMAGES = 30
VICTIMS = ("group", "group", "parent", "worker")


class Setting(NamedTuple):
    """What a round starts from, and must end with."""

    source: Path
    old: Path | None
    expected: bytes
    operations: list[str]  # of the parent, in an undisturbed build

    @property
    def publishing(self) -> int:
        """The parent's first operation after the last row."""
        return len(self.operations) - 1 - self.operations[::-1].index("append_all") + 1


@pytest.fixture
def settings(workspace: Path, builders: Builders) -> list[Setting]:
    before = plant(workspace / "before", IMAGES)
    after = plant_changed(workspace / "after", before)
    old = workspace / "old.h5"
    build_cache(before, old, size=8, executor=InThisProcess())
    found = []
    for source, start in ((before, None), (after, None), (after, old)):
        whole = workspace / "whole" / "c.h5"
        whole.parent.mkdir()
        if start:
            shutil.copy(start, whole)
        (answer,) = builders.run({"source": str(source), "path": str(whole), "workers": 2})
        assert answer["code"] == 0, answer
        found.append(Setting(source, start, whole.read_bytes(), answer["operations"]))
        shutil.rmtree(whole.parent)
    assert found[1].expected == found[2].expected
    return found


def moments(setting: Setting, who: str, rng: random.Random) -> dict[str, Any]:
    """Choose where a kill hits; nine in ten before the last row is done."""
    stage = rng.choice(["before", "half", "after"])
    if who == "worker" or rng.random() < 0.55:
        return {"who": who, "row": rng.randrange(IMAGES - 1), "stage": stage}
    if rng.random() < 0.8:
        return {"who": who, "operation": rng.randrange(setting.publishing), "stage": stage}
    return {"who": who, "operation": rng.randrange(setting.publishing, len(setting.operations)), "stage": stage}


def during_the_build(setting: Setting, moment: dict[str, Any]) -> bool:
    return "row" in moment or moment["operation"] < setting.publishing


def kill_and_resume(
    builders: Builders, setting: Setting, cache: Path, kills: list[dict[str, Any]], figures: Counter[str]
) -> list[str]:
    """Do one round; return what went wrong."""
    shutil.rmtree(cache.parent, ignore_errors=True)
    cache.parent.mkdir()
    if setting.old:
        shutil.copy(setting.old, cache)
    old = content(cache)
    order = {"source": str(setting.source), "path": str(cache), "workers": 3}
    wrong = []
    for kill in kills:
        (answer,) = builders.run(order | kill)
        figures["killed"] += answer["killed"] or kill["who"] == "worker"
        if answer["orphans"]:
            wrong.append(f"{answer['orphans']} orphans")
        if kill["who"] == "worker" and (answer["code"] != 0 or answer["transient"]):
            wrong.append(f"the build did not go on without a worker: {answer}")
        if content(cache) not in (old, setting.expected):
            wrong.append("a partial file under the final name")
    journal = cache.with_name("c.h5.journal")
    unpublished = content(cache) != setting.expected
    finished = {(e.folder, e.name) for e in read_journal(journal) if not e.reason} if journal.exists() else set()
    (answer,) = builders.run(order | {key: kill[key] for kill in kills for key in kill if key == "without"})
    if answer["code"] or answer["orphans"]:
        return [*wrong, f"the resumed build failed: {answer}"]
    if unpublished and answer["kept"] != len(finished):
        wrong.append(f"{len(finished)} images were finished, {answer['kept']} kept")
    if not unpublished and not answer["up_to_date"]:
        wrong.append("a published cache was built again")
    if content(cache) != setting.expected:
        wrong.append("other bytes than an undisturbed build")
    if left_over(cache):
        wrong.append(f"left over: {left_over(cache)}")
    figures["kept"] += answer["kept"]
    return wrong


def test_killed_builds_resume_to_the_same_bytes(
    count: Callable[[int, int], int], workspace: Path, builders: Builders, settings: list[Setting]
) -> None:
    rng = random.Random(1)
    rounds, figures, wrong = count(1000, 12), Counter[str](), []
    for number in range(rounds):
        setting = settings[number % len(settings)]
        kill = moments(setting, VICTIMS[number % len(VICTIMS)], rng)
        kills = [kill]
        if number % 5 == 4:  # and the build that goes on is killed too
            kills.append({"who": "group", "operation": rng.randrange(len(setting.operations)), "stage": "half"})
        figures["during"] += during_the_build(setting, kill)
        found = kill_and_resume(builders, setting, workspace / "round" / "c.h5", kills, figures)
        wrong += [f"round {number}, {kills}: {', '.join(found)}"] if found else []
    print(
        f"\nkills: {rounds - len(wrong)} of {rounds} resumed byte-identical, {len(wrong)} wrong; "
        f"{figures['killed']} processes killed, {100 * figures['during'] // rounds} % of the rounds during the build; "
        f"{figures['kept']} finished images kept"
    )
    assert not wrong, "\n".join(wrong[:10])
    assert figures["during"] >= 0.9 * rounds


@pytest.mark.parametrize(
    ("protection", "kill", "seen"),
    [
        ("death with the parent", {"who": "parent", "row": 20, "stage": "after", "patience": 0.5}, "orphans"),
        ("the journal", {"who": "group", "operation": "second append_all", "stage": "after"}, "kept"),
        ("the name aside", {"who": "group", "row": 20, "stage": "after"}, "partial file"),
    ],
)
def test_the_suite_sees_a_missing_protection(
    protection: str,
    kill: dict[str, Any],
    seen: str,
    workspace: Path,
    builders: Builders,
    settings: list[Setting],
) -> None:
    if "operation" in kill:  # the first one begins the journal, the second notes finished rows
        first = settings[0].operations.index("append_all")
        kill = kill | {"operation": settings[0].operations.index("append_all", first + 1)}
    cache = workspace / "round" / "c.h5"
    wrong = kill_and_resume(builders, settings[0], cache, [kill | {"without": protection}], Counter())

    assert any(seen in what for what in wrong), wrong


def test_a_signal_at_any_moment_ends_the_command_in_one_line(
    count: Callable[[int, int], int], workspace: Path, builders: Builders, settings: list[Setting]
) -> None:
    rng = random.Random(6)
    cache = workspace / "round" / "c.h5"
    command = ["build-cache", str(settings[0].source), "--out", str(cache), "--size", "8", "-j", "2"]
    start = time.monotonic()
    builders.run({"command": command})
    whole = time.monotonic() - start
    rounds, ended, wrong = count(500, 6), Counter[int](), []
    for _ in range(rounds):
        shutil.rmtree(cache.parent)
        number, who = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.choice(["group", "parent"])
        stop = {"signal": number, "who": who, "seconds": rng.random() * whole}
        (answer,) = builders.run({"command": command} | stop)
        ended[answer["code"]] += 1
        says = {130: "error: interrupted.", 143: "error: terminated."}.get(answer["code"], "")
        early = answer["code"] == -signal.SIGTERM  # it came before the command had begun
        if answer["code"] == 1 and "KeyboardInterrupt" in answer["said"] and "in _run\n" not in answer["said"]:
            early, answer["said"] = True, ""
        if (answer["code"] not in (0, {2: 130, 15: 143}[number]) and not early) or answer["orphans"]:
            wrong.append(answer)
        if not answer["said"].strip().startswith(says) or answer["said"].strip().count("\n"):
            wrong.append(answer)
        (answer,) = builders.run({"source": str(settings[0].source), "path": str(cache), "workers": 2})
        if answer["code"] or content(cache) != settings[0].expected or left_over(cache):
            wrong.append(answer)
    print(f"\nsignals: {rounds} sent, {ended[130]} interrupted, {ended[143]} terminated, {len(wrong)} wrong")
    assert not wrong, wrong[:5]


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated"), (signal.SIGKILL, -9, "")],
)
def test_a_stopped_command_ends_in_one_line_and_continues_when_rerun(
    number: signal.Signals, code: int, says: str, workspace: Path
) -> None:
    source, cache = plant(workspace / "source", 24, side=700), workspace / "out" / "c.h5"
    whole = workspace / "whole.h5"
    build_cache(source, whole, size=8)
    command = [sys.executable, str(REPOSITORY / "cli.py"), "build-cache", str(source), "--out", str(cache)]
    command += ["--size", "8", "-j", "2"]

    running = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0)
    journal = cache.with_name("c.h5.journal")
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (content(journal) or b"").count(b"\n") < 4:
        time.sleep(0.002)
    os.killpg(running.pid, number)
    stdout, stderr = running.communicate(timeout=60)

    assert (running.returncode, stdout) == (code, "")
    assert stderr.strip() == (f"error: {says}. Run the same command again to continue" if says else "")
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    while again.returncode == 75 and time.monotonic() < deadline:  # a killed worker may hold the lock for a moment
        again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (again.returncode, again.stderr) == (0, "")
    assert "kept from the unfinished build" in again.stdout
    assert content(cache) == content(whole)
    assert left_over(cache) == []

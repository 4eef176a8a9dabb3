"""Caches with bytes that are not as they were written: refused, or read right; never wrong in silence, never a crash.

The mutants are read in forked children, each under a time limit, so that a crash or a hang is a finding like any other.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.build.build import build_cache
from pipeline.format.reader import CacheReader
from pipeline.load.cache import TensorCache
from tests.soak.mutants import Answer, examine, flip_bits, read_all
from tests.soak.trees import plant
from tests.support.builds import InThisProcess


@pytest.fixture
def originals(workspace: Path) -> list[tuple[bytes, Answer]]:
    source = plant(workspace / "source", 6, side=8)
    found = []
    for dtype in ("float32", "uint8"):
        path = workspace / f"{dtype}.h5"
        build_cache(source, path, size=12, dtype=dtype, executor=InThisProcess())
        found.append((path.read_bytes(), read_all(path)))
    return found


def test_no_mutant_is_read_wrong_or_breaks_its_reader(
    count: Callable[[int, int], int], originals: list[tuple[bytes, Answer]], workspace: Path
) -> None:
    mutants = count(100_000, 500)
    figures, wrong = examine(originals, range(mutants), workspace)

    print(f"\nmutants: {mutants} read, {figures['refused']} refused, {figures['right']} right, {len(wrong)} wrong")
    assert not wrong, "\n".join(wrong[:20])
    assert figures["right"] and figures["refused"] > mutants / 2


def _no_digest() -> None:
    CacheReader._check_digest = lambda self: None  # type: ignore[method-assign]


def _no_row_hash() -> None:
    TensorCache._has_unchecked = lambda self, rows: False  # type: ignore[method-assign]


@pytest.mark.parametrize(
    ("prepare", "seen"),
    [(_no_digest, "sources"), (_no_row_hash, "rows")],
    ids=["the digest", "the row hashes"],
)
def test_without_one_of_the_checks_the_suite_sees_it(
    prepare: Callable[[], None], seen: str, originals: list[tuple[bytes, Answer]], workspace: Path
) -> None:
    _, wrong = examine(originals, range(400), workspace, mutate=flip_bits, prepare=prepare)

    assert any("in silence" in what and seen in what for what in wrong), wrong[:5]


def test_a_reader_that_hangs_or_crashes_is_seen(originals: list[tuple[bytes, Answer]], workspace: Path) -> None:
    _, wrong = examine(originals, range(3), workspace, prepare=lambda: os.kill(os.getpid(), signal.SIGKILL))

    assert "hung or crashed" in wrong[0]

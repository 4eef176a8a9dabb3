"""Rows of an unfinished build: moved within its file, and found by their hash (`partial`, `journal`)."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.build.partial import PartialBuild, _Rows
from pipeline.format.header import IMAGES_OFFSET
from pipeline.recipe import Recipe
from pipeline.system import files

ROWS = 12
RECIPE = Recipe(size=2, dtype="uint8")


@pytest.mark.parametrize("seed", range(20))
def test_rows_that_move_are_whole_somewhere_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    random = np.random.default_rng(seed)
    unfinished = PartialBuild(tmp_path / "c.h5", RECIPE)
    unfinished.fd = files.create(tmp_path / "rows")
    width = RECIPE.row_bytes
    before = [bytes([row + 1]) * width for row in range(ROWS)]
    files.write_all(unfinished.fd, b"".join(before), IMAGES_OFFSET)
    count = int(random.integers(1, ROWS + 1))
    sources, targets = (random.permutation(ROWS)[:count].astype(np.int64) for _ in range(2))
    wanted = {before[row] for row in sources}
    real = files.write_all

    def stored() -> list[bytes]:
        data = files.read_at(unfinished.fd, os.fstat(unfinished.fd).st_size, IMAGES_OFFSET)
        return [data[start : start + width] for start in range(0, len(data), width)]

    def half_written(fd: int, data: bytes, offset: int) -> None:
        real(fd, b"?" * len(data), offset)
        assert wanted <= set(stored()), "killed here, the build would have lost a row"
        real(fd, data, offset)

    monkeypatch.setattr(files, "write_all", half_written)
    unfinished._move(sources, targets)

    assert [stored()[target] for target in targets] == [before[source] for source in sources]
    unfinished.close()


def test_rows_of_a_hash_are_given_out_once_each() -> None:
    rows = _Rows(np.array([7, 2**64 - 1, 7, 3], np.uint64))

    assert [rows.take(np.uint64(one)) for one in (7, 3, 7, 7, 5, 2**64 - 1, 2**64 - 1, 0)] == [
        0,
        3,
        2,
        None,
        None,
        1,
        None,
        None,
    ]

"""How often a comparison claims a difference: between trainings of the same options, and where there is one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelnet import TrainOptions, compare_groups, compare_runs, train_many
from pipeline import build_cache
from tests.soak.conftest import Count

EXAMPLE = Path(__file__).parent.parent.parent / "data" / "example"
RUNS = 8  # a side
LEARNING: dict[str, Any] = {"batch_size": 8, "epochs": 12, "lr": 0.02, "val_fraction": 0.5, "threads": 1}


@pytest.fixture
def seeds(count: Count) -> int:
    return count(240, 2 * RUNS)


@pytest.fixture
def trained(seeds: int, workspace: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Path], list[Path]]:
    """Networks of the same options, and others whose learning rate is a quarter."""
    monkeypatch.chdir(workspace)
    monkeypatch.setattr("modelnet.training.loop.loss_curves", lambda *_: b"")
    build_cache(EXAMPLE, "example.h5", size=64)
    plain = train_many(TrainOptions(Path("example.h5"), name="plain", **LEARNING), range(seeds))
    slow = train_many(TrainOptions(Path("example.h5"), name="slow", **LEARNING | {"lr": 0.005}), range(seeds // 2))
    return plain.runs, slow.runs


def test_a_difference_is_claimed_where_there_is_one_and_hardly_where_there_is_none(
    trained: tuple[list[Path], list[Path]], count: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, times = np.random.default_rng(0), count(100, 8)
    plain, slow = trained
    nothing = something = networks = 0
    for _ in range(times):
        drawn = rng.permutation(len(plain))[: 2 * RUNS]
        groups = [[plain[i] for i in drawn[:RUNS]], [plain[i] for i in drawn[RUNS:]]]
        nothing += compare_groups(groups).pairs[0].better is not None
        networks += compare_runs([groups[0][0], groups[1][0]]).pairs[0].better is not None
        others = [slow[i] for i in rng.permutation(len(slow))[:RUNS]]
        something += compare_groups([groups[0], others]).pairs[0].better is not None
    with capsys.disabled():
        print(
            f"\n{times} comparisons of {RUNS} + {RUNS} runs: {nothing} claim a difference between the same options, "
            f"{something} between learning rates; {networks} between two networks of the same options"
        )
    assert nothing <= max(3, 0.08 * times)
    assert something >= 0.8 * times

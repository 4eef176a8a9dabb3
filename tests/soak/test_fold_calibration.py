"""How often a comparison over folds is right, and what the best of many settings loses, where the truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelnet import TrainOptions, compare_groups, train_many
from modelnet.compare.statistics import compare_accuracies
from pipeline import TensorCache, build_cache
from tests.soak.conftest import Count
from tests.support.simulated_folds import FoldWorld, draw_folds
from tests.support.simulated_settings import promises
from tests.support.splits import write_folds

EXAMPLE = Path(__file__).parent.parent.parent / "data" / "example"
LEARNING: dict[str, Any] = {"batch_size": 8, "epochs": 12, "lr": 0.02, "threads": 1, "device": "cpu"}
NULLS = {
    "the same features": {"shared": 1.0},
    "other features": {},
    "other features, 400 images, large networks": {"images": 400, "features": 100, "units": 60},
    "other features, 100 images": {"images": 100, "features": 50, "units": 20},
}
FIVE_POINTS = FoldWorld(400, 5, 4, 20, 20, 1.2, 0.38, 1.0)


@pytest.mark.parametrize("seeds", [4, 8])
@pytest.mark.parametrize("world", NULLS)
def test_equal_options_over_five_folds_rarely_differ(
    world: str, seeds: int, count: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, times = np.random.default_rng(0), count(1000, 20)
    claims = np.zeros(2)
    for _ in range(times):
        sides = draw_folds(rng, FoldWorld(seeds=seeds, **NULLS[world]))  # type: ignore[arg-type]
        claims += [(compare_accuracies(*sides, folds=folds).p or 0) < 0.05 for folds in (5, 1)]
    with capsys.disabled():
        print(
            f"\n5 folds × {seeds} seeds, {world}: {claims[0] / times:.1%} claims; "
            f"as single runs {claims[1] / times:.1%}"
        )
    assert claims[0] / times <= 0.08 + 2 * np.sqrt(0.08 * 0.92 / times) * (times < 1000)


def test_five_points_on_400_images_are_found(count: Count, capsys: pytest.CaptureFixture[str]) -> None:
    rng, times = np.random.default_rng(1), count(400, 20)
    found = [compare_accuracies(*draw_folds(rng, FIVE_POINTS), folds=5) for _ in range(times)]
    power = float(np.mean([(one.p or 0) < 0.05 for one in found]))
    with capsys.disabled():
        print(f"\n{100 * np.mean([one.value for one in found]):.1f} points on 400 images: {power:.1%} found")
    assert power >= 0.9 - 3 * np.sqrt(0.09 / times) * (times < 400)


def test_real_networks_of_equal_options_rarely_differ_over_folds(
    workspace: Path, count: Count, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(workspace)
    for drawing in ("training.loop.loss_curves", "training.loop.confusion_picture", "sweep.group.group_curves"):
        monkeypatch.setattr(f"modelnet.{drawing}", lambda *_: b"")
    build_cache(EXAMPLE, "example.h5", size=64)
    split = write_folds(TensorCache("example.h5"), Path("split.csv"), 5)
    seeds, times = count(64, 8), count(100, 8)
    runs = train_many(TrainOptions(Path("example.h5"), split=split, fold="all", **LEARNING), range(seeds)).runs
    by_seed = [runs[seed::seeds] for seed in range(seeds)]
    rng, claims = np.random.default_rng(0), 0
    for _ in range(times):
        drawn = rng.permutation(seeds)[:8]
        groups = [[run for seed in part for run in by_seed[seed]] for part in (drawn[:4], drawn[4:])]
        claims += compare_groups(groups).pairs[0].better is not None
    with capsys.disabled():
        print(f"\n{times} comparisons of 5 folds × 4 seeds of ModelNet with as many: {claims} claims")
    assert claims <= max(2, 0.08 * times)


@pytest.mark.parametrize("spread", [0.0, 0.05, 0.1, 0.3])
@pytest.mark.parametrize(("settings", "seeds", "images"), [(32, 8, 400), (32, 4, 100), (5, 8, 150), (32, 3, 150)])
def test_the_best_of_many_settings_loses_what_is_said(
    settings: int, seeds: int, images: int, spread: float, count: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    said, true = promises(3, times := count(400, 10), settings, seeds, images, spread)
    more = float(np.mean(true > said))
    with capsys.disabled():
        print(
            f"\n{settings} settings × {seeds} seeds, {images} images, spread {spread}: said {said.mean():.2f} points "
            f"less, true {true.mean():.2f}; more than said in {more:.0%}"
        )
    room = 4 * true.std() / np.sqrt(times)
    assert true.mean() - 0.35 - room <= said.mean() <= true.mean() + 1.2 + room
    assert more <= 0.65 + 2 / np.sqrt(times)

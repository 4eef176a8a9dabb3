"""How often a comparison is right: its claims between real trainings; all that it says, where the truth is known."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelnet import TrainOptions, compare_groups, compare_runs, train_many
from pipeline import build_cache
from tests.soak.conftest import Count
from tests.support.simulated_runs import Rates, World, rates

EXAMPLE = Path(__file__).parent.parent.parent / "data" / "example"
RUNS = 8  # a side
LEARNING: dict[str, Any] = {"batch_size": 8, "epochs": 12, "lr": 0.02, "val_fraction": 0.5, "threads": 1}

IMAGES = (20, 50, 153, 1000)
ACCURACIES = ((0.5, 0.5), (0.9, 0.9), (0.99, 0.99), (0.99, 1.0))
SIDES = [(1, 1), (1, 8), (3, 3), (8, 8), (16, 16), (3, 16)]  # with 2 runs of a side nothing is said
KINDS: dict[str, dict[str, Any]] = {
    "runs hardly differ": {"spreads": (0.01, 0.01)},
    "runs differ by 7 points": {"spreads": (0.07, 0.07)},
    "the same seeds": {"spreads": (0.07, 0.07), "same_seeds": True},
    "spreads differ": {"spreads": (0.02, 0.07)},
    "options like other images": {"spreads": (0.03, 0.03), "liking": 0.5},
}
SELDOM = 0.03  # of the comparisons: numbers that are named more seldom are named by mistake only


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


def test_a_real_difference_is_claimed_and_an_absent_one_rarely(
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


@pytest.mark.parametrize("images", IMAGES)
def test_what_is_said_of_simulated_runs_is_as_often_right_as_it_promises(
    images: int, count: Count, capsys: pytest.CaptureFixture[str]
) -> None:
    draws, wrong = count(10_000, 200), []
    for place, accuracies in enumerate(ACCURACIES):
        found = {
            kind: rates([images, place, i], World(accuracies, **how), draws, images, SIDES)
            for i, (kind, how) in enumerate(KINDS.items())
        }
        for sides in SIDES:
            of_sides = [found[kind][sides] for kind in KINDS]
            with capsys.disabled():
                print(_line(images, accuracies, sides, of_sides))
            for kind, rate in zip(KINDS, of_sides, strict=True):
                mistakes = _mistakes(rate, draws, images, accuracies, sides)
                wrong += [f"{images} images, {accuracies}, {sides}, {kind}: {mistake}" for mistake in mistakes]
    assert not wrong, "\n".join(wrong)


def _mistakes(
    rate: Rates, draws: int, images: int, accuracies: tuple[float, float], sides: tuple[int, int]
) -> list[str]:
    def luck(share: float, of: float) -> float:
        return 4 * float(np.sqrt(share * (1 - share) / of))

    mistakes = []
    if rate.held < 0.93 - luck(0.93, draws):
        mistakes.append(f"{rate.held:.1%} of the intervals hold the difference")
    if sides[0] == sides[1] > 1 and images * (1 - accuracies[0]) >= 10 and rate.held > 0.975 + luck(0.975, draws):
        mistakes.append(f"intervals are too wide: {rate.held:.1%} hold the difference")
    if 1 not in sides and accuracies[0] == accuracies[1] and rate.claimed > 0.06 + luck(0.06, draws):
        mistakes.append(f"{rate.claimed:.1%} claim a difference that is not there")
    room = luck(0.8, max(1.0, rate.named * draws))
    if rate.named >= SELDOM and not 0.75 - room <= rate.shown <= 0.90 + room:
        mistakes.append(f"{rate.shown:.1%} of the numbers named show the difference")
    return mistakes


def _line(images: int, accuracies: tuple[float, float], sides: tuple[int, int], found: list[Rates]) -> str:
    """Return the least and the most of all kinds: % of intervals that hold, of false claims, of numbers that show."""
    held = [rate.held for rate in found]
    claimed = [rate.claimed for rate in found if accuracies[0] == accuracies[1] and 1 not in sides]
    shown = [rate.shown for rate in found if rate.named >= SELDOM]
    cells = [f"{100 * min(some):.1f}-{100 * max(some):.1f}" if some else "-" for some in (held, claimed, shown)]
    return f"{images:5} images, {accuracies[0]}/{accuracies[1]}, {sides[0]:2} + {sides[1]:2} runs: " + "  ".join(cells)

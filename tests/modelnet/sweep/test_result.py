"""What came of a group, as text: checked against numbers that were put in."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from modelnet import TrainOptions
from modelnet.progress import EpochRow
from modelnet.runs.tables import median_row
from modelnet.sweep.result import SweepResult

OPTIONS = TrainOptions(Path("c.h5"))


def row(loss: float, val_acc: float | None = None) -> EpochRow:
    return EpochRow(1, loss, 0.5, None if val_acc is None else loss, val_acc, 0.1, 1.0, 0.0, 1.0)


def group(members: list[TrainOptions], rows: list[list[EpochRow]], diverged: Sequence[int] = ()) -> SweepResult:
    count = len(members)
    runs = [Path(f"runs/r-{i}") for i in range(count)]
    states = ["diverged" if i in diverged else "finished" for i in range(count)]
    return SweepResult(members, runs, rows, states, [0.35] * count, [None] * count)


def test_a_setting_shows_median_and_quartiles_of_finished_networks() -> None:
    members = [replace(OPTIONS, lr=lr, seed=seed) for lr in (0.1, 0.2) for seed in range(5)]
    rows = [[row(0.1 * seed, 0.5 + 0.05 * seed)] for seed in range(5)] + [[row(0.3, 0.9)]] * 4 + [[]]
    lines = str(group(members, rows, diverged=[9])).splitlines()
    assert lines[1].split("   ")[0] == "lr=0.1"
    assert "0.2000 (0.1000–0.3000)" in lines[1] and "60.0% (55.0%–65.0%)" in lines[1]
    assert lines[1].endswith("4 of 5") and lines[2].endswith("4 of 5, 1 diverged")
    assert lines[-2:] == [
        "converged in 8 of 10 starts; 1 diverged, and are in no median",
        "highest median validation accuracy: 90.0% with lr=0.2; picked among 2 settings, it reads too high",
    ]


def test_a_setting_of_which_all_diverged_has_no_numbers() -> None:
    members = [replace(OPTIONS, lr=lr, seed=seed) for lr in (0.1, 9.0) for seed in range(2)]
    lines = str(group(members, [[row(0.1)], [row(0.2)], [], []], diverged=[2, 3])).splitlines()
    assert lines[2].split() == ["lr=9.0", "–", "–", "0", "of", "2,", "2", "diverged"]


def test_networks_of_one_setting_have_a_line_each() -> None:
    members = [replace(OPTIONS, data_seed=order, seed=seed) for order in (3, 4) for seed in (0, 1)]
    lines = str(group(members, [[row(0.1 * i)] for i in range(4)])).splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["seed", "data", "seed", "train_loss", "train_acc", "run"],
        ["0", "3", "0.0000", "50.0%", "r-0"],
        ["1", "3", "0.1000", "50.0%", "r-1"],
    ]
    assert lines[6].split() == ["median", "0.1500", "50.0%"]
    assert lines[-1] == "converged in 4 of 4 starts"


def test_the_median_row_is_the_median_of_each_measure() -> None:
    assert median_row([row(1.0, 0.1), row(5.0, 0.2), row(3.0, 0.9)]) == replace(row(3.0, 0.2), val_loss=3.0)
    assert median_row([row(1.0), row(2.0)]).val_acc is None


def test_networks_trained_class_after_class_get_a_warning() -> None:
    seem = [replace(row(0.05), train_acc=accuracy) for accuracy in (0.9, 0.98, 1.0)]
    result = group([replace(OPTIONS, shuffle=False, seed=seed) for seed in range(3)], [[one] for one in seem])
    result.trained_accuracy[:] = [0.6, 0.68, 0.7]
    assert str(result).splitlines()[-2:] == [
        "converged in 3 of 3 starts",
        "hint: in the median: average training loss 0.05, accuracy 98%, but 32% of the training images are wrong now: "
        "the order is not shuffled; converged counts the average training loss alone",
    ]
    result.trained_accuracy[:] = [0.97, 0.98, 0.99]
    assert str(result).splitlines()[-1] == "converged in 3 of 3 starts"

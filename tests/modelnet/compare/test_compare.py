"""Compare runs (compare.py, result.py): which sides, which refusals, which text."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from modelnet import TrainOptions, compare_groups, compare_runs, train_many
from modelnet.compare.result import show_p, show_points, show_seeds
from modelnet.compare.selection import select_runs
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from modelnet.runs.tables import Prediction
from pipeline.errors import OptionsError, RunError
from tests.support.command_line import RunCli
from tests.support.made_runs import bits, in_folds, write_run

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own", "no_pictures")


def test_no_difference_has_no_minus_and_unused_options_do_not_differ() -> None:
    runs = [write_run("a", bits(10, 5)), write_run("b", bits(10, 5), tensorboard=True)]
    path = runs[1] / "predictions.csv"
    path.write_text(path.read_text().replace("2.303", "2.30297"))
    found = compare_runs(runs)
    assert -0.00005 < found.pairs[0].loss.value < 0
    assert "loss      +0.0000 (" in str(found) and "-0.0000" not in str(found)
    assert found.differs == {}


def test_predictions_are_read_as_they_were_written() -> None:
    run = RunFolder(write_run("a", [1, 0], photos=['x",\r\n\udcff', "y"]))
    first, second = run.read_predictions()
    sha256 = hashlib.sha256(b"y").hexdigest()
    assert first.file == 'x",\r\n\udcff.jpg'
    assert second == Prediction("2", "y.jpg", sha256, "1", False, 0.9, 0.1, 2.303)
    path = run.path / "predictions.csv"
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b",")])
    with pytest.raises(RunError, match=r"not a table of predictions \(a line of it is cut short\)"):
        run.read_predictions()
    for wrong in (b"class_id,file\n1,a\n", whole.replace(b",1,0.9", b",yes,0.9")):
        path.write_bytes(wrong)
        with pytest.raises(RunError, match=r"predictions\.csv: it is not a table of predictions"):
            run.read_predictions()


def test_two_runs_are_two_networks_and_the_better_one_is_named() -> None:
    a, b = write_run("a", bits(100, 60)), write_run("b", bits(100, 80), lr=0.1)
    found = compare_runs([a, b])
    (pair,) = found.pairs
    assert found.images == 100 and pair.better == "B"
    assert pair.accuracy.value == pytest.approx(0.2)
    assert pair.alone == (0, 20)
    assert "only A is right: 0 images; only B: 20 images" in str(found)
    assert found.differs == {"lr": ["0.008", "0.1"]}
    assert {(flip.file, flip.right_1, flip.right_2) for flip in pair.flips} == {
        (f"{i}.jpg", 0, 1) for i in range(60, 80)
    }
    assert pair.verdict.startswith("the network of B is better by 20.0 points (95 % interval ")
    assert "one run a side: this is about these networks" in found.notes[0]
    turned = compare_runs([b, a]).pairs[0]
    assert turned.better == "A" and turned.verdict.startswith(
        "the network of A is better by 20.0 points (95 % interval 1"
    )
    ends = [-turned.accuracy.high, -turned.accuracy.low]  # type: ignore[operator]
    assert ends == pytest.approx([pair.accuracy.low, pair.accuracy.high])


def test_what_is_not_distinguishable_says_how_many_images_would_do() -> None:
    a, b = write_run("a", bits(153, 100)), write_run("b", bits(153, 100, start=5)[:-4] + [1] * 4, seed=1)
    pair = compare_runs([a, b]).pairs[0]
    assert pair.better is None and pair.alone is not None
    part = sum(pair.alone) / 153
    expected = (1.96 + 0.84) ** 2 * (part - pair.accuracy.value**2) / pair.accuracy.value**2
    assert pair.accuracy.images_needed is not None
    assert expected < pair.accuracy.images_needed < 1.1 * expected
    assert pair.verdict.startswith("not distinguishable with 153 images; about ")
    size = f"{100 * abs(pair.accuracy.value):.1f} points"
    assert pair.verdict.endswith(f"would be needed to see a difference of {size} four times in five")


def test_the_networks_of_all_folds_of_a_seed_are_one_run() -> None:
    rng = np.random.default_rng(3)
    right = {(lr, s): (rng.random(60) < 5 * lr).astype(int).tolist() for lr in (0.1, 0.13) for s in range(4)}
    whole = [write_run(f"{lr}-{seed}", right[lr, seed], lr=lr, seed=seed) for lr, seed in right]
    folds = [r for lr, seed in right for r in in_folds(f"f{lr}-{seed}", right[lr, seed], lr=lr, seed=seed)]
    expected, found = compare_runs(whole), compare_runs(folds[::-1])
    assert (found.images, found.folds) == (60, 3) and expected.folds == 1
    assert [side.count for side in found.sides] == [4, 4] and len(found.sides[0].runs) == 12
    (pair,) = found.pairs
    assert -pair.accuracy.value == pytest.approx(expected.pairs[0].accuracy.value)
    assert pair.accuracy.p >= expected.pairs[0].accuracy.p > 1e-12  # type: ignore[operator]
    assert found.differs["lr"] == ["0.13", "0.1"] and "fold" not in found.differs
    assert "60 validation images of 3 folds, by the weights at the end" in str(found)
    assert any("Folds share training images; this luck is in the" in note for note in found.notes)


def test_a_seed_that_lacks_a_fold_is_named() -> None:
    whole = in_folds("a", bits(30, 10))
    part = in_folds("b", bits(30, 20), seed=7)[:2]
    with pytest.raises(RunError, match=r"b-0: its seed 7 lacks fold 2, which another run has\. Give the runs of all"):
        compare_runs([*whole, *part])
    with pytest.raises(RunError, match="it repeats runs/a-0"):
        compare_runs([*whole, write_run("again", bits(10, 5), split=Path("s.csv"), fold=0)])


def test_the_best_of_three_sides_is_said_to_be_chosen() -> None:
    rng = np.random.default_rng(5)
    runs = [
        write_run(f"{lr}-{seed}", (rng.random(60) < 0.6).astype(int).tolist(), lr=lr, seed=seed)
        for lr in (0.1, 0.2, 0.3)
        for seed in range(3)
    ]
    found = compare_runs(runs)
    best = max(found.sides, key=lambda side: float(np.mean(side.accuracies))).label
    note = next(note for note in found.notes if "chosen" in note)
    assert note.startswith(f"{best} has the highest accuracy, chosen among 3 on these images: expect about ")
    assert select_runs([[[run]] for run in runs], np.nanmedian) == select_runs([[[run]] for run in runs], np.nanmean)
    assert (
        select_runs([[[runs[0]]], [[write_run("x", bits(60, 30), photos=[f"x{i}" for i in range(60)])]]], np.nanmean)
        is None
    )


def test_another_split_is_a_difference_and_one_fold_alone_is_not() -> None:
    first, second = in_folds("a", bits(30, 10)), in_folds("b", bits(30, 20), split=Path("t.csv"))
    found = compare_runs([*first, *second])
    assert len(found.sides) == 2 and found.differs.keys() == {"split"}
    assert found.pairs[0].verdict.startswith(("the run of B is better", "not distinguishable"))
    alone = compare_runs([first[1], in_folds("c", bits(30, 20), seed=1)[1]])
    assert (alone.images, alone.folds) == (10, 1)


def test_runs_that_differ_only_in_seeds_form_a_side_on_any_machine() -> None:
    rng = np.random.default_rng(0)
    runs = [
        write_run(f"{lr}-{seed}", rng.permutation(bits(80, right)).tolist(), lr=lr, seed=seed, threads=seed + 1)
        for seed in (2, 0, 1, 3)
        for lr, right in ((0.1, 40), (0.2, 60))
    ]
    found = compare_runs(runs)
    assert [[run.name for run in side.runs] for side in found.sides] == [
        [f"{lr}-{seed}" for seed in range(4)] for lr in (0.1, 0.2)
    ]
    assert found.differs == {"lr": ["0.1", "0.2"], "seed": ["0-3", "0-3"], "threads": ["1, 2, 3, 4"] * 2}
    assert list(found.differs)[-1] == "seed"
    assert found.pairs[0].better == "B" and found.pairs[0].alone is None
    assert found.pairs[0].verdict.startswith("B is better by 25.0 points")
    assert "runs of B are paired with those of A that have the same seeds" in found.notes
    assert "seed varied in A, B: luck with initial weights is in the interval" in found.notes
    assert "data seed 0 in A, B: luck with order and augmentation is not in the interval" in found.notes


def test_equal_runs_show_the_spread_of_seeds_and_named_groups_are_compared() -> None:
    runs = [write_run(f"r{seed}", bits(40, 20 + seed, seed), seed=seed, data_seed=seed) for seed in range(4)]
    together = compare_runs(runs)
    assert together.notes[-1] == "the runs differ in seeds and folds alone: one side, and nothing to compare it with"
    assert together.pairs == [] and together.sides[0].accuracies == [0.5, 0.525, 0.55, 0.575]
    assert "A  4     53.8%           51.9% to 55.6%  57.5%" in str(together)
    apart = compare_groups([runs[:2], runs[2:]])
    assert [side.seeds for side in apart.sides] == [[0, 1], [2, 3]] and len(apart.pairs) == 1
    assert not any("paired" in note for note in apart.notes)
    assert "data seed varied in A, B: luck with order and augmentation is in the interval" in apart.notes


def test_several_sides_are_each_held_against_the_first_with_holms_p() -> None:
    runs = [write_run(str(i), bits(100, 60 + more), batch_size=i + 1) for i, more in enumerate((0, 7, 12, 5))]
    found = compare_runs(runs)
    p_values = [pair.accuracy.p for pair in found.pairs]
    assert [(pair.first, pair.second) for pair in found.pairs] == [("A", "B"), ("A", "C"), ("A", "D")]
    more = np.array([7, 12, 5])
    expected = 2 * norm.sf(more / np.sqrt(more + 2 - more**2 / 102))  # Bonett and Price
    assert p_values == pytest.approx(expected)
    assert [pair.p_adjusted for pair in found.pairs] == pytest.approx(expected * [2, 3, 1])
    assert [pair.better for pair in found.pairs] == ["B", "C", None]
    assert "p = 0.054\n" in str(found)
    assert "p = 0.016 (0.033 by Holm's rule)" in str(found)
    assert found.pairs[2].verdict.startswith("not distinguishable with 100 images; about 200 images would be needed")


def test_one_network_is_better_than_options_or_worse_and_nothing_more() -> None:
    rng = np.random.default_rng(0)
    many = [write_run(f"m{seed}", rng.permutation(bits(80, 56)).tolist(), lr=0.1, seed=seed) for seed in range(8)]
    bad, good = write_run("bad", bits(80, 20)), write_run("good", bits(80, 80))
    assert _verdict([bad], many).startswith("B is better than this network of A by 45.0 points (95 % interval ")
    assert _verdict([good], many).startswith("this network of A is better than B by 30.0 points (95 % interval ")
    assert _verdict(many, [good]).startswith("this network of B is better than A by 30.0 points (95 % interval ")
    same = write_run("same", rng.permutation(bits(80, 55)).tolist())
    assert _verdict([same], many).startswith("not distinguishable with 80 images and 1 + 8 runs; more images and")


def _verdict(*groups: Sequence[Path]) -> str:
    return compare_groups(groups).pairs[0].verdict


def test_too_few_runs_are_said_to_be_too_few_and_leave_the_others_alone() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (
        [write_run(f"{lr}-{seed}", rng.permutation(bits(60, right)).tolist(), lr=lr, seed=seed) for seed in range(runs)]
        for lr, right, runs in ((0.1, 30, 3), (0.2, 50, 2), (0.3, 45, 3))
    )
    found = compare_groups([a, b, c])
    few, enough = found.pairs
    assert (few.accuracy.low, few.accuracy.p, few.p_adjusted, few.better) == (None, None, None, None)
    assert few.verdict == "too few runs: B has 2; at least 3 runs of a side show the spread of its seeds"
    assert "accuracy  +33.3 points (too few runs for an interval)\n" in str(found)
    assert enough.better == "C" and enough.p_adjusted == enough.accuracy.p
    assert json.loads(json.dumps(found.to_dict()))["pairs"][0]["accuracy"]["low"] is None


def test_an_end_beside_0_and_a_p_beside_the_limit_have_more_digits() -> None:
    assert show_points(0.0001, 0.09) == "0.01 to 9.00"
    assert show_points(-0.09, -0.00001, "+") == "-9.000 to -0.001"
    assert show_points(-0.0001, 0.09, "+") == "+0.0 to +9.0"
    assert [show_p(p) for p in (0.0499, 0.05004, 0.05, 0.062, 1e-5)] == [
        *("0.0499", "0.05004", "0.05", "0.062"),
        "less than 0.0001",
    ]


def test_an_image_with_another_name_and_position_is_the_same_image() -> None:
    a = write_run("a", [1, 1, 0, 0], photos=["p", "q", "r", "s"])
    b = write_run("b", [0, 0, 1, 1], photos=["r", "s", "p", "q"], lr=0.1)
    table = (b / "predictions.csv").read_text()
    (b / "predictions.csv").write_text(table.replace("p.jpg", "renamed.jpg"))
    assert compare_runs([a, b]).pairs[0].flips == []


def test_what_cannot_be_compared_says_why_and_what_to_do() -> None:
    a = write_run("a", bits(10, 5))
    with pytest.raises(RunError, match="no run there: runs/none"):
        compare_runs([a, Path("runs/none")])
    with pytest.raises(OptionsError, match=r"a run is given twice: runs/\.\./runs/a"):
        compare_runs([a, Path("runs/../runs/a")])
    for few in ([], [a]):
        with pytest.raises(OptionsError, match="two runs or more are needed"):
            compare_runs(few)
    with pytest.raises(OptionsError, match="two groups are needed"):
        compare_groups([[a], []])

    other = write_run("other", bits(10, 5), photos=[*"23456789", "x", "y"])
    with pytest.raises(
        RunError, match=r"other: it was validated on other images than runs/a: 10 and 10, 8 of them the"
    ):
        compare_runs([a, other])
    moved = write_run("moved", bits(10, 5), photos=[*"1023456789"])
    with pytest.raises(RunError, match=r"8 of them the same; some are the same photographs in other classes\. Train"):
        compare_runs([a, moved])

    for name, spoil, why in (
        ("stopped", lambda run: (run / "predictions.csv").unlink(), r"it has not ended: 2 of 9 epochs\. Continue"),
        (
            "gone on",
            lambda run: RunFolder(run).append_metrics(EpochRow(3, 1, 0, 0.7, 0.6, 0.1, 1, 0, 1)),
            r"it has not ended: 3 of 9 .* train --resume 'runs/gone on'",
        ),
        (
            "wild",
            lambda run: (run / "predictions.csv").rename(run / "diverged.txt").write_text("the loss is nan"),
            r"it diverged: the loss is nan\. Leave it out$",
        ),
    ):
        run = write_run(name, bits(10, 5), epochs=9)
        spoil(run)
        with pytest.raises(RunError, match=f"{name}: {why}"):
            compare_runs([a, run])
    killed = write_run("killed", bits(10, 5))
    (killed / "predictions.csv").unlink()
    with pytest.raises(RunError, match="it has not ended: its predictions are not written yet"):
        compare_runs([a, killed])

    blind = write_run("blind", bits(10, 5))
    config = json.loads((blind / "config.json").read_text())
    options = config["options"] | {"val": None, "val_fraction": None}
    (blind / "config.json").write_text(json.dumps(config | {"val": None, "options": options}))
    with pytest.raises(RunError, match=r"blind: it was trained without validation images\. Train it again with --val"):
        compare_runs([a, blind])
    (blind / "config.json").write_text(json.dumps(config | {"options": {"lr": 1}}))
    with pytest.raises(RunError, match="the run cannot be read"):
        compare_runs([a, blind])


def test_a_repeated_run_does_not_pass_for_another_seed() -> None:
    runs = [write_run(name, bits(10, 5), seed=seed) for name, seed in (("a", 0), ("b", 1), ("c", 1))]
    with pytest.raises(RunError, match="c: it repeats runs/b: the same options, seed and data seed"):
        compare_runs(runs)
    same = compare_runs(runs[1:]).pairs[0]
    assert same.better is None and same.verdict == "not distinguishable with 10 images: no difference"


def test_the_weights_that_are_compared_are_named() -> None:
    last, best = write_run("last", bits(10, 5)), write_run("best", bits(10, 6), patience=3)
    assert "10 validation images, by the weights at the end\n" in str(compare_runs([last, write_run("x", bits(10, 4))]))
    config = best / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"result": "best"}))
    found = compare_runs([last, best])
    assert "by the weights of the best epoch where --patience picked it, else the last\n" in str(found)
    assert [side["results"] for side in found.to_dict()["sides"]] == [["last"], ["best"]]


def test_what_the_reader_should_know_is_noted() -> None:
    a = write_run("a", bits(50, 20), patience=3)
    b, c = (write_run(name, bits(50, 30, seed), seed=seed) for name, seed in (("b", 0), ("c", 1)))
    notes = " | ".join(compare_groups([[a], [b, c]]).notes)
    assert "A: one run; the luck of its seeds is not in the interval" in notes
    assert "--patience and --sched plateau used these images" in notes
    d = write_run("d", bits(50, 10), lr=0.5)
    e, f = (write_run(name, bits(50, 20, seed), seed=seed, data_seed=1) for name, seed in (("e", 0), ("f", 1)))
    notes = " | ".join(compare_groups([[b, c], [e, f]]).notes)
    assert "one data seed each (A: 0, B: 1): luck with order and augmentation is not in the interval, and may" in notes
    assert "runs of B differ in more than their seeds" in " | ".join(compare_groups([[a], [b, d]]).notes)


def test_seeds_are_shown_as_they_are_given() -> None:
    assert [show_seeds(seeds) for seeds in ([3], [0, 1, 2], [5, 0, 6, 9])] == ["3", "0-2", "0,5-6,9"]


def test_the_command_compares_what_train_left(cache_path: Path, tmp_path: Path, run_cli: RunCli) -> None:
    options: dict[str, Any] = {"val": cache_path, "batch_size": 4, "epochs": 2, "threads": 1}
    groups = [
        train_many(TrainOptions(cache_path, lr=lr, name=name, **options), [0, 1, 2])
        for name, lr in (("slow", 0.001), ("fast", 0.05))
    ]
    runs = [run for group in groups for run in group.runs]
    ended = run_cli("compare", *runs)
    assert ended.code == 0, ended.stderr
    assert ended.stdout == f"{compare_runs(runs)}\n"
    assert ended.stdout.splitlines()[0] == "A  runs/slow-seed-0 ... slow-seed-2"
    assert "B is better" in ended.stdout or "not distinguishable with 8 images and 3 + 3 runs" in ended.stdout

    ended = run_cli("compare", groups[0].table, runs[3], "vs", groups[1].runs[1], "--json")
    assert json.loads(ended.stdout) == compare_groups([runs[:4], [runs[4]]]).to_dict()

"""Runs that are read for a comparison (load.py): those that have not ended are refused, whatever is compared."""

import json
from pathlib import Path

import pytest

from modelnet import compare_groups, compare_runs
from modelnet.runs.checkpoint import encode
from modelnet.runs.folder import RunFolder
from modelnet.runs.tables import Prediction
from pipeline.errors import RunError
from tests.support.made_runs import bits, in_folds, write_run

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def answers_of(*runs: Path) -> dict[Path, list[Prediction]]:
    """Return what runs say of test images: of as many, and as they said of the validation images."""
    return {run: RunFolder(run).read_predictions() for run in runs}


def lose_validation(run: Path, epoch: int, step: int) -> None:
    """Let a run be one that was trained without validation images, and saved last at this epoch and step."""
    config = json.loads((run / "config.json").read_text())
    config["options"] |= {"val": None}
    (run / "config.json").write_text(json.dumps(config | {"val": None}))
    for name in ("predictions.csv", "scores.json"):
        (run / name).unlink()
    (run / "checkpoints" / "last.pt").write_bytes(encode({"epoch": epoch, "step": step}))


def test_a_run_that_has_not_ended_is_refused_on_test_images_too() -> None:
    a = write_run("a", bits(10, 5))
    patient, impatient = (write_run(f"p{n}", bits(10, 6), epochs=100, patience=n) for n in (2, 1))
    wild = write_run("wild", bits(10, 7), lr=0.1)
    RunFolder(wild).write_divergence("the loss is nan")
    killed = write_run("killed", bits(10, 8), lr=0.2)
    answers = answers_of(a, patient, impatient, wild, killed)
    (killed / "predictions.csv").unlink()
    assert compare_runs([a, impatient], answers).images == 10  # the second epoch was no better than the first
    assert compare_runs([a, impatient]).kind == "validation"
    for run, why in (
        (patient, r"p2: it has not ended: 2 of 100 epochs\. Continue with: .* --resume runs/p2"),
        (wild, r"wild: it diverged: the loss is nan\. Leave it out"),
        (killed, "killed: it has not ended: its predictions are not written yet"),
    ):
        with pytest.raises(RunError, match=f"the run cannot be compared: runs/{why}"):
            compare_runs([a, run], answers)
        with pytest.raises(RunError, match=f"the run cannot be compared: runs/{why}"):
            compare_runs([a, run])


def test_without_validation_images_the_last_save_tells_the_end() -> None:
    a, b, c = (write_run(name, bits(10, 5), lr=lr) for name, lr in (("a", 0.1), ("b", 0.2), ("c", 0.3)))
    answers = answers_of(a, b, c)
    for run, saved in ((a, (2, 0)), (b, (2, 0)), (c, (1, 3))):
        lose_validation(run, *saved)
    assert compare_runs([a, b], answers).kind == "test"
    with pytest.raises(RunError, match="runs/c: it has not ended: its last epoch is not saved yet"):
        compare_runs([a, c], answers)
    with pytest.raises(RunError, match="runs/a: it was trained without validation images"):
        compare_runs([a, b])


def test_a_single_image_is_too_few_to_compare_on() -> None:
    a, b = write_run("a", [1]), write_run("b", [0], lr=0.1)
    with pytest.raises(RunError, match=r"one validation image is too few\. Validate on more"):
        compare_runs([a, b])
    with pytest.raises(RunError, match=r"one test image is too few\. Keep more: split --test"):
        compare_runs([a, b], answers_of(a, b))


def said(*rights: float) -> list[Prediction]:
    """Return the answers to test images, of which these are right."""
    return [Prediction("1", f"t{i}.jpg", f"{i:064x}", "1", right, 0.9, 0.9, 0.5) for i, right in enumerate(rights)]


def test_networks_of_folds_that_disagree_on_a_test_image_show_their_shares() -> None:
    first, second = in_folds("a", bits(9, 5)), in_folds("b", bits(9, 5), lr=0.5)
    answers = {run: said(k < 2, 1, 0) for k, run in enumerate(first)}
    answers |= {run: said(k < 1, 1, 0) for k, run in enumerate(second)}
    found = compare_groups([first, second], answers)
    assert [side.count for side in found.sides] == [1, 1]
    assert found.pairs[0].accuracy.value == pytest.approx(-1 / 9) and found.pairs[0].alone is None
    (flip,) = found.pairs[0].flips
    assert flip.file == "t0.jpg" and [flip.right_1, flip.right_2] == pytest.approx([2 / 3, 1 / 3])
    assert "  images that more than half of the networks get right on one side alone: 1\n" in str(found)
    assert "1/t0.jpg: 67% of the networks -> 33% of the networks\n" in str(found)
    validated = compare_groups([first, second])  # there each image has one judge
    assert validated.pairs[0].alone == (0, 0)


def test_what_used_the_validation_images_is_no_remark_on_test_images() -> None:
    a, b = write_run("a", bits(10, 5), patience=2), write_run("b", bits(10, 5), sched="plateau")
    note = "--patience and --sched plateau used these images: the accuracies are a little too high"
    assert note in compare_runs([a, b]).notes
    assert note not in compare_runs([a, b], answers_of(a, b)).notes


def test_networks_of_different_folds_are_compared_on_test_images() -> None:
    first, second, third = in_folds("a", bits(9, 5))
    answers = {first: said(1, 1, 1, 0), second: said(0, 0, 1, 0), third: said(1, 0, 1, 0)}
    found = compare_runs([first, second], answers)
    assert found.differs == {"fold": ["0", "1"]} and found.pairs[0].alone == (2, 0)
    other = "the sides were trained on other folds: luck with the training images is not in the interval"
    assert other in found.notes
    with pytest.raises(RunError, match=r"lacks fold 1, which another run has\. Give .*, or compare them by --on test"):
        compare_groups([[first], [second]])  # there they judge other images

    seeds: dict[int, list[Path]] = {0: [], 1: []}
    for seed in (1, 2, 3):
        runs = in_folds(f"b{seed}", bits(9, 5), seed=seed)
        for fold in seeds:
            seeds[fold].append(runs[fold])
            answers[runs[fold]] = said(1, fold, seed % 2, 0)
    found = compare_groups([seeds[0], seeds[1]], answers)
    assert [side.count for side in found.sides] == [3, 3] and other in found.notes
    assert found.pairs[0].accuracy.value == pytest.approx(1 / 4)

    found = compare_groups([[first, second, third], [seeds[0][0], seeds[1][0]]], answers)
    assert found.differs["fold"] == ["0-2", "0-1"] and found.pairs[0].alone is None
    with pytest.raises(RunError, match="b2-0: its seed 2 lacks fold 1, which another run of its side has"):
        compare_groups([[first, second], [*seeds[0], seeds[1][0]]], answers)


def test_runs_with_other_test_images_say_so() -> None:
    a, b = write_run("a", bits(10, 5)), write_run("b", bits(10, 5), lr=0.1)
    answers = answers_of(a) | {b: said(*bits(10, 5))}
    with pytest.raises(RunError, match=r"b: it was tested on other images than runs/a: .* with the same --split"):
        compare_runs([a, b], answers)


def test_images_that_a_table_of_labels_leaves_out_are_explained() -> None:
    a, b = write_run("a", bits(10, 5)), write_run("b", bits(9, 5), labels=Path("t.csv"))
    with pytest.raises(RunError, match=r"9 and 10, 9 of them the same; images in no row of --labels are left out\."):
        compare_runs([a, b])

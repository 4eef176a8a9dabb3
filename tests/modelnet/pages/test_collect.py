"""What a report says of runs, from their folders alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from modelnet.compare.compare import compare_runs
from modelnet.options import TrainOptions
from modelnet.pages.collect import Group, Report, flips_shown, gather, group_runs
from modelnet.pages.mistakes import Pictures
from modelnet.pages.run import Run
from modelnet.progress import EpochRow
from modelnet.runs.folder import RunFolder
from pipeline.errors import RunError
from tests.support.made_runs import make_run

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


ANSWERS = [("1", "a", "1", 0.9), ("1", "b", "2", 0.8), ("2", "c", "2", 0.6), ("2", "d", "1", 0.7)]


def test_runs_that_differ_in_their_seeds_alone_are_a_group() -> None:
    paths = [
        make_run("a", [0.7], seed=0),
        make_run("b", [0.7], seed=0, lr=0.1),
        make_run("c", [0.7], seed=5, data_seed=2, device="cpu", threads=1),
        make_run("d", [0.7], classes=((1, "paddle", 6), (2, "snake", 2)), lr=0.1, seed=9),
        make_run("e", [0.7], momentum=0.9),
    ]
    groups = group_runs([Run.read(path) for path in paths])
    assert [(g.label, [run.path.name for run in g.runs]) for g in groups] == [
        ("lr=0.008, momentum=0.5", ["a", "c"]),
        ("lr=0.1, momentum=0.5", ["b", "d"]),
        ("lr=0.008, momentum=0.9", ["e"]),
    ]
    assert [g.label for g in group_runs([Run.read(path) for path in (paths[0], paths[2])])] == [""]
    run = Run.read(paths[0])
    sizes = [TrainOptions(Path("c"), batch_size=n) for n in range(1, 30)]
    many = [replace(run, options=options, config=run.config | {"options": options.to_dict()}) for options in sizes]
    assert [g.label for g in group_runs(many)][24:] == [f"batch-size={n}, lr={n / 1000:g}" for n in range(25, 30)]


def test_a_typed_default_is_the_same_group_and_the_same_side() -> None:
    answers = [(c, file, said, p) for c, file, said, p in ANSWERS]
    paths = [make_run(name, [0.7], answers, seed=seed, lr=lr) for name, seed, lr in (("a", 0, None), ("b", 1, 0.008))]
    paths.append(make_run("c", [0.7], answers, lr=0.1))
    groups = [["a", "b"], ["c"]]
    assert [[run.path.name for run in group.runs] for group in group_runs([Run.read(p) for p in paths])] == groups
    assert [[run.name for run in side.runs] for side in compare_runs(paths).sides] == groups


def test_the_answers_of_a_group_are_added_up() -> None:
    other = [("1", "a", "1", 0.9), ("1", "b", "1", 0.8), ("2", "c", "1", 0.6), ("2", "d", "1", 0.7)]
    report = gather([make_run("a", [0.7], ANSWERS), make_run("b", [0.6], other, seed=1)])
    (group,) = report.groups
    assert group.confusion == [[3, 1], [3, 1]]
    paddle, snake = group.class_scores or []
    assert (paddle.precision, paddle.recall, snake.precision, snake.recall) == (0.5, 0.75, 0.5, 0.25)
    (gallery,) = report.galleries
    assert [(m.image.file, m.runs) for m in gallery.mistakes] == [("d", 2), ("b", 1), ("c", 1)]
    assert gallery.about == "3 images were wrong in at least one run."


def test_many_mistakes_are_shown_as_the_surest_and_the_least_sure() -> None:
    few = [("1", f"{i:02}", "2", 0.5 + i / 100) for i in range(24)]
    (gallery,) = gather([make_run("few", [0.7], few)]).galleries
    assert [m.image.file for m in gallery.mistakes] == [f"{i:02}" for i in reversed(range(24))]
    surest, unsure = gather([make_run("many", [0.7], [*few, ("1", "24", "2", 0.99)])]).galleries
    assert [m.image.file for m in surest.mistakes] == [f"{i:02}" for i in reversed(range(13, 25))]
    assert [m.image.file for m in unsure.mistakes] == [f"{i:02}" for i in range(12)]
    (gallery,) = gather([Path("runs/many"), make_run("once", [0.7], [("1", "25", "2", 0.9)], seed=1)]).galleries
    assert gallery.about == "26 images were wrong in at least one run; these were wrong most often."
    (gallery,) = gather([make_run("one", [0.7], [("1", "a", "2", 0.9)])]).galleries
    assert gallery.about == "The only wrong prediction of 1 image, the most confident first."


def test_mistakes_are_those_of_the_runs_that_were_validated() -> None:
    report = gather([make_run("blind", [0.7]), make_run("seeing", [0.7], ANSWERS)])
    assert [m.image.file for m in report.galleries[0].mistakes] == ["b", "d"]
    assert any("it was trained without validation images" in note for note in report.notes)


def test_runs_validated_on_other_images_show_no_mistakes_together() -> None:
    first, second = make_run("a", [0.7], ANSWERS), make_run("b", [0.7], ANSWERS, val_fraction=0.5)
    report = gather([first, second])
    assert report.galleries == []
    assert report.notes[0].startswith("The runs were not validated on the same images")


def test_runs_that_can_be_compared_are_and_of_others_it_is_said_why_not() -> None:
    right = [("1", f"{i:03}", "1", 0.9) for i in range(60)] + [("2", f"{i:03}", "2", 0.9) for i in range(60, 100)]
    wrong = [(c, file, "2" if i < 40 else said, p) for i, (c, file, said, p) in enumerate(right)]
    good, bad = make_run("good", [0.7, 1.0], right, lr=0.1), make_run("bad", [0.7, 1.0], wrong, lr=0.2)
    report = gather([good, bad, Path("runs/../runs/bad")])
    assert report.comparison is not None and len(report.runs) == 2
    assert report.comparison.pairs[0].verdict.startswith("the network of lr=0.1 is better by 40.0 points")
    assert [flip.file for flip in flips_shown(report.comparison)] == [f"{i:03}" for i in range(12)]

    seeds = [make_run(f"s{i}", [0.7, 1.0], right, seed=i) for i in range(3)]
    assert gather(seeds).comparison is None and [group.label for group in gather(seeds).groups] == [""]
    unfinished = make_run("unfinished", [0.7], epochs=5, lr=0.3)
    refused = gather([*seeds, unfinished])
    assert [group.label for group in refused.groups] == [
        "epochs=2, lr=0.008",
        "epochs=5, lr=0.3",
    ] and refused.comparison is None
    assert any(note.startswith("No comparison: the run cannot be compared: runs/unfinished") for note in refused.notes)


def test_notes_say_what_the_numbers_hide() -> None:
    def notes(path: Path) -> str:
        return " ".join(Run.read(path).notes())

    assert "No validation images" in notes(make_run("a", [0.7]))
    assert "2 of 9 epochs are done" in notes(make_run("b", [0.7, 0.6], epochs=9))
    assert "the network is guessing" in notes(make_run("c", [0.5623] * 20))  # the entropy of 6 and 2 images
    assert "With 4 images this accuracy cannot be told from that of always answering paddle: 50.0%." in notes(
        make_run("d", [0.7], ANSWERS)
    )
    wrong = [("1", str(i), "2" if i % 4 else "1", 0.9) for i in range(40)] + [("2", "a", "2", 0.9)]
    below = "This accuracy is below that of always answering paddle: 97.6%."
    assert notes(make_run("below", [0.7], wrong)) == below
    assert "whether it converged follows from that loss" in notes(make_run("in-order", [0.1], shuffle=False))
    in_order = [make_run(f"in-order-{seed}", [0.1], shuffle=False, seed=seed) for seed in (0, 1)]
    assert sum("The order was not shuffled" in note for note in gather(in_order).notes) == 1
    assert any(note.startswith("In 2 of 3 runs the order was") for note in gather([*in_order, Path("runs/c")]).notes)
    assert not any("shuffled" in note for note in gather([Path("runs/c"), Path("runs/d")]).notes)
    sure = [(c, f"{c}{i}", c, 0.9) for c in "12" for i in range(20)]
    assert notes(make_run("e", [0.1], sure)) == ""
    gone_on = make_run("f", [0.3, 0.2], sure, epochs=9)
    RunFolder(gone_on).append_metrics(EpochRow(3, 0.1, 1.0, 0.15, 1.0, 0.01, 100, 0, 1))
    assert "Scores and mistakes are those after epoch 2" in notes(gone_on)
    ended = make_run("g", [0.2, 0.3], sure, epochs=9, patience=1)
    assert notes(ended) == ""
    assert "2 of 9 epochs are done" in notes(make_run("h", [0.3, 0.2], sure, epochs=9, patience=1, seed=7))
    wild = make_run("wild", [0.7, 0.6], epochs=9, seed=1)
    RunFolder(wild).write_divergence("the loss is nan in epoch 3, batch 1 of 2")
    assert notes(wild).startswith("The run diverged: the loss is nan in epoch 3, batch 1 of 2. The page shows")
    assert gather([wild, Path("runs/a"), Path("runs/b")]).notes[:2] == [
        "1 of 3 runs diverged: wild.",
        "1 of 3 runs were stopped before their last epoch, or still train: b.",
    ]


def test_runs_that_cannot_be_compared_are_left_out_by_name() -> None:
    compared = [make_run(name, [0.7], ANSWERS, lr=lr) for name, lr in (("a", 0.1), ("b", 0.2), ("c", 0.3))]
    others = [make_run("blind", [0.7], lr=0.4), make_run("stopped", [0.7], ANSWERS, lr=0.5, epochs=9)]
    RunFolder(others[1]).path.joinpath("predictions.csv").unlink()
    report = gather([compared[0], *others, *compared[1:]])
    assert report.comparison is not None and len(report.comparison.sides) == 3
    note = "Left out of the comparison, without validation images or before their end: blind, stopped."
    assert note in report.notes
    assert [(group.label, [run.path.name for run in group.runs]) for group in report.groups] == [
        *((f"epochs=1, lr={lr}", [name]) for lr, name in ((0.1, "a"), (0.2, "b"), (0.3, "c"), (0.4, "blind"))),
        ("epochs=9, lr=0.5", ["stopped"]),
    ]


def test_a_run_beside_its_repetition_is_refused() -> None:
    with pytest.raises(RunError, match="runs/b: it repeats runs/a: the same options, seed and data seed"):
        gather([make_run("a", [0.7]), make_run("b", [0.7], workers=2)])
    assert len(gather([Path("runs/a"), make_run("c", [0.7, 0.6], epochs=1)]).runs) == 2  # trained further


def test_the_result_is_the_best_epoch_where_patience_chose_it() -> None:
    path = make_run("earlier", [0.7, 0.3, 0.5], ANSWERS, patience=1, epochs=9)
    assert Run.read(path).result.epoch == 3  # of an earlier version: the last
    run = Run.read(make_run("a", [0.7, 0.3, 0.5], ANSWERS, result="best", patience=1, epochs=9))
    assert (run.result.epoch, run.scored_epoch, run.has_ended, run.is_comparable) == (2, 2, True, True)


def test_mistakes_that_were_nearly_right_are_sorted_by_the_margin() -> None:
    answers = [("1", f"{i:03}", "2", 0.5 + i / 200) for i in range(40)]
    galleries = gather([make_run("a", [0.7], answers)]).galleries
    assert [gallery.title for gallery in galleries] == ["Surest mistakes", "Nearly right"]
    margins = [mistake.p_predicted - mistake.p_true for mistake in galleries[1].mistakes]
    assert margins == sorted(margins) and margins[0] == pytest.approx(0)


def test_classes_that_share_a_name_are_told_apart() -> None:
    classes = (("n01", "crane", 1), ("n02", "crane", 1), ("n03", "", 1), ("n04", "snake\n", 1))
    run = Run.read(make_run("a", [0.7], classes=classes))
    assert list(run.classes.values()) == ["crane (n01)", "crane (n02)", "n03", r"'snake\n'"]


def test_what_is_no_run_is_named() -> None:
    with pytest.raises(RunError, match="no run there"):
        gather([Path("runs/nowhere")])
    path = make_run("a", [0.7], ANSWERS)
    for name, content in (
        ("scores.json", b"{}"),
        ("scores.json", b"["),
        ("predictions.csv", b"a,b\n1,2\n"),
        ("config.json", b'{"options": {"cache": "c.h5"}, "cache": {}, "val": null}'),
    ):
        whole = (path / name).read_bytes()
        (path / name).write_bytes(content)
        with pytest.raises(RunError, match="the run cannot be read"):
            gather([path])
        (path / name).write_bytes(whole)
    gather([path])


def test_labels_of_a_table_are_known_of_the_images_of_all_folds() -> None:
    runs = [Run.read(make_run(f"fold-{fold}", [0.7], ANSWERS, seed=fold)) for fold in (0, 1)]
    parts = [[p._replace(label=f"cat-{i}") for p in run.predictions[2 * i : 2 * i + 2]] for i, run in enumerate(runs)]
    folds = [replace(run, predictions=part) for run, part in zip(runs, parts, strict=True)]
    labels = Report([Group("", folds)], None, [], Pictures({}), []).labels
    told = [(image.file, label) for image, label in labels.items()]
    assert sorted(told) == [("a", "cat-0"), ("b", "cat-0"), ("c", "cat-1"), ("d", "cat-1")]

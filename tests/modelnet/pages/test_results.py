"""The results on a report's page, and the confusion of many classes; `pages/tables.py` is tested with it."""

import pytest

from modelnet.pages.collect import gather
from modelnet.pages.results import facts_of, group_table, run_table
from modelnet.pages.tables import class_tables, matrix, pairs_table
from tests.support.made_runs import Answer, make_run

ANSWERS: list[Answer] = [("1", "a", "1", 0.9), ("1", "b", "2", 0.8), ("2", "c", "1", 0.9), ("2", "d", "2", 0.7)]

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def test_the_best_epoch_is_said_to_be_picked_on_the_images_that_judge_it() -> None:
    facts = {fact.label: fact for fact in facts_of(gather([make_run("a", [0.7, 0.3, 0.5], ANSWERS)]).groups[0])}
    assert facts["Best epoch"].value == "2" and "Result" not in facts
    assert facts["Best epoch"].detail.endswith("; picked on the validation images, so it looks better than it is")


def test_where_patience_chose_the_best_epoch_page_and_tables_take_it() -> None:
    path = make_run("a", [0.7, 0.3, 0.5], ANSWERS, result="best", patience=1, epochs=9)
    report = gather([path, make_run("b", [0.7], ANSWERS, lr=0.5)])
    facts = {fact.label: fact for fact in facts_of(report.groups[0])}
    assert facts["Result"] == ("Result", "epoch 2", "--patience picked it by its validation accuracy")
    assert facts["Training loss"].value == "0.3000"
    assert group_table(report.groups).caption == "The groups: the best epoch where --patience picked it, else the last"
    assert run_table(report).rows[0][5] == "0.3000"


def test_of_many_classes_the_most_confused_have_a_matrix_and_pairs() -> None:
    ids = [str(i) for i in range(30)]
    answers: list[Answer] = [
        (c, f"{c}-{k}", ids[(i + 1) % 30] if k < i % 4 else c, 0.9) for i, c in enumerate(ids) for k in range(4)
    ]
    (group,) = gather([make_run("a", [0.7], answers, tuple((int(c), f"class {c}", 4) for c in ids))]).groups
    pairs, shown = pairs_table(group), matrix(group)
    assert pairs is not None and shown is not None
    assert pairs.rows[0] == ["class 3", "class 4", "3", "75.0%"]
    assert shown.caption.startswith("Confusion matrix of the 12 classes most often confused")
    assert [row.name for row in shown.rows[:4]] == ["class 3", "class 4", "class 7", "class 8"]
    assert shown.rows[0].cells[:2] == [(1, 0.25), (3, 0.75)]


def test_runs_of_several_folds_have_a_column_and_classes_count_them_all() -> None:
    runs = [make_run(f"f{fold}", [0.7], ANSWERS, fold=fold) for fold in (0, 1)]
    report = gather(runs)
    table = run_table(report)
    assert table.header[:3] == ["run", "fold", "seed"] and [row[1] for row in table.rows] == ["0", "1"]
    assert run_table(gather(runs[:1])).header[:2] == ["run", "seed"]
    balance, (classes,), _ = class_tables(report.groups[0])
    assert [[getattr(row[1], "text", ""), row[2]] for row in classes.rows] == [["8", "4"], ["4", "4"]]
    assert balance.startswith("From 4 training images (snake) to 8 (paddle)")

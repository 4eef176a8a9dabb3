"""Folds and a test set: groups stay whole, growth moves nothing, and what is wrong is named."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from modelnet.data.folds import class_warnings, divide, fold_table, near_copies_torn, size_notes
from modelnet.data.groups import Groups
from modelnet.data.split_table import TEST
from pipeline.errors import OptionsError, SourceError
from pipeline.format.sharded import Reader
from tests.support.planted_copies import WAYS, split_a_random_tree


class Labels:
    """The labels of a cache of so many classes, where no images are needed."""

    def __init__(self, labels: list[int]) -> None:
        self.num_images, self.path = len(labels), Path("c.h5")
        self.class_ids = [str(label) for label in range(max(labels) + 1)]
        self.class_names = [""] * len(self.class_ids)
        names = np.array([b"%d.jpg" % row for row in range(len(labels))])
        self.tables = {"labels": np.array(labels), "filenames": names}

    def table(self, name: str) -> NDArray[np.generic]:
        return self.tables[name]


def reader_of(labels: list[int]) -> Reader:
    return Labels(labels)  # type: ignore[return-value]  # has what the functions ask for


def groups_of(numbers: list[int]) -> Groups:
    of = np.array(numbers)
    sizes = np.bincount(of)
    names = [f"g{number}" if size > 1 else "" for number, size in enumerate(sizes.tolist())]
    return Groups(of, sizes, names, [name or f"image {number}" for number, name in enumerate(names)])


def test_a_hash_of_seed_and_key_decides() -> None:
    groups = groups_of([row // 2 for row in range(400)])
    for seed in (0, 7):
        expected = []
        for key in groups.keys:
            place = int(hashlib.sha256(f"{seed}:{key}".encode()).hexdigest()[:16], 16) / 2**64
            expected += [TEST if place < 0.2 else int((place - 0.2) / 0.8 * 3)] * 2
        assert divide(reader_of([0] * 400), groups, 3, 0.2, seed).tolist() == expected


def test_images_that_come_move_no_other_and_a_larger_test_set_keeps_all() -> None:
    few, many = groups_of(list(range(200))), groups_of(list(range(300)))
    before = divide(reader_of([0] * 200), few, 5, 0.15)
    assert divide(reader_of([0] * 300), many, 5, 0.15)[:200].tolist() == before.tolist()
    larger = divide(reader_of([0] * 200), few, 5, 0.3)
    assert set(np.flatnonzero(before == TEST)) < set(np.flatnonzero(larger == TEST))


@pytest.mark.parametrize("grouped", [False, True])
def test_stratified_folds_have_classes_alike_and_whole_groups(grouped: bool) -> None:
    labels = [row % 3 for row in range(240)]
    groups = groups_of([row // 4 if grouped else row for row in range(240)])
    folds = divide(reader_of(labels), groups, 5, 0.15, stratify=True)
    assert all(len(set(folds[groups.of == number].tolist())) == 1 for number in range(len(groups)))
    assert 30 <= (folds == TEST).sum() <= 42  # 0.15 of 240 is 36
    counts = [[int(((np.array(labels) == c) & (folds == f)).sum()) for f in range(5)] for c in range(3)]
    assert max(max(row) - min(row) for row in counts) <= (4 if grouped else 2)
    other = divide(reader_of(labels), groups, 5, 0.15, seed=1, stratify=True)
    assert not np.array_equal(folds, other)
    without = divide(reader_of(labels), groups, 5, 0, stratify=True)
    assert set(without.tolist()) == set(range(5))


def test_what_cannot_be_divided_is_refused_with_the_reason() -> None:
    cases = [
        ([0] * 8, [0, 0, 0, 0, 0, 1, 2, 3], 2, 0.0, r"group g0 \(of 0/0.jpg\) has 5 of 8 images"),
        ([0] * 8, [0, 0, 0, 0, 1, 1, 2, 2], 3, 0.1, "3 groups of images cannot fill 3 folds and a test set"),
        ([0] * 9, [0, 0, 0, 1, 1, 1, 2, 2, 2], 3, 0.0, "none of 3 groups came into fold 1"),
    ]
    for labels, numbers, folds, test, reason in cases:
        with pytest.raises(SourceError, match=reason) as caught:
            divide(reader_of(labels), groups_of(numbers), folds, test, seed=0)
        assert caught.value.exit_code == 66
    with pytest.raises(SourceError, match="no class has more than 4 images, and --stratify divides each into 5 folds"):
        divide(reader_of([row // 4 for row in range(12)]), groups_of(list(range(12))), 5, 0, stratify=True)


@pytest.mark.parametrize(
    ("labels", "numbers", "folds", "test", "reason"),
    [
        ([0] * 12 + [1] * 12, [row // 3 for row in range(24)], 7, 0.3, "there are 6 groups of images beside the test"),
        ([0] * 5 + [1] * 5, list(range(10)), 5, 0.15, "more than 4 images beside the test set, and --stratify divides"),
        ([0] * 40, list(range(40)), 4, 0.99, "no class has more than 0 images beside the test set"),
        ([0] * 40, list(range(40)), 4, 0.001, "none of 40 groups came into test"),
    ],
)
def test_stratified_folds_that_do_not_fit_are_refused(
    labels: list[int], numbers: list[int], folds: int, test: float, reason: str
) -> None:
    with pytest.raises(SourceError, match=reason) as caught:
        divide(reader_of(labels), groups_of(numbers), folds, test, stratify=True)
    wanted = "Give another --seed, a larger --test, or --test 0" if "none of" in reason else "or a smaller --test"
    assert wanted in str(caught.value)


def test_fewer_groups_than_parts_for_the_test_set_are_divided() -> None:
    folds = divide(reader_of([0, 1] * 40), groups_of([row // 8 for row in range(80)]), 3, 0.15, stratify=True)
    assert (folds == TEST).sum() in (8, 16)  # a seventh of ten groups is one or two
    assert set(folds.tolist()) == {TEST, 0, 1, 2}


def test_without_scikit_learn_the_message_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(OptionsError, match=r"scikit-learn is not installed: .* pip install '\.\[split\]'"):
        divide(reader_of([0] * 20), groups_of(list(range(20))), 2, 0, stratify=True)


def test_classes_that_a_fold_lacks_and_that_one_group_has_are_named() -> None:
    labels, numbers = [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 3, 3, 4, 5, 6]
    folds = np.array([0, 1, TEST, 1, 1, 0, 0, 1])
    assert class_warnings(reader_of(labels), groups_of(numbers), folds) == [
        "class 1 is in one group g3 only, in fold 1: nothing trained without it knows the class",
        "classes without images in a fold: 2 (in test)",
    ]
    assert fold_table(reader_of(labels), folds) == [
        "class  fold 0  fold 1  test  images",
        "0           1       1     1       3",
        "1           0       2     0       2",
        "2           2       1     0       3",
        "all         3       4     1       8",
    ]
    assert fold_table(reader_of(labels), folds, 1)[2] == "and 2 more classes"


def test_near_copies_in_different_folds_are_counted_and_named() -> None:
    near, folds = np.array([5, 5, 7, 5, 7, 8]), np.array([0, 0, 1, TEST, 1, 0])
    assert near_copies_torn(reader_of([0] * 6), near, folds) == [
        "3 images in 1 set of near copies are in different folds: 0/0.jpg (fold 0) and 0/3.jpg (test). "
        "--group-near keeps them together"
    ]
    assert near_copies_torn(reader_of([0] * 6), np.arange(6), folds) == []


def test_folds_of_very_different_sizes_are_noted() -> None:
    assert size_notes(np.array([0] * 9 + [1] * 4 + [TEST] * 20)) == [
        "the folds have 4 to 9 images; --stratify makes them more alike"
    ]
    assert size_notes(np.array([0] * 9 + [1] * 5)) == []


@pytest.mark.parametrize("number", range(3))
def test_planted_groups_and_exact_copies_of_random_trees_never_straddle(number: int, tmp_path: Path) -> None:
    """A handful of the thousand trees of tests/soak/test_splits.py."""
    trial = split_a_random_tree(tmp_path, number)
    assert trial.straddling == []
    assert len(trial.splits) == 3 and trial.patients > 10 and trial.exact
    torn = {way: sum(fold_of[a] != fold_of[b] for a, b, _ in trial.near) for way, fold_of in trial.splits.items()}
    assert torn[WAYS[0]] < torn[WAYS[1]] / 2

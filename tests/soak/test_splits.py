"""Random trees with planted groups and copies: no group and no exact copy straddles; how many near copies do."""

from collections import Counter
from pathlib import Path

import pytest

from tests.soak.conftest import Count
from tests.support.planted_copies import KINDS, WAYS, split_a_random_tree


def test_groups_and_exact_copies_never_straddle_and_near_ones_rarely(
    count: Count, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints the table of docs/splits.md."""
    trees, copies, torn = count(1000, 4), Counter[str](), Counter[tuple[str, str]]()
    groups = exact = refused = 0
    for number in range(trees):
        trial = split_a_random_tree(workspace, number)
        assert trial.straddling == [], number
        groups += trial.patients
        exact += len(trial.exact)
        if len(trial.splits) < len(WAYS):  # a group has more than half of the images
            refused += 1
            continue
        for original, copy, kind in trial.near:
            copies[kind] += 1
            for way, fold_of in trial.splits.items():
                torn[kind, way] += fold_of[original] != fold_of[copy]
    with capsys.disabled():
        print(f"\n{trees} trees, {groups} groups and {exact} exact copies: none straddles; {refused} refused")
        print("| Near copies | Number | " + " | ".join(WAYS) + " |")
        for kind in KINDS:
            shares = [f"{torn[kind, way] / max(copies[kind], 1):.1%}" for way in WAYS]
            print(f"| {kind} | {copies[kind]} | {' | '.join(shares)} |")
    assert refused <= 0.01 * trees
    assert groups > 10 * trees and exact > 4 * trees and min(copies.values()) > trees
    for kind, most in zip(KINDS, (0.05, 0.05, 0.2, 0.7), strict=True):
        assert torn[kind, "--group-near"] <= 2 + most * copies[kind], kind
    assert sum(torn[kind, "a plain random split"] for kind in KINDS) > 0.6 * sum(copies.values())

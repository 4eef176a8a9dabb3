"""Packed names behave as the list of byte strings they came from."""

import pickle

import numpy as np
import pytest

from pipeline.source.packed import PackedNames

SOME = [b"b.jpg", b"", b"a\xff.jpg", b"folder/\xc3\xa4.png", b"in\0side", b"b.jpg"]


def test_packed_names_are_the_list_they_came_from() -> None:
    names = PackedNames(SOME[:2])
    names.append(SOME[2])
    names.extend(SOME[3:])

    assert len(names) == len(SOME) and list(names) == SOME == [names[i] for i in range(len(SOME))]
    assert names[-1] == SOME[-1] and names[1:-1:2] == SOME[1:-1:2]
    assert list(pickle.loads(pickle.dumps(names))) == SOME
    for position in (len(SOME), -len(SOME) - 1):
        with pytest.raises(IndexError):
            names[position]


@pytest.mark.parametrize(("first", "end"), [(0, None), (1, 4), (1, 2), (6, 6)])
def test_a_table_is_numpys_own_of_the_same_list(first: int, end: int | None) -> None:
    expected = np.array(SOME[first:end], f"S{max([1, *map(len, SOME[first:end])])}")

    table = PackedNames(SOME).table(first, end)

    assert table.dtype == expected.dtype and table.tolist() == expected.tolist()


def test_taking_positions_is_taking_them_from_the_list() -> None:
    positions = np.array([4, 0, 0, 3])

    assert list(PackedNames(SOME).take(positions)) == [SOME[i] for i in positions]
    assert PackedNames(SOME).longest() == max(map(len, SOME)) and PackedNames().longest() == 0

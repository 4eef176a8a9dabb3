"""What is trained at once (modelnet/sweep/units.py): a pass that was killed as it saved goes on as one."""

from pathlib import Path

import pytest

from modelnet.runs.folder import RunFolder
from modelnet.sweep.units import go_back_together

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


def saved(name: str, *steps: tuple[int, int]) -> RunFolder:
    """Make a run with a checkpoint after each of these epochs and batches."""
    run = RunFolder.create(name, "")
    for epoch, step in steps:
        run.save_checkpoint({"epoch": epoch, "step": step})
    return run


def test_networks_that_are_a_checkpoint_ahead_go_back_to_the_others() -> None:
    runs = dict(enumerate([saved("a", (0, 0), (2, 0), (4, 1)), saved("b", (0, 0), (2, 0)), saved("c", (2, 0), (4, 1))]))

    assert go_back_together(runs, [0, 1, 2]) == [0, 1, 2]
    assert [run.saved_step() for run in runs.values()] == [(2, 0)] * 3
    assert go_back_together(runs, [0, 2]) == [0, 1, 2]
    assert [run.saved_step() for run in runs.values()] == [(2, 0)] * 3


def test_networks_that_were_never_at_that_step_stay_where_they_are() -> None:
    runs = dict(enumerate([saved("a", (3, 0), (5, 0)), saved("b", (0, 0)), saved("c", (5, 0))]))

    assert go_back_together(runs, [0, 1]) == [1]
    assert runs[0].saved_step() == (5, 0)


def test_one_that_has_ended_goes_back_with_the_others() -> None:
    runs = {3: saved("a", (2, 0), (4, 0)), 5: saved("b", (2, 0))}

    assert go_back_together(runs, [5]) == [3, 5]
    assert not Path("runs/a/checkpoints/previous.pt").exists()

"""Units, which are trained at once: those of each rank, and the step from which the networks of one go on."""

from collections.abc import Mapping, Sequence

import torch

from modelnet.runs.folder import RunFolder
from modelnet.runtime.ranks import Ranks
from pipeline.errors import OptionsError


def own_units(groups: list[list[int]], ranks: Ranks) -> list[list[int]]:
    """Return what this rank trains: of each pass with several networks a part, and some of those that are alone.

    Raises:
        OptionsError: a rank would have none at all.
    """
    alone = [group[0] for group in groups if len(group) == 1]
    several = [group for group in groups if len(group) > 1]
    if (count := max(map(len, [*several, alone]))) < ranks.size:
        reason = f"{count} networks in a pass cannot be divided among {ranks.size} ranks"
        raise OptionsError("too many ranks", None, reason, "Give more --seeds")
    own = [torch.tensor(group).tensor_split(ranks.size)[ranks.rank].tolist() for group in several]
    single = torch.tensor(alone, dtype=torch.int64).tensor_split(ranks.size)[ranks.rank].tolist()
    return sorted([*(part for part in own if part), *([i] for i in single)])


def go_back_together(runs: Mapping[int, RunFolder], unfinished: Sequence[int]) -> list[int]:
    """Return networks that were saved later than others of their pass to the checkpoint before, where that is theirs.

    Networks of a pass are saved one after another. A kill in between leaves some a checkpoint ahead, and trained in
    two passes they would round otherwise.

    Args:
        runs: of the networks of a pass, open for writing.
        unfinished: those with something left to train.

    Returns:
        The networks that are at that step now, but for diverged ones. They are trained together even where one lacks
        nothing but its results: computed without the others these would round otherwise, too.
    """
    steps = {i: run.saved_step() for i, run in runs.items()}
    first = min(steps[i] for i in unfinished)
    ahead = [i for i, step in steps.items() if step > first and runs[i].saved_step("previous.pt") == first]
    for i in ahead:
        runs[i].go_back()
    same = [i for i, step in steps.items() if step == first and not runs[i].read_divergence()]
    return sorted(ahead + same)

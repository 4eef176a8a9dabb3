"""Name groups of runs by what differs between them."""

from collections.abc import Sequence

from modelnet.compare.compare import label_of
from modelnet.options import OPTIONS
from modelnet.pages.run import Run
from modelnet.runs.kind import NOT_GIVEN, facts_of
from pipeline.text import show_path

LONGEST = 40  # letters of a name


def group_names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Name each group by the options in which it differs, "lr=0.1, opt=adam"; "" for a single one.

    Where these names would be long, or are the same, groups of single runs have the names of their folders, and others
    are A, B, ...
    """
    if len(groups) == 1:
        return [""]
    facts = [facts_of(runs[0].config) for runs in groups]
    keys = dict.fromkeys(key for one in facts for key in one)
    differing = [key for key in keys if _names(key) and len({one.get(key, NOT_GIVEN) for one in facts}) > 1]
    by_options = [
        ", ".join(f"{key.replace('_', '-')}={show_path(one.get(key, NOT_GIVEN))}" for key in differing) for one in facts
    ]
    by_folder = [show_path(runs[0].path.name) for runs in groups] if all(len(runs) == 1 for runs in groups) else []
    for names in (by_options, by_folder):
        if len(set(names)) == len(groups) and all(0 < len(name) <= LONGEST for name in names):
            return names
    return [label_of(number) for number in range(len(groups))]


def _names(key: str) -> bool:
    """Say whether a fact can name a group: what results depend on, but for seeds and what the machine is."""
    return key not in ("commit", "torch") and (key not in OPTIONS or OPTIONS[key].compared)

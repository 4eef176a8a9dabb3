"""Whether torchrun, or another launcher, has started this process among several. Imports no torch."""

import os

_NEEDED = ("WORLD_SIZE", "RANK", "MASTER_PORT")  # a launcher sets them all


def is_rank() -> bool:
    """Whether this process is one of several that train together."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and not missing_variables()


def launcher_variables() -> dict[str, str]:
    """Return what the launcher has set, by name."""
    return {name: os.environ[name] for name in _NEEDED if os.environ.get(name)}


def missing_variables() -> list[str]:
    """Return the variables that are missing beside WORLD_SIZE; none where several processes meet, or one is alone."""
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return []
    return [name for name in _NEEDED if not os.environ.get(name)]

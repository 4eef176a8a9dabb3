"""List the values that the results of a run depend on; tell runs that differ only in their seeds, and repeated ones."""

import json
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

from modelnet.options import OPTIONS, TrainOptions
from modelnet.options.declaration import as_text
from modelnet.runs.history import describe_epochs
from pipeline.errors import RunError
from pipeline.recipe import Recipe
from pipeline.text import show_path

NOT_GIVEN = "none"  # the text of a value that an option does not have


def facts_of(config: dict[str, Any]) -> dict[str, str]:
    """Return what results depend on, as text: options as they were used, weights, images, recipe, program.

    A file of weights or of code is its digest: another one under the same path is another, a moved one the same. Runs
    of earlier versions have no digest, so that their path counts.

    Args:
        config: of config.json.
    """
    options = TrainOptions.from_dict(config["options"])
    values = {name: value for name, value in options.resolved().items() if not OPTIONS[name].recorded_only}
    facts = {name: NOT_GIVEN if value in (None, "", []) else as_text(value) for name, value in values.items()}
    facts["epochs"] = describe_epochs(config)
    if weights := config.get("weights"):
        facts["weights"] = f"SHA-256 {weights['sha256'][:12]}"
    if labels := config.get("labels"):
        facts["labels"] = f"SHA-256 {labels['sha256'][:12]}"
    for option in config.get("code", {}).keys() & values.keys():
        facts[option] = f"{str(values[option]).rpartition(':')[2]} of SHA-256 {config['code'][option][:12]}"
    cache = config["cache"]
    facts["training images"] = f"{cache['images']} of {images_of(cache)[:8]}"
    if split := config.get("split"):  # each fold trains on other images; runs of all folds go together
        facts["split"] = f"SHA-256 {split['sha256'][:12]}"
        facts["training images"] = f"{'all' if options.fold is None else 'other'} folds of {images_of(cache)[:8]}"
    facts |= {name: str(value) for name, value in Recipe.from_dict(cache["recipe"]).to_dict().items()}
    torch = config.get("versions", {}).get("torch") or NOT_GIVEN
    return facts | {"commit": str(config.get("git_commit"))[:12], "torch": torch}


def images_of(described: Mapping[str, Any]) -> str:
    """Return the fingerprint that tells whether two runs have the same images.

    It is the one that earlier versions gave, where they could: so their runs go together with new ones.

    Args:
        described: `cache` or `val` of config.json.
    """
    return str(described.get("earlier_fingerprint") or described["fingerprint"])


def kind_of(facts: Mapping[str, str]) -> str:
    """Return the values that two runs share if they differ only in their seeds, on any machine."""
    left_out = [name for name, option in OPTIONS.items() if not option.compared] + ["commit", "torch"]
    return json.dumps({name: value for name, value in facts.items() if name not in left_out})


def refuse_repeats(runs: Iterable[tuple[Path, Hashable]], what: str) -> None:
    """Refuse a run beside its repetition: one network would count twice, as if it were another seed.

    Args:
        runs: the folder of each, and what only its repetition shares with it.
        what: cannot be done, for the message.

    Raises:
        RunError: names both.
    """
    seen: dict[Hashable, Path] = {}
    for path, key in runs:
        if (first := seen.setdefault(key, path)) is not path:
            reason = f"it repeats {show_path(first)}: the same options, seed and data seed"
            raise RunError(what, path, reason, "Leave one of them out")

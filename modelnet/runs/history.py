"""The parts of a run: the options that it began with, and those with which `--resume` went on."""

from typing import Any

from modelnet.options import TrainOptions
from modelnet.options.groups import RULES
from modelnet.runtime.device import CONTIGUOUS


def parts_of(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a run, in their order: {"epoch": epochs before it, "options": of that part}.

    Args:
        config: of config.json.
    """
    parts: list[dict[str, Any]] = config.get("parts") or [{"epoch": 0, "options": config["options"]}]
    return parts


def with_part(config: dict[str, Any], options: TrainOptions, epoch: int) -> dict[str, Any]:
    """Return the config of a resumed run; add a part if its options differ from those before.

    Args:
        config: of config.json until now.
        options: that the run goes on with.
        epoch: epochs that it has had.
    """
    parts, values = parts_of(config), options.to_dict()
    before = TrainOptions.from_dict(parts[-1]["options"]).to_dict()
    recorded = {"memory_format": CONTIGUOUS} | config  # a run of an earlier version names none
    chosen = {name: recorded.get(name) for name in RULES if before[name] is None}  # by a rule
    if values in (before, before | chosen):
        return config | {"options": values}
    return config | {"options": values, "parts": [*parts, {"epoch": epoch, "options": values}]}


def describe_epochs(config: dict[str, Any]) -> str:
    """Return the epochs that a run was made for: "12", or "6, from epoch 7 on 12" where no command repeats that."""
    if config.get("command", "") is not None:
        return str(_epochs(config["options"]))
    parts = parts_of(config)
    texts = [str(_epochs(parts[0]["options"]))]
    for part in parts[1:]:
        epochs = _epochs(part["options"])
        if epochs != int(texts[-1].rpartition(" ")[2]):
            texts.append(f"from epoch {part['epoch'] + 1} on {epochs}")
    return ", ".join(texts)


def _epochs(options: dict[str, Any]) -> int:
    return TrainOptions.from_dict(options).epochs  # an older run may not name them

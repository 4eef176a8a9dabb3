"""Check the content of a checkpoint against its schema before it is used: a right digest proves no content."""

import inspect
import json
from typing import Any

import torch
from torch import Tensor

from modelnet.nets.weights_file import odd_kind
from modelnet.runs import config, schema
from modelnet.runs.schema import Check, list_of, mapping, number, optional, record, refused, text, whole
from pipeline.errors import CheckpointError
from pipeline.format.features import Features
from pipeline.text import parse_size

FORMAT = 5
_RNG_BYTES = 5056  # state of torch's Mersenne Twister on the CPU; of the CUDA generator
_RNG_CUDA_BYTES = 16


def _tensor(value: Any, key: str) -> None:
    """Accept a dense tensor of real numbers that has its bytes here."""
    if not isinstance(value, Tensor):
        raise refused(key, "a tensor", value)
    if kind := odd_kind(value):
        raise ValueError(f"{key} is a dense tensor of real numbers, not a {kind} one")


def _tensor_or_number(value: Any, key: str) -> None:
    """Accept an optimizer's state of a parameter."""
    if value is not None:
        (_tensor if isinstance(value, Tensor) else number())(value, key)


def _random_state(length: int) -> Check:
    def check(value: Any, key: str) -> None:
        _tensor(value, key)
        if value.dtype != torch.uint8 or value.shape != (length,):
            raise ValueError(f"{key} has {length} bytes, not {tuple(value.shape)} of {value.dtype}")
        if length == _RNG_BYTES:
            try:
                torch.Generator().set_state(value)
            except RuntimeError as error:
                raise ValueError(f"{key} is no state of torch's random generator") from error

    return check


def _size(value: Any, key: str) -> None:
    """Accept the side of square images or the number of features, or [height, width]."""
    (list_of(whole(1), least=2) if isinstance(value, list) else whole(1))(value, key)


_tensors = mapping(_tensor)
_content = record(
    {
        "model": record({"name": text, "classes": whole(1), "size": _size}),
        "recipe": config.recipe,
        "class_ids": list_of(schema.whole_or_text, least=1),
        "class_names": list_of(text, least=1),
        "fingerprint": text,
        "options": config.options,
        "weights": _tensors,
        "optimizer": record(
            {
                "state": mapping(mapping(_tensor_or_number), whole()),
                "param_groups": list_of(record({"params": list_of(whole())}), least=1),
            }
        ),
        "average": _tensors,
        "averaged": whole(),
        "scaler": mapping(number()),
        "gradients": _tensors,
        "epoch": whole(),
        "step": whole(),
        "running": record({"loss_sum": number(), "correct": whole(), "images": whole()}),
        "seconds": number(0),
        "waited": number(0),
        "best": list_of(number()),
        "stale": whole(),
        "decays": whole(),
        "rng": _random_state(_RNG_BYTES),
        "rng_cuda": list_of(_random_state(_RNG_CUDA_BYTES)),
    },
    {"features": optional(config.features), "weights_sha256": optional(text), "code": mapping(text)},
)


def _setting(value: Any, key: str) -> None:
    """Accept a number that an optimizer may have; torch takes no longer integers."""
    (number() if isinstance(value, float) else number(-1e15, 1e15))(value, key)


def check_content(content: dict[str, Any], path: str) -> None:
    """Refuse a checkpoint of another format, or with content that training never writes.

    Raises:
        CheckpointError: names the key, and says what came.
    """
    found = content.get("format")
    if type(found) is not int or found != FORMAT:
        reason = f"it has format {found!r}; format {FORMAT} is read"
        raise CheckpointError("the checkpoint does not fit", path, reason)
    try:
        _content(content, "")
        _check_sizes(content)
    except ValueError as error:
        raise CheckpointError("the checkpoint cannot be used", path, str(error)) from error


def _check_sizes(content: dict[str, Any]) -> None:
    """Compare values that the content has twice."""
    classes = content["model"]["classes"]
    for key in ("class_ids", "class_names"):
        if len(content[key]) != classes:
            raise ValueError(f"{key} has {len(content[key])} entries, and model.classes is {classes}")
    schema.different("class_ids", list(map(str, content["class_ids"])))
    features, cut = content.get("features"), content["options"].get("crop_size")
    wanted, size = _wanted_size(features, cut or content["recipe"]["size"]), content["model"]["size"]
    if (tuple(size) if isinstance(size, list) else size) != wanted:
        raise refused("model.size", f"{wanted} by its recipe and options", size)
    if content["running"]["correct"] > content["running"]["images"]:
        raise refused("running.correct", "at most running.images", content["running"]["correct"])


def _wanted_size(features: dict[str, Any] | None, size: Any) -> int | tuple[int, int]:
    """Return the input size of a network: features, square images, or images of (height, width)."""
    if features:
        return int(features["length"])
    height, width = parse_size(tuple(size) if isinstance(size, list) else size)
    return height if height == width else (height, width)


def evaluated_weights(content: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights to predict with: their moving average (EMA) where there is one."""
    weights: dict[str, Tensor] = content["average"] or content["weights"]
    return weights


def features_of(content: dict[str, Any]) -> Features | None:
    """Return the features that the network takes; None where it takes images."""
    values = content.get("features")
    return None if values is None else Features.from_dict(values)


def check_optimizer(saved: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Refuse the state of an optimizer that is not one of this kind for these parameters.

    Args:
        saved: of a checkpoint whose content was checked.
        optimizer: that is to take it.

    Raises:
        ValueError: names the key, and says what came.
    """
    groups = optimizer.state_dict()["param_groups"]
    if [group["params"] for group in saved["param_groups"]] != [group["params"] for group in groups]:
        raise ValueError("optimizer.param_groups name other parameters than the network has")
    for position, (theirs, ours) in enumerate(zip(saved["param_groups"], groups, strict=True)):
        for name, value in ours.items():
            _check_setting(theirs.get(name), value, f"optimizer.param_groups[{position}].{name}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kept = _state_of_one(optimizer)
    for index, entries in saved["state"].items():
        key = f"optimizer.state.{index}"
        if index >= len(parameters):
            raise ValueError(f"{key} is of no parameter: there are {len(parameters)}")
        for name, value in kept.items():
            if isinstance(value, Tensor) and not isinstance(entries.get(name), Tensor):
                raise refused(f"{key}.{name}", "a tensor", entries.get(name))
        for name, value in entries.items():
            if isinstance(value, Tensor) and value.shape not in ((), parameters[index].shape):
                shape = tuple(parameters[index].shape)
                raise refused(f"{key}.{name}", f"of shape {shape}", tuple(value.shape))


def _check_setting(theirs: Any, ours: Any, key: str) -> None:
    """Refuse a setting of an optimizer, as its learning rate, of another type."""
    if isinstance(ours, bool | None):
        if not isinstance(theirs, bool | None) or (theirs is not None and ours is not None and theirs != ours):
            raise refused(key, "true, false or null" if ours is None else json.dumps(ours), theirs)
    elif isinstance(ours, tuple):
        if not isinstance(theirs, tuple) or len(theirs) != len(ours):
            raise refused(key, f"{len(ours)} numbers", theirs)
        for value in theirs:
            _setting(value, key)
    elif isinstance(ours, int | float):
        _setting(theirs, key)


def _state_of_one(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return this optimizer's state of a parameter after a step."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    parameter.grad = torch.zeros(1)
    known = inspect.signature(type(optimizer).__init__).parameters  # `defaults` of AdamW has more than it takes
    settings = {name: value for name, value in optimizer.defaults.items() if name in known}
    probe = type(optimizer)([parameter], **settings)
    probe.step()
    return dict(probe.state[parameter])

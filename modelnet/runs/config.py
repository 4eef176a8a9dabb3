"""Check config.json and scores.json against their schemas; called where these files are read."""

import json
from pathlib import Path
from typing import Any, get_args, get_type_hints

from modelnet.options import TrainOptions
from modelnet.runs import schema
from modelnet.runs.schema import Check, list_of, mapping, number, one_of, optional, parsed, record, refused, text, whole
from pipeline.format.features import Features
from pipeline.recipe import Recipe

_KINDS: dict[type, Check] = {Path: schema.path, str: text, int: whole(), float: number()}


def options(values: Any, key: str) -> None:
    """Accept the options of a run: each of its own type, and together what `TrainOptions` accepts."""
    if not isinstance(values, dict):
        raise refused(key, "a table of options", values)
    for name, kind in get_type_hints(TrainOptions).items():
        if name in values:
            _check_option(values[name], get_args(kind) or (kind,), f"{key}.{name}")
    parsed(TrainOptions.from_dict)(values, key)


def _check_option(value: Any, kinds: tuple[Any, ...], key: str) -> None:
    if value is None and type(None) in kinds:
        return
    if bool in kinds:
        if not isinstance(value, bool):
            raise refused(key, "true or false", value)
        return
    if Ellipsis in kinds:
        list_of(text)(value, key)
        return
    if {int, str} <= set(kinds):
        schema.whole_or_text(value, key)
        return
    _KINDS[next(kind for kind in kinds if kind in _KINDS)](value, key)


_rgb = list_of(number(), least=3)
recipe = schema.both(record({"mean": _rgb, "std": _rgb}), parsed(Recipe.from_dict))
features = parsed(Features.from_dict)
_images = record(
    {
        "fingerprint": text,
        "images": whole(1),
        "classes": list_of(record({"id": schema.whole_or_text, "name": text, "images": whole()}), least=1),
        "recipe": recipe,
    },
    {"features": optional(features), "earlier_fingerprint": text},
)
_config = record(
    {"options": options, "cache": _images, "val": optional(_images)},
    {
        "command": optional(text),
        "parts": list_of(record({"epoch": whole(), "options": options})),
        "ranks": whole(1),
        "model": text,
        "learning_rate": number(0),
        "device": text,
        "device_name": text,
        "threads": whole(1),
        "head_threads": whole(1),
        "memory_format": one_of("contiguous", "channels_last"),
        "result": one_of("last", "best"),
        "weights": optional(record({"sha256": text})),
        "features": optional(features),
        "split": optional(record({"sha256": text})),
        "code": mapping(text),
        "labels": optional(record({"sha256": text}, {"images": whole(), "left_out": whole()})),
        "versions": mapping(optional(text)),
        "git_commit": optional(text),
    },
)
_share = optional(number(0, 1))
_scores = record(
    {
        "images": whole(1),
        "loss": number(0),
        "accuracy": number(0, 1),
        "top5": _share,
        "classes": list_of(
            record(
                {
                    "id": schema.whole_or_text,
                    "name": text,
                    "images": whole(),
                    "precision": _share,
                    "recall": _share,
                    "f1": _share,
                }
            ),
            least=1,
        ),
        "confusion": list_of(list_of(whole(0, 2**53)), least=1),
    }
)


def parse_config(data: bytes) -> dict[str, Any]:
    """Return the content of a config.json.

    Raises:
        ValueError: it is not that of a run: names the key, and says what came.
    """
    values: dict[str, Any] = _json(data)
    _config(values, "")
    if values["val"] is None and TrainOptions.from_dict(values["options"]).validates:
        raise refused("val", "a table, since options name validation images", None)
    for side in ("cache", "val"):
        if (images := values[side]) is None:
            continue
        schema.different(f"{side}.classes", [str(one["id"]) for one in images["classes"]])
        total = sum(one["images"] for one in images["classes"])
        if total != images["images"]:
            raise refused(f"{side}.images", f"the sum of its classes' images, {total},", images["images"])
    return values


def parse_scores(data: bytes) -> dict[str, Any]:
    """Return the content of a scores.json.

    Raises:
        ValueError: it is not that of a run: names the key, and says what came.
    """
    values: dict[str, Any] = _json(data)
    _scores(values, "")
    count = len(values["classes"])
    if [len(row) for row in values["confusion"]] != [count] * count:
        raise refused("confusion", f"{count} lists of {count} numbers, one a class", values["confusion"])
    return values


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is no JSON ({error})") from error


def json_text(values: dict[str, Any]) -> str:
    """Return values as the text of a file."""
    return json.dumps(values, indent=2) + "\n"

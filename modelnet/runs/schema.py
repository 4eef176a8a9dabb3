"""Check values read from a file against a schema, and name the wrong key and its value.

A check takes a value and the name of its key, and raises ValueError. Checks of larger things are made of smaller ones.
"""

import json
import math
import os
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any, str], None]

LARGEST = 2**63 - 1

LONGEST = 60  # characters of a value in a message


def refused(key: str, needed: str, value: Any) -> ValueError:
    """Return the error: "cache.images is a whole number from 0, not 'many'"."""
    return ValueError(f"{key or 'it'} is {needed}, not {_shown(value)}")


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return f"a table with {len(value)} keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    quoted = repr(value)
    return quoted if len(quoted) <= LONGEST else f"{quoted[:LONGEST]}..."


def whole(least: int = 0, most: int = LARGEST) -> Check:
    """Accept a whole number from `least` to `most`."""

    def check(value: Any, key: str) -> None:
        if type(value) is not int or not least <= value <= most:
            limit = "" if most == LARGEST else f" to {most}"
            raise refused(key, f"a whole number from {least}{limit}", value)

    return check


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """Accept a finite number from `least` to `most`."""

    def check(value: Any, key: str) -> None:
        if type(value) not in (int, float) or abs(value) > 1e300 or value != value or not least <= value <= most:
            limits = [f" from {least:g}"] * (least > -math.inf) + [f" to {most:g}"] * (most < math.inf)
            raise refused(key, f"a number{''.join(limits)}", value)

    return check


def text(value: Any, key: str) -> None:
    """Accept text."""
    if not isinstance(value, str):
        raise refused(key, "text", value)


def path(value: Any, key: str) -> None:
    """Accept text that can be the path of a file."""
    text(value, key)
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise refused(key, "a path", value) from None
    if "\0" in value:
        raise refused(key, "a path", value)


def whole_or_text(value: Any, key: str) -> None:
    """Accept text or a whole number, as class ids are."""
    if not isinstance(value, str):
        whole()(value, key)


def optional(check: Check) -> Check:
    """Accept null, and values that `check` accepts."""
    return lambda value, key: None if value is None else check(value, key)


def list_of(check: Check, least: int = 0) -> Check:
    """Accept a list of at least `least` entries that `check` accepts."""

    def check_all(values: Any, key: str) -> None:
        if not isinstance(values, list) or len(values) < least:
            raise refused(key, f"a list of {least} or more" if least else "a list", values)
        for number, value in enumerate(values):
            check(value, f"{key}[{number}]")

    return check_all


def mapping(check_value: Check, check_key: Check = text) -> Check:
    """Accept a table with any keys whose values `check_value` accepts."""

    def check_all(values: Any, key: str) -> None:
        if not isinstance(values, dict):
            raise refused(key, "a table", values)
        for name, value in values.items():
            check_key(name, f"a key of {key}")
            check_value(value, f"{key}.{name}")

    return check_all


def record(needed: Mapping[str, Check], later: Mapping[str, Check] | None = None) -> Check:
    """Accept a table that has all keys of `needed`; those of `later` may lack, as in files of earlier versions.

    Further keys are let be: a later version may have more.
    """

    def check_all(values: Any, key: str) -> None:
        if not isinstance(values, dict):
            raise refused(key, f"a table with {', '.join(needed)}", values)
        for name, check in {**needed, **(later or {})}.items():
            inner = f"{key}.{name}" if key else name
            if name in values:
                check(values[name], inner)
            elif name in needed:
                raise ValueError(f"{inner} is missing")

    return check_all


def parsed(parse: Callable[[Any], Any]) -> Check:
    """Accept values from which a class can be built; the class's own message names the fault."""

    def check(value: Any, key: str) -> None:
        if not isinstance(value, dict):
            raise refused(key, "a table", value)
        try:
            parse(value)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            raise ValueError(f"{key}: {error}") from error

    return check


def one_of(*texts: str) -> Check:
    """Accept one of these texts."""

    def check(value: Any, key: str) -> None:
        if value not in texts:
            raise refused(key, " or ".join(texts), value)

    return check


def both(first: Check, second: Check) -> Check:
    """Accept values that both checks accept."""

    def check(value: Any, key: str) -> None:
        first(value, key)
        second(value, key)

    return check


def different(key: str, values: list[Any]) -> None:
    """Refuse a list in which a value occurs twice."""
    if len(set(values)) < len(values):
        twice = next(value for number, value in enumerate(values) if value in values[:number])
        raise ValueError(f"{key} has {_shown(twice)} twice")

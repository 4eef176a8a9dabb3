"""How a person names code of their own, `file.py:Name`, and arguments for it, `key=value`."""

import ast
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

EXAMPLE = "net.py:Net"  # how a network of one's own is named
GIVEN = "python:"  # before the class of a network that was given from Python, and is in no file


class CodeName(NamedTuple):
    """A class or function `name` in the file `path`."""

    path: Path
    name: str


def code_name(text: str) -> CodeName | None:
    """Return the code that a text names; None where it names none, as "resnet18" or "timm:resnet18".

    Raises:
        ValueError: it names a file, and nothing in it.
    """
    path, _, name = text.rpartition(":")
    if path.endswith(".py") and name.isidentifier():
        return CodeName(Path(path), name)
    if text.endswith(".py") or path.endswith(".py"):
        raise ValueError(f"a class or function in a file is named as net.py:Net, not {text!r}")
    return None


def is_own(model: str) -> bool:
    """Say whether a network is a person's own."""
    return model.startswith(GIVEN) or code_name(model) is not None


def parse_arguments(texts: Iterable[str]) -> dict[str, Any]:
    """Return arguments by name: each value is read as a literal of Python, or else is text.

    Raises:
        ValueError: a text is not "key=value", or a key occurs twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"model_arg is given as key=value, not {text!r}")
        if key in arguments:
            raise ValueError(f"model_arg gives {key} twice")
        try:
            arguments[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            arguments[key] = value
    return arguments


def check_code(model: str, model_arg: Iterable[str], augment_code: str | None) -> None:
    """Refuse names of code, and arguments, that mean nothing.

    Raises:
        ValueError: says what is needed.
    """
    parse_arguments(model_arg)
    code_name(model)
    if augment_code is not None and code_name(augment_code) is None:
        raise ValueError(f"augment_code names a function in a file, as changes.py:change, not {augment_code!r}")

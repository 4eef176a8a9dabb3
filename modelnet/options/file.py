"""Read the options of training from a file: TOML, or JSON as the config.json of a run."""

import json
import tomllib
from collections.abc import Container, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from modelnet.options.groups import chosen_anew
from modelnet.options.train import OPTIONS, TrainOptions
from pipeline.errors import OptionsError, SourceError, source_errors
from pipeline.text import shorten, show_path

_WHAT = "the file of options cannot be used"
_TYPED = ("seeds", "data_seeds", "sweep", "no_split")  # of the command train: they are no options of one training


def read_options(path: Path, typed: Container[str] = ()) -> dict[str, Any]:
    """Return the options that a file names, by name.

    Args:
        path: `.toml` or `.json`. Of the config.json of a run, its options count, without the name of the run; in
            another file with a table of options nothing may stand beside it.
        typed: options that will have other values: what a rule chose by them for a run does not count.

    Raises:
        SourceError, AccessDenied, WorkerDied, StorageError: as `source_errors`.
        OptionsError: it is no TOML or JSON, an option is unknown, or a value is impossible; names file and key.
    """
    values = read_table(path)
    if not isinstance(stored := values.get("options"), dict):
        return checked_options(values, path)
    options = checked_options({name: value for name, value in stored.items() if name != "name"}, path, "options.")
    others = [show_path(key) for key in values if key != "options"]
    of_run = isinstance(values.get("cache"), dict)
    if others and not of_run:
        what = f"nothing reads {shorten(others)} beside options"
        raise OptionsError(_WHAT, path, what, "Put all of them into options, or leave that table out")
    if values.get("code"):
        reason = "it is of a run with code of its own, which lies beside it"
        raise OptionsError(_WHAT, path, reason, "Take the options of that run: --from RUN")
    for name in chosen_anew(typed) if of_run else ():
        options.pop(name, None)
    return options


def read_table(path: Path) -> dict[str, Any]:
    """Return the content of a file of TOML or JSON, whichever its suffix says.

    Raises:
        As `read_options`.
    """
    readers = {".toml": tomllib.loads, ".json": json.loads}
    if (reader := readers.get(path.suffix.lower())) is None:
        raise OptionsError(_WHAT, path, "its name ends in neither .toml nor .json", "Rename it")
    if path.exists() and not path.is_file():  # reading a FIFO would wait for ever
        reason = "it is a folder" if path.is_dir() else "not a regular file"
        raise SourceError("the file of options cannot be read", path, reason, "Give a .toml or .json file")
    with source_errors("the file of options cannot be read", path):
        content = path.read_bytes()
    try:
        values = reader(content.decode("utf-8-sig"))  # some editors begin a file with a byte order mark
    except (ValueError, RecursionError) as error:
        raise OptionsError(_WHAT, path, f"it is no {path.suffix[1:].upper()}: {error}") from error
    if not isinstance(values, dict):
        raise OptionsError(_WHAT, path, f"it holds no options, but {values!r:.60}")
    return values


def checked_options(values: Mapping[str, Any], path: Path, table: str = "") -> dict[str, Any]:
    """Return options by name, each checked as where it is typed.

    Args:
        values: as they stand in the file; an option may be written as its name or as it is typed.
        path: the file, for messages.
        table: the part of the file that holds them, for messages.

    Raises:
        OptionsError: an unknown name, or an impossible value.
    """
    options: dict[str, Any] = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name in _TYPED:
            typed = f"--{name.replace('_', '-')}"
            raise OptionsError(_WHAT, path, f"{table}{key} stands in no file of options", f"Type {typed}")
        if name not in OPTIONS:
            raise OptionsError(_WHAT, path, unknown(key, OPTIONS, table))
        if name in options:
            raise OptionsError(_WHAT, path, f"{table}{key} is given twice, with - and with _", "Keep one")
        try:
            TrainOptions(**{"cache": Path(), name: value})  # alone: what it needs may be typed
        except ValueError as error:
            raise OptionsError(_WHAT, path, f"{table}{error}") from error
        options[name] = value
    return options


def unknown(key: str, known: Iterable[str], table: str = "", what: str = "training") -> str:
    """Say that there is no such key, and name the nearest."""
    near = get_close_matches(key.replace("-", "_"), known, 1)
    return f"{table}{key} is no option of {what}" + (f"; did you mean {near[0]}?" if near else "")

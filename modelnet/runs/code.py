"""A person's own code of a run: where its copy is, and whether it may be executed.

A run folder that comes from somewhere else brings code of somebody else. So `train` notes the digest of each file that
a person names, and any other is executed only where the person says so.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from modelnet.nets.own import OwnCode, read_code
from modelnet.options import TrainOptions
from modelnet.options.code import code_name
from modelnet.runs.reader import RunReader
from pipeline.errors import CheckpointError, CodeError

_allowed: set[str] = set()  # digests of files in this process: a home may be read-only


def names_of(options: TrainOptions) -> dict[str, str]:
    """Return what options name, of code and else: "net.py:Net" by option."""
    return {"model": options.model, "augment_code": options.augment_code or ""}


def named_code(names: Mapping[str, str]) -> dict[str, OwnCode]:
    """Read the files that a person named, by option.

    Raises:
        RunError: one is not there.
    """
    named = {option: code_name(name) for option, name in names.items()}
    return {option: read_code(name) for option, name in named.items() if name is not None}


def kept_code(run: RunReader, names: Mapping[str, str], digests: Mapping[str, str]) -> dict[str, OwnCode]:
    """Read the copies that a run keeps of such files, by option.

    Args:
        run: the run.
        names: what is meant in each file, by option; those of no code are let be.
        digests: SHA-256 by option, of its config.json or a checkpoint.

    Raises:
        RunError: a copy is not there.
        CheckpointError: it is another one than the run had.
        CodeError: nobody here named such a file to `train`.
    """
    kept: dict[str, OwnCode] = {}
    for option, name in names.items():
        if (named := code_name(name)) is None:
            continue
        code = read_code(named._replace(path=run.code_path(option)))
        if code.sha256 != digests.get(option):
            reason = f"its SHA-256 is {code.sha256[:12]}, and the run has {digests.get(option, 'none')[:12]}"
            raise CheckpointError("the code of the run was changed", code.path, reason, "Train anew with such code")
        if code.sha256 not in _allowed | _trusted():
            reason = f"nobody has trained here with a file of SHA-256 {code.sha256[:12]}; it is not executed"
            raise CodeError("unknown code", code.path, reason, "Read it, then give --trust-code")
        kept[option] = code
    return kept


def digests_of(code: dict[str, OwnCode]) -> dict[str, str]:
    """Return the SHA-256 of each file, by option."""
    return {option: one.sha256 for option, one in code.items()}


def allow(digests: Mapping[str, str]) -> None:
    """Let code of these digests be executed in this process: a person said so."""
    _allowed.update(digests.values())


def trust(code: dict[str, OwnCode]) -> str:
    """Note the digests of files that a person named to `train`; return a warning where that failed, else ""."""
    path, new = _place(), {one.sha256: one for one in code.values()}
    allow(digests_of(code))
    lines = "".join(f"{digest}  {one.path.name}\n" for digest, one in new.items() if digest not in _trusted())
    if not lines:
        return ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
            file.write(lines)
    except OSError as error:
        return f"{path} cannot be written ({error.strerror}): later commands need --trust-code"
    return ""


def _place() -> Path:
    state = os.environ.get("XDG_STATE_HOME", "")
    home = os.path.expanduser("~/.local/state")  # noqa: PTH111 -- Path's raises where nobody knows a home
    return Path(state if Path(state).is_absolute() else home) / "modelnet" / "trusted"


def _trusted() -> set[str]:
    try:
        return {line[:64] for line in _place().read_text("utf-8", "surrogateescape").splitlines()}
    except OSError:
        return set()

"""The options of a run for another run like it."""

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from modelnet.data.caches import from_home, has_rows_of
from modelnet.nets.weights_file import digest_of
from modelnet.options import TrainOptions
from modelnet.options.code import GIVEN
from modelnet.options.groups import chosen_anew
from modelnet.runs.code import allow, kept_code, names_of
from modelnet.runs.reader import RunReader
from pipeline import TensorCache
from pipeline.errors import RunError
from pipeline.text import show_path


def repeated_options(path: Path, typed: Container[str] = (), trust_code: bool = False) -> dict[str, Any]:
    """Return the options of a run, by name, without the name of its folder.

    Threads and memory format are those of the run, unless an option is typed by which a rule chooses them. Its caches
    and its weights are found where they are now. Its split is the file that it named, or the copy in the run folder if
    that file has changed. Its table of labels, and code of a person's own, are always copies.

    Args:
        path: the run folder.
        typed: options that will have other values: nothing is looked for that only they need.
        trust_code: execute code that the run brings, although nobody has trained with it here.

    Raises:
        RunError: no run there, or it was given a network from Python.
        CacheMissing: a cache is nowhere.
        CodeError, CheckpointError: code that nobody here has trained with, or that was changed.
    """
    run = RunReader(path)
    config = run.read_config()
    options = TrainOptions.from_dict(config["options"])
    values = {name: value for name, value in config["options"].items() if name != "name" and name not in typed}
    for name in chosen_anew(typed):
        values.pop(name, None)
    if values.get("model", "").startswith(GIVEN):
        reason = "its network was given from Python, and no file has it"
        raise RunError("the run cannot be repeated", path, reason, "Give --model, or train it from Python")
    for side in {"cache", "val"} & {name for name, value in values.items() if value is not None}:
        values[side] = str(run.cache_path(side))
    if values.get("split") is not None:
        try:
            values["split"] = str(run.split_path())
        except RunError:  # it is gone, or another now
            values["split"] = str(run.path / "split.csv")
    if values.get("weights") is not None:
        values["weights"] = str(from_home(Path(values["weights"]), path))
    if values.get("labels") is not None:
        values["labels"] = str(run.labels_path(options))
    names = {option: name for option, name in names_of(options).items() if option in values}
    digests = config.get("code", {})
    if trust_code:
        allow(digests)
    for option, code in kept_code(run, names, digests).items():
        values[option] = f"{code.path}:{names[option].rpartition(':')[2]}"
    return values


def changed_files(path: Path, values: Mapping[str, Any]) -> list[str]:
    """Warn of each cache of a run that has other images than when the run began, and of other weights.

    Args:
        path: the run folder.
        values: as `repeated_options` returned them.

    Raises:
        CacheError: a cache cannot be used.
        AccessDenied: the weights may not be read.
    """
    config = RunReader(path).read_config()
    caches = {side: Path(values[side]) for side in ("cache", "val") if values.get(side) is not None}
    changed = [
        show_path(cache)
        for side, cache in caches.items()
        if not has_rows_of(TensorCache(cache), config[side]["fingerprint"])
    ]
    began = f"has changed since {show_path(path)} was trained"
    warnings = [f"{cache} {began}: the images are others" for cache in dict.fromkeys(changed)]
    file, described = Path(values.get("weights") or ""), config.get("weights")
    if described and file.is_file() and digest_of(file) != described["sha256"]:
        warnings.append(f"{show_path(file)} {began}: the weights are others")
    return warnings

"""The files beside an exported network: `infer.py` and its `infer.json`, or a `config.json`.

`infer.py` is one fixed program, the module of that name. Its first line has the SHA-256 of the rest: so a file that a
person changed, or that is another's, is told apart from one that `export` wrote, of whatever version.
"""

import hashlib
import json
from collections.abc import Callable, Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from modelnet.eval.trained import Trained
from pipeline.decode.formats import FORMATS
from pipeline.errors import OptionsError
from pipeline.recipe import Recipe

CONFIG = "config.json"  # of safetensors
INFER = "infer.py"
PREPARED = "infer.json"  # what infer.py reads
BESIDE = {"safetensors": (CONFIG,), "onnx": (INFER, PREPARED)}  # by format

_MARK = b"# Written by modelnet-cache; SHA-256 of the lines below: "


def infer_files(trained: Trained, name: str) -> dict[str, bytes]:
    """Return the bytes of `infer.py` and `infer.json`.

    Args:
        trained: the network.
        name: of its ONNX file, in the same folder.
    """
    program = files("modelnet.eval").joinpath(INFER).read_bytes()
    told = {
        "file": name,
        "recipe": infer_recipe(trained.recipe),
        "crop": trained.options.crop,
        "class_ids": trained.class_ids,
        "class_names": trained.class_names,
    }
    return {INFER: _mark(program) + b"\n" + program, PREPARED: (json.dumps(told, indent=2) + "\n").encode()}


def infer_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return what `infer.py` must know of a recipe: its values, and by Pillow's names the formats that are read."""
    return recipe.to_dict() | {"formats": [form.pillow_name for form in FORMATS]}


def _mark(program: bytes) -> bytes:
    return _MARK + hashlib.sha256(program).hexdigest().encode()


def _is_infer(data: bytes) -> bool:
    mark, _, program = data.partition(b"\n")
    return mark == _mark(program)


_IS_OURS: dict[str, Callable[[bytes], bool]] = {
    CONFIG: lambda data: "architecture" in json.loads(data),
    INFER: _is_infer,
    PREPARED: lambda data: {"file", "recipe"} <= {*json.loads(data)},
}


def check_beside(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace files that are not by `export`, as the config.json of a run.

    Raises:
        OptionsError: says where to write instead.
    """
    for name in names:
        try:
            is_ours = _IS_OURS[name]((folder / name).read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError, TypeError):
            is_ours = False
        if not is_ours:
            reason, advice = "export did not write it", "Move it away, or give --out in another folder"
            raise OptionsError(f"{name} is there", folder / name, reason, advice)

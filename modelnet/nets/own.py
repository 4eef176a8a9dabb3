"""Code of a person's own: one file, with a network or a change of images in it.

Nothing from a file is executed but code that a person named, and that is one function or class which the file defines
itself. It is executed from bytes whose digest is known, never imported from a place.
"""

import ast
import copy
import hashlib
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from modelnet.options.code import CodeName
from pipeline.errors import CodeError, PipelineError, RunError, source_errors

_CODE = "__own_code__"  # of a module that was made of such a file
_SHOWN = 3  # first and last lines of a person's own that an error came through
_WITH_US = {"pipeline", "modelnet", *sys.stdlib_module_names}


@dataclass(frozen=True)
class OwnCode:
    """A class or function in a file.

    Attributes:
        path: where the file is, or was.
        name: of the class or function.
        source: the content of the file.
    """

    path: Path
    name: str
    source: bytes

    @cached_property
    def sha256(self) -> str:
        """The digest of the file."""
        return hashlib.sha256(self.source).hexdigest()

    def load(self) -> Any:
        """Execute the file, once in a process, and return the class or function.

        Raises:
            CodeError: it raises an error, imports a file beside it, or does not define that name.
        """
        return _load(self)


def read_code(named: CodeName) -> OwnCode:
    """Read the file that a person named.

    Raises:
        RunError: it is not there.
        AccessDenied, WorkerDied, StorageError: as `source_errors`.
    """
    with source_errors("the code cannot be read", named.path, RunError):
        return OwnCode(named.path, named.name, named.path.read_bytes())


@lru_cache
def _load(code: OwnCode) -> Any:
    _check_imports(code)
    module = ModuleType(f"own_code_{code.sha256}")
    module.__file__ = os.fspath(code.path)
    vars(module)[_CODE] = code
    sys.modules[module.__name__] = module  # dataclasses, for example, look there
    with blamed(code):
        exec(compile(code.source, code.path, "exec", dont_inherit=True), module.__dict__)
    found = vars(module).get(code.name)
    if not callable(found) or getattr(found, "__module__", None) != module.__name__:
        own = [n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", None) == module.__name__]
        reason = f"it defines no {code.name}; there is {', '.join(own) or 'no class and no function'}"
        raise CodeError("no such code of yours", code.path, reason, "Name a class or function that it defines")
    return found


def _check_imports(code: OwnCode) -> None:
    """Refuse code that needs files beside it, which no copy of it would find."""
    with blamed(code):
        tree = ast.parse(code.source, code.path)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        for name in names:
            first = name.partition(".")[0]
            if name.startswith(".") or (first not in _WITH_US and _is_beside(first, code.path)):
                reason = f"line {node.lineno} imports {name}, a file beside it"
                raise CodeError("your code is more than one file", code.path, reason, "Put all of it into one")


def _is_beside(module: str, path: Path) -> bool:
    folder = path.absolute().parent
    found = PathFinder.find_spec(module, [os.fspath(folder)])
    if found is not None and found.origin is None:  # a folder without __init__.py: only where nothing else has the name
        elsewhere = PathFinder.find_spec(module, [place for place in sys.path if Path(place).absolute() != folder])
        return elsewhere is None
    return found is not None


@contextmanager
def blamed(code: OwnCode) -> Iterator[None]:
    """Turn what a person's code raises into an error that says that it is theirs, and where.

    Raises:
        CodeError: with the lines of their file that the error came through.
    """
    try:
        yield
    except PipelineError:
        raise
    except (Exception, SystemExit) as error:  # a script that ends by sys.exit(), or reads our command line
        raise _blame(error, code) from error


def blame(error: BaseException) -> CodeError | None:
    """Return the error that says whose code raised an exception; None where no frame of a person's code did."""
    files = {frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__)}
    loaded = [vars(module)[_CODE] for module in list(sys.modules.values()) if _CODE in vars(module)]
    theirs = next((code for code in loaded if os.fspath(code.path) in files), None)
    return None if theirs is None else _blame(error, theirs)


def _blame(error: BaseException, code: OwnCode) -> CodeError:
    lines = code.source.decode("utf-8", "replace").splitlines()
    steps = [
        f"line {number} in {frame.f_code.co_name}: {''.join(lines[number - 1 : number]).strip()}"
        for frame, number in traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename == os.fspath(code.path)
    ]
    if isinstance(error, SyntaxError) and not steps and error.lineno is not None:
        steps = [f"line {error.lineno}: {(error.text or '').strip()}"]
    if len(steps) > 2 * _SHOWN:  # it calls itself
        steps[_SHOWN:-_SHOWN] = [f"{len(steps) - 2 * _SHOWN} more"]
    said = " ".join(f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}".split())
    return CodeError("your code raised an error", code.path, "; ".join([*steps, said]), "Correct it")


def own_network(code: OwnCode, arguments: Mapping[str, Any], classes: int, size: tuple[int, int]) -> nn.Module:
    """Make a network of a person's own, called as `Name(classes, **arguments)`, and check that it is one.

    Raises:
        CodeError: it raises an error, is no network, or gives logits of another shape.
    """
    network_of = code.load()
    with blamed(code):
        network: nn.Module = network_of(classes, **arguments)
        check_network(network, classes, size, code.path, code.name)
    return network


def check_network(
    network: object, classes: int, size: tuple[int, int], path: Path | None = None, name: str = "network"
) -> None:
    """Refuse what is no network for these images, by a forward pass as in evaluation, and one as in training.

    Args:
        network: its weights, statistics and the random states stay as they are; it is put into training mode.
        classes: C, the number of classes.
        size: (height, width) of the images.
        path: of the file that it was made by, or None.
        name: of its class or function.

    Raises:
        CodeError: it is no module with parameters, or gives no (B, C) logits.
    """
    what, needed = "your network does not fit", "Return a torch.nn.Module with parameters"
    if not isinstance(network, nn.Module):
        raise CodeError(what, path, f"{name} returned a {type(network).__name__}, and no module", needed)
    if not any(True for _ in network.parameters()):
        raise CodeError(what, path, f"{name} has no parameters to train", needed)
    device = next(network.parameters()).device
    for is_training, count in ((False, 1), (True, 2)):
        before = copy.deepcopy(network.state_dict()) if is_training else {}  # lazy modules have made theirs by now
        images = torch.zeros(count, 3, *size, device=device)
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            logits = network.train(is_training)(images)
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        if shape != (count, classes):
            mode = "training" if is_training else "evaluation"
            reason = f"in {mode}, {name} made {shape} of images {tuple(images.shape)}, not {(count, classes)}"
            raise CodeError(what, path, reason, "Return logits: one number for each image and class")
        if is_training:
            network.load_state_dict(before)


@dataclass(frozen=True)
class OwnChange:
    """A change of images of a person's own; processes that read get it as its source."""

    code: OwnCode

    def __call__(self, image_CHW: Tensor, generator: torch.Generator) -> Tensor:
        """Return (3, H, W) uint8, the image as the person's function returns it.

        Raises:
            CodeError: it raises an error, or returns something else.
        """
        shape, change = tuple(image_CHW.shape), self.code.load()
        with blamed(self.code):
            changed = change(image_CHW, generator)
        if not isinstance(changed, Tensor) or tuple(changed.shape) != shape or changed.dtype != torch.uint8:
            found = f"{tuple(changed.shape)} {changed.dtype}" if isinstance(changed, Tensor) else type(changed).__name__
            reason = f"{self.code.name} made {found} of {shape} torch.uint8"
            raise CodeError("your augmentation does not fit", self.code.path, reason, "Return the same shape and dtype")
        return changed

"""Read the tensors of a weights file: of `torch.save` or of safetensors, told apart by their bytes, not by their name.

Nothing from a file is ever executed: a pickle is read with `weights_only`, safetensors hold no code.
"""

import hashlib
import json
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pipeline.errors import AccessDenied, CheckpointError, CheckpointUnsafe, OptionsError, RunError
from pipeline.text import how_to_install, shorten, show_path

# Where trainers keep a state dict in a checkpoint; moving averages of the weights come first. `average` is ours.
MEANS = ("model_ema", "state_dict_ema", "ema_state_dict", "ema", "average")
KEYS = (*MEANS, "state_dict", "model_state_dict", "model", "weights")

_LONGEST_HEADER = 100_000_000  # bytes; the library's own limit
_SHOWN = 2  # names
_ZIP = b"PK\x03\x04"
_OF_TORCH = "Load it where it was made, and save its state_dict() with torch.save or safetensors"
_UNPACK = "Unpack it, and give the file of weights that is in it"
_OTHERS = {
    rb"GGUF": ("GGUF, of a language model", "Give weights of an image network as safetensors or by torch.save"),
    rb"\x89HDF\r\n\x1a\n": ("HDF5, as Keras writes it", _OF_TORCH),
    rb"\x93MNCACHE": ("a cache", "Give the file of a network's weights"),
    rb"version https://git-lfs": ("a pointer of Git LFS, not the file itself", "Fetch the file: git lfs pull"),
    rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|\?xml)": ("a web page, not the file", "Download the file again"),
    rb"\x93NUMPY": ("an array of NumPy", _OF_TORCH),
    rb"\x08.[\x12\x1a:B]": ("ONNX", _OF_TORCH),
    rb"\x1f\x8b|\xfd7zXZ|BZh|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd|.{257}ustar": ("an archive", _UNPACK),
}
_PARTS_OF_ZIPS = {  # the end of a member's name: what such an archive is
    ".npy": ("an archive of NumPy arrays (.npz)", _OF_TORCH),
    "/constants.pkl": ("a TorchScript program", "Load it by torch.jit.load, and save its state_dict() by torch.save"),
    "/archive_format": ("a program of torch.export", "Give the weights that it was exported from"),
    "serialized_exported_program.json": ("a program of torch.export", "Give the weights that it was exported from"),
    "model.weights.h5": ("a Keras archive", _OF_TORCH),
}


class Weights(NamedTuple):
    """The tensors of a file by name, and the key of the checkpoint they were found under; "" for a bare state dict."""

    tensors: dict[str, Tensor]
    key: str


def read_weights(path: Path) -> Weights:
    """Read a file of weights, on the CPU.

    Args:
        path: a file of `torch.save` or of safetensors. The state dict is bare, or under one of `KEYS`; what is no
            tensor in it is left out.

    Raises:
        RunError: no such file.
        CheckpointError: it is damaged, or another kind of file: says which, and what to do.
        CheckpointUnsafe: a pickle that would run code.
        OptionsError: it is of safetensors, and that package is not installed.
    """
    with _opening(path):
        with path.open("rb") as file:
            head = file.read(1024)
        refuse_others(path, head)
        is_of_torch = re.match(rb"PK|\x80[\x02-\x05]", head) and not _begins_as_safetensors(head)
        content = _of_torch(path) if is_of_torch else _of_safetensors(path, head)
    return _state_dict(content, path)


@contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Refuse what is no regular file; name a file that cannot be opened."""
    try:
        if path.exists() and not path.is_file():
            what = "a folder" if path.is_dir() else "no regular file"
            raise RunError("no weights there", path, f"it is {what}", "Give the file itself, as model.safetensors")
        yield
    except FileNotFoundError as error:
        raise RunError("no weights there", path, "no such file", "Give the path of a local file") from error
    except PermissionError as error:
        raise AccessDenied("the weights cannot be read", path, "permission denied") from error
    except OSError as error:
        raise _unreadable(path, error.strerror or str(error)) from error


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, 64 hexadecimal digits.

    Raises:
        RunError: no such file. AccessDenied: it may not be read.
    """
    with _opening(file):
        found = file.stat()
        return _digest_of(file, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=8)  # many networks begin with the same weights, and share a table of folds
def _digest_of(file: Path, _size: int, _mtime: int) -> str:
    with file.open("rb") as data:
        return hashlib.file_digest(data, "sha256").hexdigest()


def odd_kind(tensor: Tensor) -> str:
    """Return what a tensor is besides a dense one of real numbers that has its bytes here; "" if nothing."""
    kinds = {
        "complex": tensor.is_complex(),
        "sparse": tensor.layout != torch.strided,
        "meta": tensor.is_meta,
        "quantized": tensor.is_quantized,
        "nested": tensor.is_nested,
    }
    return next((kind for kind, found in kinds.items() if found), "")


def refuse_others(path: Path, head: bytes) -> None:
    """Refuse files that people take for weights, by what they are.

    Args:
        path: of the file.
        head: its first bytes.

    Raises:
        CheckpointError: says what it is, and what to do.
    """
    if not head:
        raise _unreadable(path, "it is empty", "Copy or download it again")
    if _begins_as_safetensors(head):
        return
    found = next((what for start, what in _OTHERS.items() if re.match(start, head, re.DOTALL | re.IGNORECASE)), None)
    if head.startswith(_ZIP):
        names = _names_in_zip(path)
        found = next((what for name in names for end, what in _PARTS_OF_ZIPS.items() if name.endswith(end)), None)
        if found is None and names and not any(name.endswith("data.pkl") for name in names):
            found = f"an archive with {shorten(list(map(show_path, names)), _SHOWN)} in it", _UNPACK
    if found is None and head.lstrip().startswith(b"{"):
        shards = sorted(set(_shards(path)))
        advice = (
            "Load every file and save all tensors into one: safetensors.torch.save_file(tensors, 'all.safetensors')"
        )
        files = f", {show_path(shards[0])} to {show_path(shards[-1])}" if shards else ""
        found = (f"the index of weights in {len(shards)} files{files}", advice) if shards else ("JSON", _OF_TORCH)
    if found is not None:
        raise _unreadable(path, f"it is {found[0]}", found[1])


def _begins_as_safetensors(head: bytes) -> bool:
    """Say whether a length and an object of JSON come first; the bytes of a length may be those of any other format."""
    return head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER


def _names_in_zip(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            if bad := archive.testzip():  # torch itself does not look at the CRC-32 that it writes
                raise _unreadable(path, f"{bad} in it is damaged: its CRC-32 is another", "Copy or download it again")
            return archive.namelist()
    except (zipfile.BadZipFile, ValueError, RuntimeError, EOFError, struct.error, zlib.error):  # torch says how
        return []


def _shards(path: Path) -> Iterator[str]:
    """Yield the files that an `*.index.json` of the Hugging Face Hub names."""
    try:
        index = json.loads(path.read_bytes())
        yield from (str(name) for name in index["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return


def _of_torch(path: Path) -> Any:
    try:
        # given an open file: by its name, torch would take .safetensors for safetensors
        with path.open("rb") as file, warnings.catch_warnings(action="ignore", category=UserWarning):  # of odd tensors
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it holds more than tensors and plain values, which could run code; it is not loaded"
        raise CheckpointUnsafe("not safe weights", path, reason, _OF_TORCH) from error
    except (
        RuntimeError,
        EOFError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        AssertionError,
        struct.error,
    ) as error:
        raise _unreadable(
            path, f"it is cut short or changed ({_first_line(error)})", "Copy or download it again"
        ) from error


def _of_safetensors(path: Path, head: bytes) -> dict[str, Tensor]:
    _check_header(path, head)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise OptionsError("safetensors is not installed", None, str(error), how_to_install()) from error
    try:
        return dict(load_file(path))
    except (SafetensorError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise _unreadable(
            path, f"it is cut short or changed ({_first_line(error)})", "Copy or download it again"
        ) from error


def _check_header(path: Path, head: bytes) -> None:
    """Refuse what is no file of safetensors, and names that occur twice, of which the library takes any one."""
    length, size = int.from_bytes(head[:8], "little"), path.stat().st_size
    if len(head) < 10 or not _begins_as_safetensors(head):
        raise _unreadable(path, "it is no file of torch.save or safetensors", _OF_TORCH)
    if length > size - 8:
        raise _unreadable(path, f"it ends after {size} bytes, within its header", "Copy or download it again")
    with path.open("rb") as file:
        file.seek(8)
        text = file.read(length)
    try:
        json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, f"its header is damaged ({_first_line(error)})", "Copy or download it again") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dictionary of an object of JSON whose keys differ."""
    name, times = max(Counter(name for name, _ in pairs).items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        raise ValueError(f"{name!r} occurs {times} times")
    return dict(pairs)


def _state_dict(content: Any, path: Path) -> Weights:
    """Return the state dict of a file's content."""
    for key in (*KEYS, ""):
        found = content if key == "" else content.get(key) if isinstance(content, Mapping) else None
        tensors = (
            {name: value for name, value in found.items() if isinstance(value, Tensor)}
            if isinstance(found, Mapping)
            else {}
        )
        if odd := next((name for name, tensor in tensors.items() if odd_kind(tensor)), None):
            raise _unreadable(path, f"{odd} is a {odd_kind(tensors[odd])} tensor; dense ones are needed", _OF_TORCH)
        if tensors:
            return Weights(tensors, key)
    raise _unreadable(path, "it is not a dictionary of tensors", "Save a network's state_dict(), bare or as state_dict")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _unreadable(path: Path, reason: str, advice: str = "") -> CheckpointError:
    return CheckpointError("the weights cannot be read", path, reason, advice)

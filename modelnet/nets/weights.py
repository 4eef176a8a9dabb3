"""Load weights from a local file into a network, and say what was loaded, what is new and what was left."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from modelnet.nets.head import head_of
from modelnet.nets.weights_file import MEANS, digest_of, read_weights
from pipeline.errors import CheckpointError
from pipeline.text import shorten, show_path

_WRAPPER = re.compile(r"\b(?:module|_orig_mod)\.")  # of DistributedDataParallel and torch.compile
_OWNERS = ("model.", "net.", "network.", "backbone.")  # attributes in which a Lightning module keeps its network
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)")  # names of torchvision's files, before 0.3
_COUNTER = "num_batches_tracked"  # of BatchNorm, which older files lack; it decides nothing here
_DIGEST = re.compile(
    r"-([0-9a-f]{8,64})\.\w+$"
)  # the first digits of the SHA-256, in names of files that torch.hub loads
_SHOWN = 4


@dataclass(frozen=True)
class Loaded:
    """What a file of weights gave a network.

    Attributes:
        path: of the file.
        sha256: of its bytes, 64 hexadecimal digits.
        key: under which it has the tensors; "" for a bare state dict.
        count: tensors that were loaded.
        stripped: prefixes that their names had in the file.
        head: layers whose weights the file lacks, or has for other classes; they are as they were.
        head_was: the shape that the file has for the first of them, or None.
        new: other tensors that the file lacks; they are as they were.
        left: tensors of the file that the network lacks.
        resampled: "name (1, 197, 192) → (1, 50, 192)" of tensors that were resized for other images.
        cast: the other dtypes of numbers that were cast: "float16".
    """

    path: Path
    sha256: str
    key: str
    count: int
    stripped: tuple[str, ...]
    head: tuple[str, ...]
    head_was: tuple[int, ...] | None
    new: list[str]
    left: list[str]
    resampled: list[str]
    cast: list[str]

    @property
    def notes(self) -> list[str]:
        """A line for each thing that was done."""
        under = f", under {self.key}" * bool(self.key)
        prefix = f", without the prefix {' '.join(self.stripped)}" if self.stripped else ""
        lines = [f"weights: {self.count} tensors of {show_path(self.path)}{under}{prefix}, SHA-256 {self.sha256[:8]}"]
        if self.key in MEANS:
            lines[0] += " (a moving average of the weights, which is preferred)"
        if self.cast:
            lines.append(f"cast to float32: {', '.join(self.cast)}")
        if self.resampled:
            lines.append(f"resampled for images of another size: {shorten(self.resampled, _SHOWN)}")
        if self.head:
            why = f"the file's is for {self.head_was[0]} classes" if self.head_was else "the file has none"
            lines.append(f"new, drawn from the seed alone: {', '.join(self.head)} ({why})")
        return lines

    @property
    def warnings(self) -> list[str]:
        """A line for a digest unlike that in the name, for tensors that only the network has, or only the file."""
        lines = []
        if (named := _DIGEST.search(self.path.name)) and not self.sha256.startswith(named[1]):
            reason = f"its name says SHA-256 {named[1]}, and it has {self.sha256[: len(named[1])]}"
            lines.append(f"{show_path(self.path)}: {reason}: it is damaged, or another file under that name")
        if self.new:
            lines.append(f"not in the weights, and new: {shorten(self.new, _SHOWN)}")
        return lines + ([f"not in the network, and left: {shorten(self.left, _SHOWN)}"] if self.left else [])


def load_weights(network: nn.Module, path: Path, with_head: bool = True) -> Loaded:
    """Take the weights of a file: one of safetensors, one of torch's with a network's `state_dict`, or a checkpoint.

    Names lose the prefixes of DistributedDataParallel, torch.compile and Lightning where they fit the network then.
    Networks of timm apply timm's own filter of checkpoints, which also resamples position embeddings.

    Args:
        network: changed in place; its last layer stays where the file has none, or one for other classes.
        path: of the file.
        with_head: False where nothing uses the last layer: whatever the file has of it does not matter, and it stays.

    Raises:
        RunError, CheckpointUnsafe, AccessDenied, OptionsError: as `read_weights`.
        CheckpointError: it is no file of weights, or of another network: names a tensor.
    """
    own = network.state_dict()
    found, key = read_weights(path)
    cast = {_dtype(tensor) for tensor in found.values() if tensor.is_floating_point()} - {"float32"}
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}
    found, stripped = _without_prefixes(found, own)
    found, resampled = _filtered(found, network, path)
    layers = head_of(network)
    of_head = tuple(f"{layer}." for layer in layers)
    if not with_head:
        found = {name: tensor for name, tensor in found.items() if not name.startswith(of_head)}
    in_head = {name for name in chain(own, found) if name.startswith(of_head)}
    _check_names([name for name in own if name not in in_head], own, found, path)
    head = tuple(layer for layer in layers if with_head and _is_other(f"{layer}.", own, found))
    of_new_head = tuple(f"{layer}." for layer in head)
    taken = {}
    for name, tensor in found.items():
        if name not in own or name.startswith(of_new_head):
            continue
        if tensor.shape != own[name].shape:
            raise _unfit(path, f"{name} has shape {tuple(tensor.shape)}, and the network's {tuple(own[name].shape)}")
        if tensor.is_floating_point() != own[name].is_floating_point() and not name.endswith(_COUNTER):
            raise _unfit(path, f"{name} holds {_dtype(tensor)} numbers, and the network's {_dtype(own[name])}")
        taken[name] = tensor.to(own[name].dtype)
    if bad := [name for name, tensor in taken.items() if not tensor.isfinite().all()]:
        reason = f"NaN or infinite numbers are in {len(bad)} of {len(taken)} tensors, such as {bad[0]}"
        raise CheckpointError("the weights cannot be used", path, reason)
    own.update(taken)  # it keeps the versions of the network's modules, which a plain dictionary lacks
    network.load_state_dict(own)
    weights_of_head = (found.get(f"{layer}.weight") for layer in head)
    head_was = next((tuple(tensor.shape) for tensor in weights_of_head if tensor is not None), None)
    new = [name for name in own if name not in taken and name not in in_head and not name.endswith(_COUNTER)]
    without = tuple(f"{layer}." for layer in layers if not any(name.startswith(f"{layer}.") for name in own))
    left = [name for name in found if name not in own and not name.startswith(without)]  # a network may have no head
    return Loaded(path, digest_of(path), key, len(taken), stripped, head, head_was, new, left, resampled, sorted(cast))


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _unfit(path: Path, reason: str) -> CheckpointError:
    return CheckpointError("the weights do not fit", path, reason, "Give those of this network for images of this size")


def _is_other(start: str, own: dict[str, Tensor], found: dict[str, Tensor]) -> bool:
    """Say whether a file lacks tensors of a last layer, or has them in other shapes."""
    names = [name for name in own if name.startswith(start)]
    return any(name not in found or found[name].shape != own[name].shape for name in names)


def _check_names(body: list[str], own: dict[str, Tensor], found: dict[str, Tensor], path: Path) -> None:
    """Refuse a file that has less than half of a network's tensors, those of its last layer aside."""
    body = [name for name in body if not name.endswith(_COUNTER)]
    missing, unexpected = [name for name in body if name not in found], [name for name in found if name not in own]
    if 2 * len(missing) > len(body):
        reason = f"it lacks {len(missing)} of the network's {len(body)} tensors, such as {missing[0]}"
        if unexpected:
            reason += f"; the network lacks {len(unexpected)} of its {len(found)}, such as {unexpected[0]}"
        raise CheckpointError("the weights do not fit", path, reason, "Give the --model that they were trained for")


def _without_prefixes(found: dict[str, Tensor], own: dict[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Rename tensors in the way that lets most of them fit; return the prefixes that were taken off as well."""
    ways = [(wrapped, owner) for wrapped in (False, True) for owner in ("", *_OWNERS)]
    renamed = {way: {_renamed(name, *way): tensor for name, tensor in found.items()} for way in ways}
    whole = [way for way in ways if len(renamed[way]) == len(found)]  # no two names became the same
    wrapped, owner = max(whole, key=lambda way: len(renamed[way].keys() & own.keys()))  # the first of equals
    parts = {part for name in found for part in _WRAPPER.findall(name)} if wrapped else set()
    return renamed[wrapped, owner], tuple([*sorted(parts), *[owner] * bool(owner)])


def _renamed(name: str, wrapped: bool, owner: str) -> str:
    name = _WRAPPER.sub("", name) if wrapped else name
    return _OLD_DENSENET.sub(r"\1\2", name.removeprefix(owner))


def _filtered(found: dict[str, Tensor], network: nn.Module, path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Apply the filter that a network's library has for checkpoints of its family.

    Returns:
        The tensors, and which of them were resampled.
    """
    family: Any = sys.modules[type(network).__module__]
    apply: Callable[[dict[str, Tensor], nn.Module], dict[str, Tensor]] | None = None
    if family.__name__.startswith("timm."):
        apply = getattr(family, "checkpoint_filter_fn", None) or getattr(family, "_filter_fn", None)
    elif family.__name__ == "torchvision.models.vision_transformer":

        def apply(tensors: dict[str, Tensor], network: Any) -> dict[str, Tensor]:
            resampled: dict[str, Tensor] = family.interpolate_embeddings(
                network.image_size, network.patch_size, tensors
            )
            return resampled

    if apply is None:
        return found, []
    try:
        after = apply(dict(found), network)
    except Exception as error:  # a filter may fail in any way on names and shapes that it was not made for
        raise _unfit(path, f"its library's filter fails on it ({type(error).__name__}: {error})") from error
    shapes = {name: (tuple(found[name].shape), tuple(after[name].shape)) for name in found if name in after}
    return after, [f"{name} {was} → {now}" for name, (was, now) in shapes.items() if was != now]

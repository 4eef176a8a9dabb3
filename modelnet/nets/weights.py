"""Load weights from a local file into a network."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.errors import AccessDenied, CheckpointError, CheckpointUnsafe, RunError


def load_weights(network: nn.Module, path: Path) -> list[str]:
    """Take the weights of a file: one of torch's with a network's `state_dict`, or a checkpoint of ours.

    Tensors of another shape, as those of a last layer for other classes, are left as they are.

    Args:
        network: changed in place.
        path: of the file; nothing but tensors and plain values is unpickled.

    Returns:
        Names of the tensors that were left.

    Raises:
        RunError: no such file.
        CheckpointError: it is not weights, or those of another network.
        CheckpointUnsafe: a pickle that would run code.
    """
    found, own = _read_weights(path), network.state_dict()
    what = "the weights do not fit"
    if missing := [name for name in own if name not in found]:
        raise CheckpointError(
            what, path, f"it has no {missing[0]}, as {len(missing)} of the network's {len(own)} tensors"
        )
    if unknown := [name for name in found if name not in own]:
        raise CheckpointError(
            what, path, f"the network has no {unknown[0]}, as {len(unknown)} of its {len(found)} tensors"
        )
    other = [name for name in own if own[name].shape != found[name].shape]
    if bad := [name for name in own if name not in other and not found[name].isfinite().all()]:
        reason = f"{bad[0]} holds NaN or infinite numbers, as {len(bad)} of {len(own)} tensors do"
        raise CheckpointError("the weights cannot be used", path, reason)
    network.load_state_dict({name: own[name] if name in other else found[name] for name in own})
    return other


def _is_of_torch(path: Path) -> bool:
    """Say whether a file begins as torch's do, which are zip files, and once were pickles."""
    with path.open("rb") as file:
        return file.read(2) in (b"PK", b"\x80\x02")


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RunError("no weights there", path, "no such file", "Give the path of a local file") from error
    except PermissionError as error:
        raise AccessDenied("the weights cannot be read", path, "permission denied") from error
    except pickle.UnpicklingError as error:
        if not _is_of_torch(path):
            reason, advice = "it is no file of torch.save", "Load it where it was written, and save only its tensors"
            raise CheckpointError("the weights cannot be read", path, reason, advice) from error
        reason = "it holds more than tensors and plain values, which could run code; it is not loaded"
        raise CheckpointUnsafe("not safe weights", path, reason) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "it is empty"
        raise CheckpointError("the weights cannot be read", path, reason) from error
    if isinstance(content, dict) and isinstance(content.get("weights"), dict):
        content = content.get("average") or content["weights"]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError("the weights cannot be read", path, "it is not a dictionary of tensors")
    return content

"""Encode and decode checkpoints: tensors and plain values as torch.save writes them, with a digest.

torch.save makes a zip archive; the digest is the archive's comment, at its very end, so that a checkpoint of ours stays
an ordinary one: `torch.load(path, weights_only=True)` reads it, and so does any zip tool.
"""

import io
import pickle
import warnings
from pathlib import Path
from typing import Any

import xxhash

from pipeline.errors import CheckpointDamaged, CheckpointUnsafe

_LABEL = b"xxh3-128 of the bytes before: "
_COMMENT_BYTES = len(_LABEL) + 32
_ZIP = b"PK\x03\x04"


def encode(content: dict[str, Any]) -> bytes:
    """Return the bytes of a checkpoint that holds `content`: dictionaries, lists, tensors, numbers, text, None."""
    import torch  # here, so that reading a run's numbers does not wait for torch

    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()[:-2] + _COMMENT_BYTES.to_bytes(2, "little")  # a zip archive ends in its comment's length
    return body + _LABEL + xxhash.xxh3_128_hexdigest(body).encode()


def decode(data: bytes, path: Path) -> dict[str, Any]:
    """Return the content given to `encode`, with tensors on the CPU.

    Nothing but tensors and plain values is ever unpickled, whatever the digest says.

    Args:
        data: the content of the file.
        path: of the file, for the message.

    Raises:
        CheckpointDamaged: the bytes are not those that were written.
        CheckpointUnsafe: a pickle of something else, which might run code, or no checkpoint at all.
    """
    import torch

    body, comment = data[:-_COMMENT_BYTES], data[-_COMMENT_BYTES:]
    if comment.startswith(_LABEL) and comment != _LABEL + xxhash.xxh3_128_hexdigest(body).encode():
        raise CheckpointDamaged("the checkpoint is damaged", path, "its digest does not fit its bytes")
    if data and not data.startswith(_ZIP):
        raise CheckpointUnsafe("not a checkpoint", path, "not one of ours; it is not loaded")
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # of sparse tensors, which are refused
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it holds more than tensors and plain values, which could run code; it is not loaded"
        raise CheckpointUnsafe("not a safe checkpoint", path, reason) from error
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise CheckpointDamaged("the checkpoint is damaged", path, "it is cut short or changed") from error
    if not comment.startswith(_LABEL) or not isinstance(content, dict):
        raise CheckpointDamaged("the checkpoint is damaged", path, "it carries no digest of ours")
    return content

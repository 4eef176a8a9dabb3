"""Checkpoints: what is read is what was written, or nothing."""

import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash

from modelnet.runs.checkpoint import decode, encode
from pipeline.errors import CheckpointDamaged, CheckpointError, CheckpointUnsafe

HERE = Path("last.pt")


def content() -> dict[str, Any]:
    torch.manual_seed(0)
    return {"weights": {"a": torch.randn(7, 3), "b": torch.arange(4)}, "epoch": 3, "ids": [1, "x"], "best": None}


def test_what_was_written_is_read_back() -> None:
    read = decode(encode(content()), HERE)
    assert torch.equal(read["weights"].pop("a"), content()["weights"]["a"])
    assert torch.equal(read["weights"].pop("b"), torch.arange(4))
    assert read == {"weights": {}, "epoch": 3, "ids": [1, "x"], "best": None}


def test_a_checkpoint_is_a_file_of_torch_and_a_zip_archive(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_bytes(encode(content()))
    assert torch.load(path, weights_only=True)["epoch"] == 3
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"xxh3-128 of the bytes before: ")


def test_any_flipped_bit_is_noticed() -> None:
    data = encode(content())
    random.seed(0)
    places = random.sample(range(len(data)), 400) + list(range(len(data) - 62, len(data)))
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << random.randrange(8)
        with pytest.raises(CheckpointError):
            decode(bytes(damaged), HERE)


def test_plain_torch_loads_most_of_these_flipped_bits_as_wrong_weights() -> None:
    """The negative control: without the digest, damage goes unnoticed."""
    data = encode({"weights": torch.zeros(10_000)})
    place = data.index(bytes(4_000)) + 2_000
    damaged = data[:place] + b"\x40" + data[place + 1 :]
    loaded = torch.load(io.BytesIO(damaged), weights_only=True)["weights"]
    assert loaded.count_nonzero() == 1
    with pytest.raises(CheckpointDamaged, match="its digest does not fit its bytes"):
        decode(damaged, HERE)


@pytest.mark.parametrize("kept", [0, 1, 30, 500, -1, -62])
def test_a_file_cut_short_is_damaged(kept: int) -> None:
    with pytest.raises(CheckpointError) as caught:
        decode(encode(content())[:kept], HERE)
    assert caught.value.exit_code == 65
    assert caught.value.path == HERE


class Evil:
    """Pickled, it runs a command when it is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.proof),)


def with_digest(data: bytes) -> bytes:
    label = b"xxh3-128 of the bytes before: "
    body = data[:-2] + (len(label) + 32).to_bytes(2, "little")
    return body + label + xxhash.xxh3_128_hexdigest(body).encode()


def test_a_pickle_that_would_run_code_is_never_loaded(tmp_path: Path) -> None:
    proof = tmp_path / "it ran"
    file = io.BytesIO()
    torch.save({"weights": Evil(proof)}, file)
    for data in (file.getvalue(), with_digest(file.getvalue()), pickle.dumps(Evil(proof))):
        with pytest.raises(CheckpointUnsafe):
            decode(data, HERE)
        assert not proof.exists()
    torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    assert proof.exists()  # the trap is a real one


def test_a_checkpoint_of_another_program_is_refused() -> None:
    file = io.BytesIO()
    torch.save({"state_dict": {}}, file)
    with pytest.raises(CheckpointDamaged, match="no digest of ours"):
        decode(file.getvalue(), HERE)

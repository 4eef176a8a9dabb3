"""Files of weights: what is read, and what is refused by its kind."""

import gzip
import hashlib
import json
import lzma
import os
import pickle
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save, save_file

from modelnet.nets.weights_file import digest_of, read_weights
from pipeline.errors import AccessDenied, CheckpointError, CheckpointUnsafe, OptionsError, RunError

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize("key", ["", "state_dict", "model", "model_ema", "ema", "state_dict_ema", "model_state_dict"])
def test_tensors_are_found_bare_or_under_the_keys_of_trainers(key: str, tmp_path: Path) -> None:
    content = {key: TENSORS, "epoch": 3, "best": torch.zeros(1), "optimizer": {"state": {}}} if key else TENSORS
    torch.save(content, tmp_path / "w.pt")

    found = read_weights(tmp_path / "w.pt")

    assert found.key == key
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())


def test_a_moving_average_is_preferred_to_the_weights_themselves(tmp_path: Path) -> None:
    for empty, expected in (({"model_ema": TENSORS}, "model_ema"), ({"model_ema": {}}, "model")):
        torch.save({"model": {"a": torch.zeros(1)}, **empty}, tmp_path / "w.pt")
        assert read_weights(tmp_path / "w.pt").key == expected


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_safetensors_are_known_by_their_bytes(name: str, tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / name)

    found = read_weights(tmp_path / name)

    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("protocol", [None, 2, 4])
def test_a_pickle_that_would_run_code_is_refused(name: str, protocol: int | None, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    content = {"state_dict": Code()}
    if protocol is None:
        torch.save(content, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(content, protocol))

    with pytest.raises(CheckpointUnsafe, match="which could run code; it is not loaded"):
        read_weights(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def _index(path: Path) -> None:
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}, indent=2))


def _torchscript(path: Path) -> None:
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def _exported(path: Path) -> None:
    torch.export.save(torch.export.export(torch.nn.Linear(2, 2).eval(), (torch.zeros(1, 2),)), path)


def _onnx(path: Path) -> None:
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], []), producer_name="x"), path)


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(2))


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resnet/model.pth", b"weights")
        archive.writestr("resnet/README.md", b"text")


def _tar(path: Path) -> None:
    path.with_name("model.pth").touch()
    with tarfile.open(path, "w") as archive:
        archive.add(path.with_name("model.pth"), "model.pth")


def _bytes(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("make", "what"),
    [
        (_index, r"index of weights in 2 files, model-00001-of-00002\.safetensors to .*Load every file"),
        (_torchscript, r"TorchScript program\. Load it by torch\.jit\.load"),
        (_exported, r"a program of torch\.export"),
        (_onnx, r"it is ONNX"),
        (_npz, r"an archive of NumPy arrays"),
        (_bytes(b"GGUF\3\0\0\0" + bytes(50)), r"it is GGUF"),
        (_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50)), r"it is HDF5, as Keras writes it"),
        (_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00"), r"pointer of Git LFS.*git lfs pull"),
        (_bytes(b"<!DOCTYPE html><html>"), r"it is a web page"),
        (_bytes(b"\xef\xbb\xbf\n<!-- saved from url --><html>"), r"it is a web page"),
        (_zip, r"it is an archive with resnet/model\.pth, resnet/README\.md in it\. Unpack it, and give the file"),
        (_tar, r"it is an archive\. Unpack it"),
        (_bytes(gzip.compress(b"weights", mtime=0)), r"it is an archive\. Unpack it"),
        (_bytes(lzma.compress(b"weights")), r"it is an archive\. Unpack it"),
        (_bytes(b'{"a": 1}'), r"it is JSON"),
        (_bytes(b"no weights, but a text"), r"it is no file of torch\.save or safetensors"),
        (_bytes(b""), r"it is empty"),
    ],
)
def test_other_kinds_of_files_are_named(make: Callable[[Path], object], what: str, tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors"):
        make(tmp_path / name)
        with pytest.raises(CheckpointError, match=what):
            read_weights(tmp_path / name)


# of ONNX, gzip, a pickle in four protocols, a zip, JSON, and JSON behind a space
@pytest.mark.parametrize("length", [0x120808, 0x88B1F, 0x280, 0x380, 0x480, 0x580, 0x4B50, 0x7B, 0x7B20])
def test_a_header_may_have_a_length_that_begins_as_another_format(length: int, tmp_path: Path) -> None:
    header = _file('{"a":ONE}')[8:-8].ljust(length)
    (tmp_path / "w.safetensors").write_bytes(length.to_bytes(8, "little") + header + torch.ones(2).numpy().tobytes())

    assert torch.equal(read_weights(tmp_path / "w.safetensors").tensors["a"], torch.ones(2))


def _file(header: str | bytes, data: bytes = bytes(8)) -> bytes:
    text = header.replace("ONE", _ONE).encode() if isinstance(header, str) else header
    return len(text).to_bytes(8, "little") + text + data


_ONE = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
_DAMAGED = {
    "a header longer than the file": (10**6).to_bytes(8, "little") + b'{"a":1}',
    "a header longer than any": (2**63).to_bytes(8, "little") + b'{"a":1}',
    "no JSON": _file('{"a":'),
    "no UTF-8": _file(b'{"\xff":' + _ONE.encode() + b"}"),
    "a name twice": _file('{"a":ONE,"a":ONE}'),
    "a key twice": _file('{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}'),
    "too few bytes": _file('{"a":ONE}', bytes(7)),
    "too many bytes": _file('{"a":ONE}', bytes(9)),
    "a shape that does not fit": _file('{"a":' + _ONE.replace("[2]", "[3]") + "}"),
    "a negative shape": _file('{"a":' + _ONE.replace("[2]", "[-2]") + "}"),
    "an unknown dtype": _file('{"a":' + _ONE.replace("F32", "F33") + "}"),
    "offsets that overlap": _file('{"a":ONE,"b":ONE}'),
    "an offset behind the end": _file('{"a":' + _ONE.replace("[0,8]", "[8,16]") + "}"),
    "a shape beyond 64 bits": _file('{"a":' + _ONE.replace("[2]", "[4294967296,4294967296]") + "}"),
    "no tensors": _file("{}", b""),
    "nested lists": _file("{" + '"a":' + "[" * 100_000 + "]" * 100_000 + "}"),
}


@pytest.mark.parametrize("what", _DAMAGED)
def test_damaged_safetensors_are_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_bytes(_DAMAGED[what])

    with pytest.raises(CheckpointError, match="the weights cannot be read"):
        read_weights(tmp_path / "w.safetensors")


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pt")
    torch.save(TENSORS, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for data in (save(TENSORS), (tmp_path / "w.pt").read_bytes(), (tmp_path / "old.pt").read_bytes()):
        for end in {0, 1, 7, 8, 9, 20, *range(len(data) // 2, len(data), 7), len(data) - 1}:
            (tmp_path / "cut").write_bytes(data[:end])
            with pytest.raises(CheckpointError):
                read_weights(tmp_path / "cut")


def test_a_flipped_bit_in_a_file_of_torch_is_refused(tmp_path: Path) -> None:
    torch.save(TENSORS, tmp_path / "w.pt")
    data = bytearray((tmp_path / "w.pt").read_bytes())
    data[data.index(TENSORS["a"].numpy().tobytes()) + 5] ^= 1
    (tmp_path / "w.pt").write_bytes(data)

    with pytest.raises(CheckpointError, match=r"w/data/\d in it is damaged: its CRC-32 is another"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [{}, [1], {"a": 1}, {"state_dict": {}}, {"state_dict": {"a": 1}}, 3])
def test_a_file_without_tensors_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match="it is not a dictionary of tensors"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("kind", ["sparse", "complex", "meta"])
def test_odd_tensors_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    odd = {
        "sparse": torch.ones(2).to_sparse(),
        "complex": torch.ones(2, dtype=torch.complex64),
        "meta": torch.ones(2, device="meta"),
    }
    torch.save({"a": torch.ones(1), "odd": odd[kind]}, tmp_path / "w.pt")

    with pytest.raises(CheckpointError, match=f"odd is a {kind} tensor"):
        read_weights(tmp_path / "w.pt")


def test_a_missing_file_a_folder_and_a_closed_file_differ(tmp_path: Path, unprivileged: None) -> None:
    torch.save(TENSORS, tmp_path / "closed.pt")
    (tmp_path / "closed.pt").chmod(0)
    os.mkfifo(tmp_path / "fifo")

    for name, kind, what in (
        ("none.pt", RunError, "no such file"),
        ("", RunError, "it is a folder"),
        ("fifo", RunError, "it is no regular file"),
        ("closed.pt", AccessDenied, "permission denied"),
    ):
        with pytest.raises(kind, match=what):
            read_weights(tmp_path / name)


def test_without_safetensors_the_message_says_how_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(TENSORS, tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)

    with pytest.raises(OptionsError, match=r"safetensors is not installed: .*pip install"):
        read_weights(tmp_path / "w.safetensors")


def test_digests_of_weights_and_of_a_split_are_computed_once_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = hashlib.file_digest

    def counted(file: Any, kind: str) -> Any:
        read.append(file.name)
        return real(file, kind)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    files = [tmp_path / "w.pt", tmp_path / "split.csv"]
    for file in files:
        file.write_text(file.name)

    digests = [digest_of(file) for file in files * 3]

    assert read == list(map(str, files)) and digests == digests[:2] * 3


def test_the_digest_is_that_of_the_file_and_follows_its_changes(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        os.utime(file, ns=(0, len(content) + content[0]))
        assert digest_of(file) == hashlib.sha256(content).hexdigest()

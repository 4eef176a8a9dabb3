"""Files of safetensors with changed bytes, given as weights: refused, or loaded with a line for whatever differs.

A value that became another finite value is loaded: the format has no checksums, so nobody can know. Everything that
contradicts itself is refused: lengths, offsets, dtypes and shapes, JSON, names that occur twice, NaN.
"""

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save
from torch import Tensor, nn

from modelnet.nets.weights import load_weights
from pipeline.errors import CheckpointError
from tests.soak.mutants import NONSENSE, Answer, examine, extend, flip_bits_flat, overwrite_flat

BYTES: Mapping[str, tuple[torch.dtype, int]] = {
    "F64": (torch.float64, 8),
    "F32": (torch.float32, 4),
    "F16": (torch.float16, 2),
    "BF16": (torch.bfloat16, 2),
    "I64": (torch.int64, 8),
    "I32": (torch.int32, 4),
    "I16": (torch.int16, 2),
    "I8": (torch.int8, 1),
    "U8": (torch.uint8, 1),
    "BOOL": (torch.bool, 1),
}


def make_network() -> nn.Module:
    torch.manual_seed(7)
    body = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 6)]
    return nn.Sequential(*body, nn.ReLU(), nn.Linear(6, 2))


def written_by_hand(data: bytes) -> dict[str, Tensor] | None:
    """Read a file by the words of the format's description; None where it contradicts them."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > len(data) - 8:
        return None
    try:
        header = json.loads(data[8 : 8 + length].decode(), object_pairs_hook=_all_differ)
        metadata = header.pop("__metadata__", None) or {}
        if not all(isinstance(text, str) for text in metadata.values()):
            return None
        tensors, at = {}, 0
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
            dtype, size = BYTES[entry["dtype"]]
            shape, (first, end) = entry["shape"], entry["data_offsets"]
            if any(type(side) is not int or side < 0 for side in [*shape, first, end]):
                return None
            if first != at or end - first != math.prod(shape) * size:
                return None
            content = bytearray(data[8 + length + first : 8 + length + end])
            if len(content) != end - first:
                return None
            tensors[name] = torch.frombuffer(content, dtype=dtype).view(shape) if content else torch.empty(shape)
            at = end
        return tensors if at == len(data) - 8 - length else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _all_differ(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def judge(path: Path, right: Answer, forged: bool = False) -> str:
    """Say what came of loading a mutant: "refused", "right", "said", "values", or what is wrong."""
    network = make_network()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    try:
        report = load_weights(network, path)
    except CheckpointError as error:
        changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
        if changed:
            return f"refused, but {changed[0]} was changed"
        return "refused" if str(error).isprintable() else f"an error of several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    tensors = written_by_hand(path.read_bytes())
    if tensors is None:
        return "loaded in silence, and impossible"
    original = right["tensors"]
    for name, tensor in network.state_dict().items():
        is_new = name in report.new or any(name.startswith(f"{head}.") for head in report.head)
        expected = before[name] if is_new or name not in tensors else tensors[name].to(tensor.dtype)
        if not torch.equal(tensor, expected):
            return f"{name} is not what the file says"
    missing = [name for name in original if name not in tensors and not name.endswith("num_batches_tracked")]
    if [name for name in missing if name not in report.new and not name.startswith(report.head or ("\0",))]:
        return f"loaded in silence without {missing[0]}"
    if [name for name in tensors if name not in original and name not in report.left]:
        return "loaded in silence with another tensor"
    if set(tensors) != set(original):
        return "said"
    same = all(torch.equal(tensors[name], tensor) for name, tensor in original.items())
    return "right" if same else "values"


def anywhere(data: bytearray, rng: random.Random) -> None:
    rng.choice([flip_bits_flat, overwrite_flat, extend])(data, rng)


def in_the_header(data: bytearray, rng: random.Random) -> None:
    end = 8 + int.from_bytes(data[:8], "little")
    header = bytearray(data[:end])
    rng.choice([flip_bits_flat, flip_bits_flat, overwrite_flat])(header, rng)
    data[:end] = header


def cut(data: bytearray, rng: random.Random) -> None:
    del data[rng.choice([rng.randrange(len(data)), len(data) - 1, 0, 8, 9]) :]


def shift(data: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(data)), rng.choice([1, 4, 8])
    del data[start : start + length]
    data.extend(bytes(rng.choice([0, length])))


def other_value(data: bytearray, rng: random.Random) -> None:
    """Replace, delete or double a value of the header, and make its length fit again."""
    end = 8 + int.from_bytes(data[:8], "little")
    values = json.loads(data[8:end])
    entry = values[rng.choice(sorted(values))]
    name = rng.choice(sorted(values))
    if (way := rng.randrange(6)) == 0:
        del values[name]
    elif way == 1:
        values[f"{name}x"] = values.pop(name)
    elif way == 2:
        values[name] = rng.choice(NONSENSE)
    elif way == 3:
        entry[rng.choice(["dtype", "shape", "data_offsets"])] = rng.choice([*NONSENSE, *BYTES, [0, 4], [2, 2], [-4, 4]])
    elif way == 4:
        entry["data_offsets"] = [offset + rng.choice([-4, 1, 4, 2**40]) for offset in entry.get("data_offsets", [])]
    else:
        entry["shape"] = [*entry.get("shape", []), rng.choice([0, 1, 2, 2**32, -1])]
    text = json.dumps(values)
    if rng.random() < 0.1:
        text = text.replace(f'"{name}":', f'"{name}": {json.dumps(values.get(name))}, "{name}":', 1)
    data[:end] = len(text.encode()).to_bytes(8, "little") + text.encode()


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(anywhere, anywhere, in_the_header, in_the_header, cut, shift),
    *(other_value, other_value, other_value),
)


def mutate(data: bytearray, rng: random.Random) -> None:
    rng.choice(MUTATIONS)(data, rng)


@pytest.fixture
def originals() -> list[tuple[bytes, Answer]]:
    found: list[tuple[bytes, Answer]] = []
    state = make_network().state_dict()
    for dtype in (torch.float32, torch.float16):
        tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
        tensors = {name: t + 0.5 if t.is_floating_point() else t for name, t in tensors.items()}
        found.append((save(tensors, {"format": "pt"}), {"tensors": tensors}))
    return found


def test_no_mutant_breaks_the_reader_or_is_loaded_in_silence(
    count: Callable[[int, int], int], originals: list[tuple[bytes, Answer]], workspace: Path
) -> None:
    mutants = count(5000, 500)
    figures, wrong = examine(originals, range(mutants), workspace, mutate, judged=judge)

    print(
        f"\nmutants of safetensors: {mutants} read, {figures['refused']} refused, {figures['right']} as written, "
        f"{figures['said']} with other tensors, which lines name, {figures['values']} with other finite values, "
        f"{len(wrong)} wrong"
    )
    assert not wrong, "\n".join(wrong[:20])
    assert figures["refused"] > mutants / 2 and figures["said"] and figures["values"]


def test_the_file_as_it_was_written_is_right(originals: list[tuple[bytes, Answer]], workspace: Path) -> None:
    for data, right in originals:
        (workspace / "w").write_bytes(data)
        assert judge(workspace / "w", right) == "right"


def test_a_reader_that_believes_damage_is_seen(
    originals: list[tuple[bytes, Answer]], workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelnet.nets.weights_file._check_header", lambda path, head: None)
    monkeypatch.setattr("safetensors.torch.load_file", lambda path: dict(originals[0][1]["tensors"]))

    _, wrong = examine(originals[:1], range(100), workspace, mutate, judged=judge)

    assert any("in silence" in what for what in wrong)

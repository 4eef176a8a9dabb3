"""Damage files in many ways, and read each in a forked child under a time limit: crashes and hangs are findings too."""

import json
import mmap
import os
import random
import signal
import struct
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pipeline.errors import CacheError
from pipeline.inspect.info import describe_cache
from pipeline.load.cache import TensorCache
from tests.soak.seal import seal

BATCH = 250
SECONDS_A_BATCH = 60
SIDES = 2  # processes at once

Answer = dict[str, Any]
Mutate = Callable[[bytearray, random.Random], None]
Judge = Callable[[Path, Answer, bool], str]

HARMLESS = ("right", "refused", "said", "values")  # the last two: of weights, see test_weights_files


def read_all(path: Path) -> Answer:
    """Read everything that a cache says."""
    cache = TensorCache(path)
    info = describe_cache(path).to_dict() | {"path": ""}
    return {
        "rows": cache.read(torch.arange(cache.num_images)).numpy().tobytes(),
        "labels": cache.labels.tolist(),
        "names": list(cache.filenames),
        "classes": (cache.class_ids, cache.class_names),
        "recipe": cache.recipe,
        "fingerprint": cache.fingerprint,
        "failed": cache.failed,
        "sources": cache.source_sha256.tobytes(),
        "info": json.dumps(info),
    }


def judge(path: Path, right: Answer, forged: bool = False) -> str:
    """Say what came of reading a mutant: "refused", "right", or what is wrong.

    A forged mutant, whose checksums fit, may well say something else; it must not break its reader.
    """
    try:
        found = read_all(path)
    except CacheError as error:
        return "refused" if str(error).isprintable() else f"an error of several lines: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    wrong = [name for name in right if found[name] != right[name]]
    return "right" if not wrong or forged else f"wrong in silence: {', '.join(wrong)}"


def flip_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)


def overwrite(data: bytearray, rng: random.Random) -> None:
    start, length = _place(data, rng), rng.choice([1, 2, 4, 8, 16, 100, 512])
    filler = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length)])
    data[start : min(start + length, len(data))] = filler[: max(0, min(length, len(data) - start))]


def truncate(data: bytearray, rng: random.Random) -> None:
    del data[rng.choice([rng.randrange(len(data)), len(data) - 1, 0, 4096, 8192, 100]) :]


def extend(data: bytearray, rng: random.Random) -> None:
    data.extend(rng.choice([b"\0", b"x", bytes(4096), rng.randbytes(33)]))


def swap(data: bytearray, rng: random.Random) -> None:
    length = rng.choice([1, 8, 32, 192, 512, 4096])
    first, second = sorted(_place(data, rng) // length * length for _ in range(2))
    one, two = bytes(data[first : first + length]), bytes(data[second : second + length])
    if first + length <= second and len(two) == length:
        data[first : first + length], data[second : second + length] = two, one


def zero_page(data: bytearray, rng: random.Random) -> None:
    start = _place(data, rng) // 4096 * 4096
    end = min(start + 4096, len(data))
    data[start:end] = bytes(end - start)


def shift(data: bytearray, rng: random.Random) -> None:
    start, length = _place(data, rng), rng.choice([1, 8, 512])
    del data[start : start + length]
    data.extend(bytes(length))


ACCIDENTS: tuple[Mutate, ...] = (flip_bits, flip_bits, flip_bits, overwrite, overwrite, truncate, extend, swap)
ACCIDENTS += (zero_page, shift)


def _place(data: bytearray, rng: random.Random) -> int:
    """Choose a byte; the header, the objects of the HDF5 library and the tables more often than their share."""
    (length,) = struct.unpack_from("<I", data, 12)
    regions = [(0, 16), (16, min(16 + length + 16, 4096)), (0, 4096), (4096, 8192), (8192, len(data)), (0, len(data))]
    start, end = rng.choice(regions)
    return min(rng.randrange(start, max(start + 1, end)), len(data) - 1)


def forge(data: bytearray, rng: random.Random) -> None:
    """Change header or tables and make every checksum fit again."""
    (length,) = struct.unpack_from("<I", data, 12)
    text = bytes(data[16 : 16 + length])
    values = json.loads(text)
    if rng.random() < 0.5:
        images = next(d for d in values["datasets"] if d["name"] == "images")
        behind = images["offset"] + int(np.prod(images["shape"])) * np.dtype(images["dtype"]).itemsize
        tables = bytearray(data[behind:])
        rng.choice([flip_bits_flat, flip_bits_flat, overwrite_flat])(tables, rng)
        data[behind:] = tables
    else:
        _forge_value(values, rng)
    seal(data, values)


def flip_bits_flat(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice([1, 3, 20])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def overwrite_flat(data: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(data)), rng.choice([1, 8, 64, 500])
    end = min(start + length, len(data))
    data[start:end] = rng.choice([bytes(length), b"\xff" * length, rng.randbytes(length), b"9" * length])[: end - start]


NONSENSE: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**31, 2**62, 2**63, 2**70, 10**300, 1.5, 1e308, float("inf"), float("nan"), "", "x"),
    *("|S0", "|O", "<f8", "\ud800", "\0", "labels", "images", "0" * 64, [], [1], {}, {"a": 1}, [[[[[[]]]]]], [0] * 40),
)


def _forge_value(values: Any, rng: random.Random) -> None:
    """Replace, delete or double one value anywhere in the header."""
    node = values
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = rng.choice(keys)
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.85:
            node = node[key]
            continue
        break
    action = rng.random()
    if action < 0.1:
        del node[key]
    elif action < 0.2 and isinstance(node, list):
        node.append(node[key])
    elif action < 0.35 and type(node[key]) is int:
        node[key] += rng.choice([-4096, -1, 1, 8, 4096])
    else:
        node[key] = rng.choice(NONSENSE)


def examine(
    originals: list[tuple[bytes, Answer]],
    seeds: range,
    folder: Path,
    mutate: Mutate | None = None,
    prepare: Callable[[], None] = lambda: None,
    judged: Judge = judge,
) -> tuple[Counter[str], list[str]]:
    """Read mutants in children; return how often they came to what, and what went wrong."""
    figures, wrong = Counter[str](), []
    batches = [seeds[start : start + BATCH] for start in range(0, len(seeds), BATCH)]
    running: list[tuple[int, int, mmap.mmap, float]] = []
    while batches or running:
        while batches and len(running) < SIDES:
            running.append(_start(originals, batches.pop(0), folder, mutate, prepare, judged))
        pid, answer, at, deadline = running.pop(0)
        status = _wait(pid, deadline)
        said = b""
        while part := os.read(answer, 1 << 16):
            said += part
        os.close(answer)
        if status:
            wrong.append(f"mutant {struct.unpack('<q', at[:8])[0]}: the reader hung or crashed ({status})")
            continue
        outcome: dict[str, str] = json.loads(said)
        for seed, what in outcome.items():
            figures[what if what in HARMLESS else "wrong"] += 1
            if what not in HARMLESS:
                wrong.append(f"mutant {seed}: {what}")
    return figures, wrong


def _start(
    originals: list[tuple[bytes, Answer]],
    seeds: range,
    folder: Path,
    mutate: Mutate | None,
    prepare: Callable[[], None],
    judged: Judge,
) -> tuple[int, int, mmap.mmap, float]:
    answer, say = os.pipe()
    at = mmap.mmap(-1, 8)
    pid = os.fork()
    if pid:
        os.close(say)
        return pid, answer, at, time.monotonic() + SECONDS_A_BATCH
    os.close(answer)
    torch.set_num_threads(1)
    path = folder / f"mutant-{os.getpid()}.h5"
    outcome = {}
    code = 1
    try:
        prepare()
        for seed in seeds:
            at[:8] = struct.pack("<q", seed)
            outcome[seed] = _read_mutant(originals, seed, path, mutate, judged)
        path.unlink()
        with os.fdopen(say, "wb") as file:
            file.write(json.dumps(outcome).encode())
        code = 0
    finally:
        os._exit(code)


def _read_mutant(
    originals: list[tuple[bytes, Answer]], seed: int, path: Path, mutate: Mutate | None, judged: Judge
) -> str:
    rng = random.Random(seed)
    original, right = originals[seed % len(originals)]
    data = bytearray(original)
    change = mutate or (forge if rng.random() < 0.25 else rng.choice(ACCIDENTS))
    change(data, rng)
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    return judged(path, right, change is forge)


def _wait(pid: int, deadline: float) -> int:
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

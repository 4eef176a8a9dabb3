"""Compare rows that C code copies (kernels.py, system/native.py) with PyTorch's, byte by byte."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline import TensorCache
from pipeline.load import kernels as module
from pipeline.load import threads as threads_module
from pipeline.load.kernels import compiled_kernels, gather_rows
from pipeline.system.native import compiled

Call = tuple[str, int, int]  # "copy" or "stream", rows, threads


@pytest.fixture(params=["compiled", "PyTorch"])
def calls(request: Any, monkeypatch: pytest.MonkeyPatch, kernels: Path) -> list[Call]:
    """Each way to gather, a byte being worth a thread; what each call of the compiled part had to do."""
    folder = kernels if request.param == "compiled" else Path("nothing is here")
    monkeypatch.setattr(module, "compiled", lambda name: compiled(name, folder))
    compiled_ones, calls = compiled_kernels.__wrapped__(), []
    assert (compiled_ones is None) == (request.param == "PyTorch")

    def counted(name: str, kernel: Any) -> Any:
        def call(*args: int) -> None:
            calls.append((name, args[2], args[-1]))
            kernel(*args)

        return call

    both = compiled_ones and tuple(map(counted, ("copy", "stream"), compiled_ones))
    monkeypatch.setattr(module, "compiled_kernels", lambda: both)
    monkeypatch.setattr(threads_module, "_BYTES_A_THREAD", 1)
    return calls


@pytest.fixture(params=["in the cache", "past it"])
def past_the_cache(request: Any, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether a batch of any size is a small one, or a large one."""
    streamed = bool(request.param == "past it")
    monkeypatch.setattr(module, "_STREAMED", 0 if streamed else 2**60)
    return streamed


@pytest.mark.parametrize("shape", [(1,), (3,), (3, 5, 5), (63,), (64,), (3, 16, 16), (10_001,)], ids=str)
@pytest.mark.parametrize("offset", [0, 1, 16, 63])
@pytest.mark.usefixtures("calls", "past_the_cache")
def test_every_byte_arrives_and_none_beside_it(shape: tuple[int, ...], offset: int) -> None:
    images = torch.randint(0, 256, (7, *shape), dtype=torch.uint8)
    rows = torch.tensor([6, 0, 3, 3, 1])
    size = len(rows) * images[0].numel()
    memory = torch.full((size + 256,), 77, dtype=torch.uint8)
    start = -memory.data_ptr() % 64 + offset

    gather_rows(images, rows, memory[start : start + size].view(-1, *shape))

    assert torch.equal(memory[start : start + size].view(-1, *shape), images[rows])
    assert (memory[:start] == 77).all() and (memory[start + size :] == 77).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_shared_among_as_many_threads_as_pytorch_has(
    calls: list[Call], past_the_cache: bool, threads: int, set_threads: Any
) -> None:
    images = torch.randn(7, 3, 5, 5)
    rows = torch.randint(0, 7, (67,))
    out = torch.full((len(rows), 3, 5, 5), torch.nan)
    set_threads(threads)

    gather_rows(images, rows, out)

    assert torch.equal(out, images[rows])
    assert calls in ([], [("stream" if past_the_cache else "copy", len(rows), threads)])


def strided(rows: int) -> Tensor:
    return torch.randn(2 * rows, 3)[::2]


@pytest.mark.parametrize(
    ("images", "rows", "out"),
    [
        (strided(7), torch.tensor([6, 1]), torch.empty(2, 3)),
        (torch.randn(7, 3), torch.tensor([6, 0, 1])[::2], torch.empty(2, 3)),
        (torch.randn(7, 3), torch.tensor([6, 1]), torch.empty(2, 6)[:, ::2]),
    ],
    ids=["images", "rows", "out"],
)
def test_what_does_not_lie_in_one_piece_is_left_to_pytorch(
    calls: list[Call], images: Tensor, rows: Tensor, out: Tensor
) -> None:
    gather_rows(images, rows, out)

    assert torch.equal(out, images[rows])
    assert not calls


def test_a_batch_of_another_dtype_is_refused(calls: list[Call]) -> None:
    with pytest.raises(RuntimeError, match="same scalar type"):
        gather_rows(torch.randn(7, 3), torch.tensor([6, 1]), torch.empty(2, 3, dtype=torch.float64))
    assert not calls


@pytest.mark.parametrize("row", [8, -1, 2**62])
def test_a_row_that_is_not_there_never_becomes_an_address(calls: list[Call], row: int, cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    cache.read(torch.arange(8))  # from here on no row is checked any more

    with pytest.raises(IndexError, match="of a cache of 8 images"):
        cache.read(torch.tensor([0, row]))
    assert not calls
    assert torch.equal(cache.read(torch.tensor([5, 0])), cache.images[[5, 0]])


def test_only_a_batch_that_leaves_the_cache_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed: list[tuple[bool, int]] = []
    both = (lambda *args: streamed.append((False, args[2])), lambda *args: streamed.append((True, args[2])))
    monkeypatch.setattr(module, "compiled_kernels", lambda: both)
    images = torch.zeros(1, 2**20, dtype=torch.uint8)

    for count in (23, 24):
        gather_rows(images, torch.zeros(count, dtype=torch.int64), torch.empty(count, 2**20, dtype=torch.uint8))

    assert streamed == [(False, 23), (True, 24)]

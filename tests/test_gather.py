"""Rows that are streamed are those that PyTorch copies, to the byte, wherever they lie and go."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline import TensorCache
from pipeline import gather as module
from pipeline.compiled import compiled
from pipeline.gather import gather_rows, streaming_kernel
from pipeline.threads import IMAGES_A_THREAD


@pytest.fixture(params=["compiled", "PyTorch"])
def calls(request: Any, monkeypatch: pytest.MonkeyPatch, kernels: Path) -> list[int]:
    """Each way to gather, a batch of any size being large; how many rows each call of the compiled part copied."""
    folder = kernels if request.param == "compiled" else Path("nothing is here")
    monkeypatch.setattr(module, "compiled", lambda name: compiled(name, folder))
    kernel, calls = streaming_kernel.__wrapped__(), []
    assert (kernel is None) == (request.param == "PyTorch")

    def counted(*args: int) -> None:
        assert kernel is not None
        calls.append(args[2])
        kernel(*args)

    monkeypatch.setattr(module, "streaming_kernel", lambda: counted if kernel else None)
    monkeypatch.setattr(module, "_STREAMED", 0)
    return calls


@pytest.mark.parametrize("shape", [(1,), (3,), (3, 5, 5), (63,), (64,), (3, 16, 16), (10_001,)], ids=str)
@pytest.mark.parametrize("offset", [0, 1, 16, 63])
def test_every_byte_arrives_and_none_beside_it(calls: list[int], shape: tuple[int, ...], offset: int) -> None:
    images = torch.randint(0, 256, (7, *shape), dtype=torch.uint8)
    rows = torch.tensor([6, 0, 3, 3, 1])
    size = len(rows) * images[0].numel()
    memory = torch.full((size + 256,), 77, dtype=torch.uint8)
    start = -memory.data_ptr() % 64 + offset

    gather_rows(images, rows, memory[start : start + size].view(-1, *shape))

    assert torch.equal(memory[start : start + size].view(-1, *shape), images[rows])
    assert (memory[:start] == 77).all() and (memory[start + size :] == 77).all()


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_shared_among_threads_that_end(calls: list[int], threads: int) -> None:
    images = torch.randn(7, 3, 5, 5)
    rows = torch.randint(0, 7, (3 * IMAGES_A_THREAD + 1,))
    out = torch.full((len(rows), 3, 5, 5), torch.nan)
    before, alive = torch.get_num_threads(), threading.active_count()
    try:
        torch.set_num_threads(threads)
        gather_rows(images, rows, out)
    finally:
        torch.set_num_threads(before)

    assert torch.equal(out, images[rows])
    assert not calls or (len(calls), sum(calls)) == (threads, len(rows))
    assert threading.active_count() == alive, "a thread that lives on would be missing after a fork"


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
    calls: list[int], images: Tensor, rows: Tensor, out: Tensor
) -> None:
    gather_rows(images, rows, out)

    assert torch.equal(out, images[rows])
    assert not sum(calls)


def test_a_batch_of_another_dtype_is_refused(calls: list[int]) -> None:
    with pytest.raises(RuntimeError, match="same scalar type"):
        gather_rows(torch.randn(7, 3), torch.tensor([6, 1]), torch.empty(2, 3, dtype=torch.float64))
    assert not calls


@pytest.mark.parametrize("row", [8, -1, 2**62])
def test_a_row_that_is_not_there_never_becomes_an_address(calls: list[int], row: int, cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    cache.read(torch.arange(8))  # from here on no row is checked any more

    with pytest.raises(IndexError, match="of a cache of 8 images"):
        cache.read(torch.tensor([0, row]))
    assert not calls
    assert torch.equal(cache.read(torch.tensor([5, 0])), cache.images[[5, 0]])


def test_only_a_batch_that_leaves_the_cache_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed: list[int] = []
    monkeypatch.setattr(module, "streaming_kernel", lambda: lambda *args: streamed.append(args[2]))
    images = torch.zeros(1, 2**20, dtype=torch.uint8)

    for count in (23, 24):
        gather_rows(images, torch.zeros(count, dtype=torch.int64), torch.empty(count, 2**20, dtype=torch.uint8))

    assert streamed == [24]

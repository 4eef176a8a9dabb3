"""A loader (loader.py) goes on in the middle of an epoch, as torchdata's StatefulDataLoader does."""

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.load.cache import TensorCache
from pipeline.load.loader import make_loader

BATCH = 3  # of 8 images: two whole batches and a short one


@pytest.fixture
def cache(cache_path: Path) -> TensorCache:
    return TensorCache(cache_path)


def loader_of(cache: TensorCache, workers: int = 0, **options: Any) -> Any:
    return make_loader(cache, BATCH, seed=5, workers=workers, **options)


def epochs_of(loader: Any, count: int) -> list[list[Tensor]]:
    return [[images for images, _ in loader] for _ in range(count)]


def are_same(found: list[list[Tensor]], wanted: list[list[Tensor]]) -> bool:
    return [len(epoch) for epoch in found] == [len(epoch) for epoch in wanted] and all(
        torch.equal(a, b) for one, other in zip(found, wanted, strict=True) for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize(("workers", "resumed", "batches"), [(0, 0, 0), (0, 0, 2), (2, 2, 1), (2, 0, 2)])
def test_a_loader_goes_on_after_any_batch(workers: int, resumed: int, batches: int, cache: TensorCache) -> None:
    wanted = epochs_of(loader_of(cache), 4)
    loader = loader_of(cache, workers)
    epochs_of(loader, 1)
    given = list(islice(iter(loader), batches))
    state = json.loads(json.dumps(loader.state_dict()))
    assert (state["epoch"], state["batch"]) == (1, batches) and len(given) == batches

    again = loader_of(cache, resumed)
    again.load_state_dict(state)

    assert again.state_dict() == state
    assert are_same(epochs_of(again, 3), [wanted[1][batches:], *wanted[2:]])


def test_the_state_after_the_last_batch_is_the_next_epoch(cache: TensorCache) -> None:
    loader = loader_of(cache)
    states = [(state["epoch"], state["batch"]) for _ in range(2) for _ in loader for state in [loader.state_dict()]]
    assert states == [(0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert (loader.state_dict()["epoch"], loader.state_dict()["batch"]) == (2, 0)


def test_a_loader_that_has_begun_can_go_back_and_on_again(cache: TensorCache) -> None:
    loader = loader_of(cache, augment="flip,crop")
    wanted = epochs_of(loader, 2)
    loader.load_state_dict(loader.state_dict() | {"epoch": 0, "batch": 1})
    first = next(iter(loader))[0]
    state = loader.state_dict()
    assert torch.equal(first, wanted[0][1]) and (state["epoch"], state["batch"]) == (0, 2)

    loader.load_state_dict(state)
    assert are_same(epochs_of(loader, 2), [wanted[0][2:], wanted[1]])


def test_a_trainer_that_announces_the_epoch_does_not_restart_it(cache: TensorCache) -> None:
    wanted = epochs_of(loader_of(cache), 2)
    loader = loader_of(cache)
    loader.load_state_dict(loader.state_dict() | {"epoch": 1, "batch": 2})
    loader.sampler.set_epoch(1)
    assert are_same(epochs_of(loader, 1), [wanted[1][2:]])
    loader.sampler.set_epoch(1)
    assert are_same(epochs_of(loader, 1), [wanted[1]])


def test_the_state_of_one_rank_fits_all_ranks(cache: TensorCache) -> None:
    wanted = epochs_of(loader_of(cache), 1)[0]
    first = loader_of(cache, part=(0, 2))
    next(iter(first))
    rest = []
    for rank in range(2):
        loader = loader_of(cache, part=(rank, 2))
        loader.load_state_dict(first.state_dict())
        rest.append([images for images, _ in loader])
    assert all(
        torch.equal(torch.cat(parts), whole) for parts, whole in zip(zip(*rest, strict=True), wanted[1:], strict=True)
    )


def test_a_state_of_other_batches_is_refused(cache: TensorCache) -> None:
    state = loader_of(cache).state_dict()
    with pytest.raises(ValueError, match=r"of a loader with batch_size 3, seed 5; this one has batch_size 4, seed 0"):
        make_loader(cache, 4).load_state_dict(state)  # type: ignore[attr-defined]

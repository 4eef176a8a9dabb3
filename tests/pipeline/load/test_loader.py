import copy
import multiprocessing
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Subset, TensorDataset

from pipeline.errors import CacheDamaged
from pipeline.format.paths import cache_files
from pipeline.format.reader import CacheReader
from pipeline.load.batch_plan import BatchPlan
from pipeline.load.cache import TensorCache
from pipeline.load.dataset import CacheDataset, Samples, collate
from pipeline.load.kinds import KINDS
from pipeline.load.loader import make_loader
from pipeline.load.sampler import EpochSampler

SLOW_METHODS = ("spawn", "forkserver")  # each worker imports torch


@pytest.fixture
def cache(cache_path: Path) -> TensorCache:
    return TensorCache(cache_path)


def rows_of(loader: DataLoader[Any], cache: TensorCache) -> list[int]:
    """Tell by their content which rows an epoch delivered, and check labels and bits on the way."""
    expected = cache.images.clone()
    rows = []
    for images, labels in loader:
        assert images.dtype == torch.float32 and labels.dtype == torch.int64
        assert images.shape[1:] == (3, 64, 64) and len(images) == len(labels)
        for image, label in zip(images, labels.tolist(), strict=True):
            row = next(r for r in range(8) if torch.equal(expected[r], image))
            assert label == cache.labels[row]
            rows.append(row)
    return rows


# --- what is delivered --------------------------------------------------------------------------------------------


def test_an_epoch_delivers_each_image_once_in_batches(cache: TensorCache) -> None:
    loader = make_loader(cache, batch_size=3)

    assert [len(images) for images, _ in loader] == [3, 3, 2]
    assert len(loader) == 3
    rows = rows_of(loader, cache)
    assert sorted(rows) == list(range(8)) and rows != list(range(8))


def test_without_shuffling_rows_come_in_their_order(cache: TensorCache) -> None:
    loader = make_loader(cache, batch_size=3, shuffle=False)

    assert rows_of(loader, cache) == rows_of(loader, cache) == list(range(8))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("batch_size", "drop_last"), [(3, False), (7, False), (3, True), (2, False)])
def test_parts_of_batches_are_those_of_the_whole_ones(
    cache: TensorCache, batch_size: int, drop_last: bool, workers: int
) -> None:
    ranks = 2
    wholes = list(make_loader(cache, batch_size, drop_last=drop_last))
    loaders = [
        make_loader(cache, batch_size, workers=workers, drop_last=drop_last, part=(rank, ranks))
        for rank in range(ranks)
    ]
    assert [len(loader) for loader in loaders] == [len(wholes)] * ranks
    for (images, labels), *parts in zip(wholes, *loaders, strict=True):
        assert torch.equal(torch.cat([part[0] for part in parts]), images)
        assert torch.equal(torch.cat([part[1] for part in parts]), labels)
        lengths = [len(part[0]) for part in parts]
        assert max(lengths) - min(lengths) <= 1


def test_a_rank_announces_its_own_rows_alone_and_a_few_ahead(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(cache_path)
    announced: list[int] = []
    monkeypatch.setattr(cache, "in_memory", lambda rows: False)
    monkeypatch.setattr(cache, "will_need", lambda rows: announced.extend(rows.tolist()))
    monkeypatch.setattr(EpochSampler, "_READ_AHEAD", 1)  # four rows ahead, whatever they are

    batches = make_loader(cache, batch_size=2, rows=torch.arange(8).repeat(2), shuffle=False, part=(1, 2))
    next(iter(batches))

    assert announced == [1, 3, 5, 7], "not all of the epoch at once, nor what the other rank reads"


def test_a_mask_is_not_taken_for_rows(cache: TensorCache) -> None:
    with pytest.raises(ValueError, match=r"rows are \(M,\) int64, not \(8,\) torch.bool"):
        make_loader(cache, rows=cache.labels == 1)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"rows": [0, 8]}, IndexError, "rows 0 to 8 of a cache of 8 images"),
        ({"rows": [-1]}, IndexError, "rows -1 to -1 of a cache of 8 images"),
        ({"part": (2, 2)}, ValueError, r"0 <= rank < ranks, not \(2, 2\)"),
        ({"batch_size": 2.5}, TypeError, "integer"),
        ({"num_workers": 2}, TypeError, "takes no num_workers; its number of processes is called workers"),
        ({"sampler": [0]}, TypeError, r"own: DataLoader\(CacheDataset\(cache\), sampler=..., collate_fn=collate\)"),
        ({"batch_sampler": [[0]]}, TypeError, r"own: DataLoader\(CacheDataset\(cache\), batch_sampler=..., collate"),
    ],
)
def test_what_a_loader_cannot_do_it_says_before_the_first_epoch(
    options: dict[str, Any], error: type[Exception], told: str, cache: TensorCache
) -> None:
    with pytest.raises(error, match=told):
        make_loader(cache, **options)


def test_a_path_in_the_place_of_a_cache_is_an_error_that_says_so(cache_path: Path) -> None:
    for make in (make_loader, CacheDataset):
        with pytest.raises(TypeError, match=r"a TensorCache is needed, not a str: TensorCache\(path\) opens one"):
            make(str(cache_path))  # type: ignore[arg-type]


def test_a_loader_takes_anybodys_collate_function_and_any_integers(cache: TensorCache) -> None:
    loader = make_loader(cache, np.int64(3), shuffle=False, collate_fn=lambda samples: [label for _, label in samples])  # type: ignore[arg-type]

    assert list(loader) == [[0, 0, 0], [0, 1, 1], [1, 1]]


def test_the_last_short_batch_is_left_out_where_asked_for(cache: TensorCache) -> None:
    assert [len(images) for images, _ in make_loader(cache, batch_size=3, drop_last=True)] == [3, 3]
    assert not list(make_loader(cache, batch_size=9, drop_last=True))
    assert [len(images) for images, _ in make_loader(cache, batch_size=100)] == [8]


@pytest.mark.parametrize("shuffle", [False, True])
def test_float32_and_uint8_caches_deliver_the_same_bits(
    shuffle: bool, cache_path: Path, uint8_cache_path: Path
) -> None:
    loaders = [make_loader(TensorCache(p), batch_size=5, shuffle=shuffle) for p in (cache_path, uint8_cache_path)]

    for (images, labels), (others, other_labels) in zip(*loaders, strict=True):
        assert images.numpy().tobytes() == others.numpy().tobytes() and torch.equal(labels, other_labels)


# --- order --------------------------------------------------------------------------------------------------------


def test_the_order_follows_from_seed_and_epoch_alone(cache: TensorCache) -> None:
    first = make_loader(cache, batch_size=3, seed=5)
    epochs = [rows_of(first, cache) for _ in range(4)]
    torch.manual_seed(99)
    torch.rand(100)

    assert [rows_of(loader, cache) for loader in [make_loader(cache, batch_size=8, seed=5)] for _ in range(4)] == epochs
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert rows_of(make_loader(cache, seed=6), cache) != epochs[0]


def test_the_next_epoch_can_be_chosen(cache: TensorCache) -> None:
    loader = make_loader(cache, batch_size=3, seed=5)
    epochs = [rows_of(loader, cache) for _ in range(4)]
    sampler: Any = loader.sampler

    sampler.set_epoch(2)
    assert [rows_of(loader, cache), rows_of(loader, cache)] == epochs[2:]
    sampler.set_epoch(0)
    assert rows_of(loader, cache) == epochs[0]


def test_torchs_own_random_numbers_are_left_alone(cache: TensorCache) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)

    torch.manual_seed(7)
    loader = make_loader(cache, batch_size=3)
    list(loader)
    iter(loader)

    assert torch.equal(torch.rand(3), expected)


class Drawing(CacheDataset):
    """Gives a random number a sample, as a random transform draws it."""

    def __getitem__(self, row: Any) -> Any:
        return torch.rand(()).item()


def test_what_workers_draw_follows_from_the_seed(cache: TensorCache) -> None:
    def drawn(seed: int) -> list[list[float]]:
        loader = make_loader(cache, 4, seed=seed, workers=1, collate_fn=list, multiprocessing_context="fork")
        loader.dataset.__class__ = Drawing
        return [[number for batch in loader for number in batch] for _ in range(2)]

    assert drawn(1) == drawn(1)
    assert len({tuple(epoch) for seed in (1, 2) for epoch in drawn(seed)}) == 4


# --- memory -------------------------------------------------------------------------------------------------------


def test_a_whole_batch_is_not_copied_a_second_time(cache: TensorCache) -> None:
    samples: Any = CacheDataset(cache).__getitems__([3, 1, 2])

    images, labels = collate(samples)

    assert images is samples.images and labels is samples.labels
    assert [image.data_ptr() for image, _ in samples] == [images[i].data_ptr() for i in range(3)]
    assert torch.equal(images, cache.images[[3, 1, 2]])


def test_samples_are_made_when_they_are_asked_for_as_a_list_has_them(cache: TensorCache) -> None:
    samples = CacheDataset(cache).__getitems__([3, 1, 6])
    expected = [(cache.images[row], label) for row, label in ((3, 0), (1, 0), (6, 1))]

    def same(ours: Any, others: list[Any]) -> bool:
        pairs = list(zip(ours, others, strict=True))
        return all(torch.equal(a, b) and type(m) is int and m == n for (a, m), (b, n) in pairs)

    assert len(samples) == 3 and same(samples, expected) and same(reversed(samples), expected[::-1])
    assert same([samples[0], samples[-1], samples[1]], [expected[0], expected[2], expected[1]])
    assert same(samples[1:], expected[1:]) and same(samples[::-2], expected[::-2])
    for place in (3, -4):
        with pytest.raises(IndexError):
            samples[place]


def test_samples_that_somebody_picked_are_collated_as_torch_does(cache: TensorCache) -> None:
    samples = CacheDataset(cache).__getitems__([3, 1, 2])

    images, labels = collate([samples[2], samples[0]])

    assert torch.equal(images, cache.images[[2, 3]]) and labels.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_kept_batch_never_changes_nor_any_part_of_one(dtype: str, cache_path: Path, uint8_cache_path: Path) -> None:
    cache = TensorCache(cache_path if dtype == "float32" else uint8_cache_path)
    loader = make_loader(cache, batch_size=3)
    kept: list[tuple[Any, bytes]] = []

    for _ in range(5):
        for images, _ in loader:
            for part in (images[1], images[:, 0], images.flatten()[5:9], images[0].numpy(), images.detach()[1:]):
                kept.append((part, torch.as_tensor(part).contiguous().numpy().tobytes()))
            del images, part
        kept.append((cache.read(torch.tensor([2]))[0, 1], cache.read(torch.tensor([2]))[0, 1].numpy().tobytes()))

    assert len(kept) == 5 * (3 * 5 + 1)
    for part, before in kept:
        assert torch.as_tensor(part).contiguous().numpy().tobytes() == before


def test_threads_that_read_at_once_do_not_get_each_others_batches(cache: TensorCache) -> None:
    expected = cache.images.clone()
    wrong: list[object] = []

    def read(row: int) -> None:
        try:
            for _ in range(300):
                batch = cache.read(torch.tensor([row, row]))
                if not torch.equal(batch[0], expected[row]) or not torch.equal(batch[1], expected[row]):
                    wrong.append(row)
        except Exception as error:
            wrong.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=read, args=(row,)) for row in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)

    assert not wrong


def test_a_changed_batch_does_not_reach_cache_or_file(cache: TensorCache, cache_path: Path) -> None:
    before = cache_path.read_bytes()

    for images, _ in make_loader(cache, batch_size=8):
        images.zero_()

    assert cache_path.read_bytes() == before
    assert all(image.any() for image in cache.images)


# --- the dataset, in anybody's hands ------------------------------------------------------------------------------


def test_many_rows_at_once_are_a_batch_as_of_a_tensor_dataset(cache: TensorCache) -> None:
    dataset, theirs = CacheDataset(cache), TensorDataset(cache.images, cache.labels)

    all_rows: list[Any] = [[6, 0, 6], slice(2, None, 3), slice(-3, 9), slice(0), torch.tensor([5, 1]), np.array([5, 1])]
    for rows in all_rows:
        batch: Any = dataset[rows]
        expected = theirs[rows]
        assert type(batch) is tuple and batch[1].dtype == torch.int64
        assert torch.equal(batch[0], expected[0]) and torch.equal(batch[1], expected[1])
    for images, labels in DataLoader(dataset, batch_size=None, sampler=BatchSampler(range(8), 3, False)):
        assert len(images) == len(labels) > 1, "torch's own way to let a dataset make the batches"


@pytest.mark.parametrize("mask", [[True, False], torch.tensor([True, False]), np.array([True, False])])
def test_a_mask_is_not_taken_for_rows_of_the_dataset(mask: Any, cache: TensorCache) -> None:
    with pytest.raises(TypeError, match=r"mask.nonzero\(\).flatten\(\) gives its rows"):
        CacheDataset(cache)[mask]


def test_a_collate_function_may_do_with_the_samples_what_lists_let_it_do(cache: TensorCache) -> None:
    def collated(change: Callable[[Any], Any]) -> list[int]:
        samples = CacheDataset(cache).__getitems__([6, 3, 5])
        batch = change(samples) or samples
        images, labels = collate(batch)
        rows = [next(row for row in range(8) if torch.equal(cache.images[row], image)) for image in images]
        assert torch.equal(labels, cache.labels[rows]) and len(batch) == len(rows)
        return rows

    assert collated(lambda samples: samples.sort(key=lambda sample: sample[1])) == [3, 6, 5]
    assert collated(lambda samples: samples.reverse()) == [5, 3, 6]
    assert collated(lambda samples: samples.append(samples[0])) == [6, 3, 5, 6]
    assert collated(lambda samples: samples + list(samples)[1:2]) == [6, 3, 5, 3]
    assert collated(lambda samples: list(samples)[1:2] + samples) == [3, 6, 3, 5]
    assert collated(lambda samples: samples.pop() and None) == [6, 3]
    assert collated(lambda samples: samples.__setitem__(0, samples[2])) == [5, 3, 5]
    assert collated(copy.copy) == collated(lambda samples: samples.copy()) == [6, 3, 5]


def test_a_subclass_that_changes_samples_is_heard_by_every_loader(cache: TensorCache) -> None:
    class Negative(CacheDataset):
        def __getitem__(self, row: Any) -> Any:
            image, label = super().__getitem__(row)
            return -image, label

    images, _ = next(iter(DataLoader(Negative(cache), batch_size=8)))

    assert torch.equal(images, -cache.images)


def test_the_dataset_of_a_part_is_that_part(cache: TensorCache) -> None:
    rows = torch.tensor([6, 0, 5])
    loader = make_loader(cache, batch_size=2, rows=rows, seed=1)
    dataset: Any = loader.dataset

    assert len(dataset) == 3 and torch.equal(dataset[:][0], cache.images[rows])
    with pytest.raises(IndexError, match="rows 3 to 3 of a part of a cache, of 3 images"):
        dataset[3]
    (images, labels), *rest = DataLoader(dataset, batch_size=8)  # a trainer that brings its own sampler
    assert not rest and torch.equal(images, cache.images[rows]) and torch.equal(labels, cache.labels[rows])
    assert sorted(rows_of(loader, cache)) == [0, 5, 6]
    sampler: Any = loader.sampler
    assert [cache.labels[row] for row in sampler.plan.order(1)] == [label for _, labels in loader for label in labels]


@pytest.mark.parametrize("augment", ["", ",".join(KINDS)])
def test_another_default_device_changes_nothing(augment: str, cache_path: Path, uint8_cache_path: Path) -> None:
    for path in (cache_path, uint8_cache_path):
        rows = torch.tensor([5, 1, 2, 7])
        expected = list(make_loader(TensorCache(path), batch_size=3, rows=rows, seed=2, augment=augment))
        with torch.device("meta"):
            cache = TensorCache(path)
            loader = make_loader(cache, batch_size=3, rows=[5, 1, 2, 7], seed=2, augment=augment)  # type: ignore[arg-type]
            batches = list(loader)
            assert cache["n01740131_300.JPEG"][2].device == torch.device("cpu")
            assert len(list(make_loader(cache))) == 1
        assert all(
            torch.equal(a, b)
            for ours, others in zip(batches, expected, strict=True)
            for a, b in zip(ours, others, strict=True)
        )


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_another_default_dtype_changes_nothing(dtype: torch.dtype, uint8_cache_path: Path) -> None:
    def read() -> torch.Tensor:
        loader = make_loader(TensorCache(uint8_cache_path), batch_size=3, augment=",".join(KINDS))
        return torch.cat([images for images, _ in loader])

    expected = read()
    torch.set_default_dtype(dtype)
    try:
        found = read()
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(torch.float32)

    assert torch.equal(found, expected)


def test_the_dataset_gives_a_sample_for_a_row(cache: TensorCache) -> None:
    dataset = make_loader(cache).dataset
    assert isinstance(dataset, CacheDataset) and len(dataset) == 8

    image, label = dataset[5]
    assert torch.equal(image, cache.images[5]) and label == 1 and type(label) is int
    assert torch.equal(dataset[-1][0], cache.images[7])
    batch = dataset.__getitems__([-1, 0])
    assert isinstance(batch, Samples) and torch.equal(batch.images, cache.images[[7, 0]])


@pytest.mark.parametrize("rows", [[8], [-9], [0, 8], [0, -9], [10**12]])
def test_a_row_that_is_not_there_is_an_index_error(rows: list[int], cache: TensorCache) -> None:
    dataset = CacheDataset(cache)

    with pytest.raises(IndexError, match="of a cache of 8 images"):
        dataset.__getitems__(rows)
    with pytest.raises(IndexError):
        dataset[rows[-1]]


def test_a_dataset_can_be_iterated_and_cut(cache: TensorCache) -> None:
    dataset = CacheDataset(cache)
    samples: Any = dataset

    assert [label for _, label in samples] == [0] * 4 + [1] * 4  # ends by IndexError, as Python's sequences do
    images, labels = next(iter(DataLoader(Subset(dataset, [6, 0]), batch_size=2)))
    assert torch.equal(images, cache.images[[6, 0]]) and labels.tolist() == [1, 0]


def test_torchs_own_collate_gives_the_same_tensors(cache: TensorCache) -> None:
    dataset = make_loader(cache).dataset

    (images, labels), *rest = DataLoader(dataset, 8)

    assert not rest
    assert images.numpy().tobytes() == cache.images.numpy().tobytes() and torch.equal(labels, cache.labels)


def test_worker_processes_deliver_the_same_epochs(cache: TensorCache) -> None:
    loader = make_loader(cache, batch_size=3, workers=2, multiprocessing_context="fork", persistent_workers=True)
    expected = make_loader(cache, batch_size=3)

    for _ in range(2):
        for (images, labels), (others, other_labels) in zip(loader, expected, strict=True):
            assert images.numpy().tobytes() == others.numpy().tobytes() and torch.equal(labels, other_labels)


@pytest.mark.parametrize("method", ["fork", *(pytest.param(name, marks=pytest.mark.long) for name in SLOW_METHODS)])
def test_workers_of_any_kind_deliver_each_image_once_to_torchs_collate(method: str, cache: TensorCache) -> None:
    dataset = make_loader(cache).dataset
    multiprocessing.set_forkserver_preload(
        ["pipeline.load.loader"]
    )  # so that torch is imported once, not by each worker

    (images, labels), *rest = DataLoader(dataset, 8, num_workers=2, multiprocessing_context=method)

    assert not rest
    assert images.numpy().tobytes() == cache.images.numpy().tobytes() and torch.equal(labels, cache.labels)


def test_a_damaged_row_is_named_by_a_worker_process_as_by_this_one(cache_path: Path, tmp_path: Path) -> None:
    data = bytearray(cache_path.read_bytes())
    data[8192 + 5 * 49152 + 9] ^= 1
    (tmp_path / "c.h5").write_bytes(data)
    told = []
    for workers in (0, 1):
        method = "fork" if workers else None
        loader = make_loader(
            TensorCache(tmp_path / "c.h5"), shuffle=False, workers=workers, multiprocessing_context=method
        )
        with pytest.raises(CacheDamaged, match=r"row 5 \(class 2, n01740131_300.JPEG\)") as damaged:
            list(loader)
        told.append(str(damaged.value))
        del damaged  # it holds the loader's iterator, whose worker would be waited for when the collector finds it

    assert told[0] == told[1] and "\n" not in told[0]


def test_an_epoch_sees_what_was_written_to_a_shard_in_the_one_before(shards_path: Path, tmp_path: Path) -> None:
    for shard in cache_files(shards_path):
        shutil.copy(shard, tmp_path)
    loader = make_loader(TensorCache(tmp_path / shards_path.name))
    assert sum(map(len, (labels for _, labels in loader))) == 8

    victim = next(path for path in sorted(tmp_path.iterdir()) if CacheReader(path).num_images)
    data = bytearray(victim.read_bytes())
    data[8192 + 9] ^= 1
    with victim.open("r+b") as file:
        file.write(data)

    with pytest.raises(CacheDamaged, match=rf"{victim.name}: row 0 "):
        list(loader)


def test_the_order_follows_from_the_number_of_a_seed_not_from_its_type(cache_path: Path) -> None:
    cache = TensorCache(cache_path)
    order = make_loader(cache, seed=3).sampler.plan.order(2)  # type: ignore[attr-defined]

    for seed, epoch in ((np.int64(3), 2), (3, np.int32(2)), (np.uint8(3), np.int64(2))):
        sampler = make_loader(cache, seed=seed).sampler  # type: ignore[arg-type]
        assert torch.equal(sampler.plan.order(epoch), order)  # type: ignore[attr-defined]
    for no_number in ("3", 3.0, None):
        with pytest.raises(TypeError):
            make_loader(cache, seed=no_number)  # type: ignore[arg-type]


def test_rows_are_named_by_anything_that_is_a_whole_number(cache_path: Path) -> None:
    dataset = make_loader(TensorCache(cache_path)).dataset
    expected = dataset[3][0]

    for row in (np.int64(3), np.uint8(3), torch.tensor(3), -5):
        assert torch.equal(dataset[row][0], expected)
    batch = dataset.__getitems__(torch.tensor([3, 3]))  # type: ignore[attr-defined]
    assert torch.equal(batch.images[1], expected)
    assert dataset.__getitems__([]).images.shape == (0, 3, 64, 64)  # type: ignore[attr-defined]
    for no_row in ("3", 3.0, None, (3, 3)):
        with pytest.raises(TypeError, match="integer"):
            dataset[no_row]


def test_rows_that_are_not_in_memory_are_announced_before_they_are_read(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = TensorCache(cache_path)
    events: list[tuple[str, int]] = []
    monkeypatch.setattr(cache, "in_memory", lambda rows: False)
    monkeypatch.setattr(cache, "will_need", lambda rows: events.extend(("announced", row) for row in rows.tolist()))
    monkeypatch.setattr(EpochSampler, "_READ_AHEAD", 4 * 2 * cache.recipe.row_bytes)
    read_batch = cache.read_batch

    def read(rows: torch.Tensor, *augmentation: Any) -> Any:
        events.extend(("read", row) for row in rows.tolist())
        return read_batch(rows, *augmentation)

    monkeypatch.setattr(cache, "read_batch", read)
    for _ in make_loader(cache, batch_size=1, seed=3):
        pass

    order = BatchPlan(cache.num_images, shuffle=True, seed=3).order(0).tolist()
    assert [row for event, row in events if event == "read"] == order
    assert [row for event, row in events if event == "announced"] == order, "each once, in the order of the epoch"
    for row in order:
        assert events.index(("announced", row)) < events.index(("read", row))
    assert events[:8] == [("announced", row) for row in order[:8]], "several batches ahead"


def test_rows_in_memory_are_not_announced(cache_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = TensorCache(cache_path)
    rows = torch.arange(cache.num_images)
    cache.will_need(rows)
    cache.read(rows)
    monkeypatch.setattr(cache, "will_need", lambda rows: pytest.fail("they are there already"))

    assert cache.in_memory(rows)
    assert sum(len(labels) for _, labels in make_loader(cache, batch_size=4)) == cache.num_images


def guessed_around(cache: TensorCache) -> bool:
    """Say whether the system reads around a missing page of the rows' map in this process, as it does by default."""
    address = cache._rows.data_ptr()  # private: nothing public tells where the map begins
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first, _, rest = line.partition(" ")[0].partition("-")
        if rest and not first.endswith(":"):
            inside = int(first, 16) <= address < int(rest, 16)
        elif inside and line.startswith("VmFlags:"):
            return "rr" not in line.split()
    raise AssertionError("the rows are mapped nowhere")


class GuessedAround(CacheDataset):
    """Reads, and returns whether the system guessed."""

    def __getitems__(self, rows: Any) -> Any:
        super().__getitems__(rows)
        return [guessed_around(self.cache)]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/smaps")
def test_of_rows_that_are_announced_the_system_reads_nothing_around(cache_path: Path, shards_path: Path) -> None:
    for path in (cache_path, shards_path):
        cache = TensorCache(path)
        before = guessed_around(cache)
        cache.will_need(torch.arange(4))

        assert (before, guessed_around(cache)) == (True, False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/smaps")
@pytest.mark.parametrize("there", [True, False])
def test_workers_announce_rows_that_are_not_in_memory_themselves(
    cache_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    cache = TensorCache(cache_path)
    monkeypatch.setattr(cache, "in_memory", lambda rows: there)

    loader = DataLoader(
        GuessedAround(cache), batch_size=4, num_workers=1, collate_fn=list, multiprocessing_context="fork"
    )

    assert list(loader) == [[there], [there]]
    assert guessed_around(cache), "in this process nothing was announced"

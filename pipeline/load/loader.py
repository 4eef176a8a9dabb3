"""Batches from a cache: a Dataset that gathers whole batches, and the DataLoader around it."""

from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.load.batch_plan import BatchPlan
from pipeline.load.cache import TensorCache
from pipeline.load.dataset import CacheDataset, Sample, collate
from pipeline.load.random import seeded_generator
from pipeline.load.sampler import EpochSampler, RankBatchSampler


class CacheLoader(DataLoader[Sample]):
    """A DataLoader that looks before each epoch whether somebody has written to the cache: before workers are started.

    (torch asks a sampler for its first places when they run, and leaves them behind if it raises.)
    """

    dataset: CacheDataset

    def __iter__(self) -> Any:
        self.dataset.cache.look_again()
        with torch.device("cpu"):  # torch draws the workers' seed on the default device, with our generator
            return super().__iter__()


def make_loader(
    cache: TensorCache,
    batch_size: int = 8,
    shuffle: bool = True,
    seed: int = 0,
    workers: int = 0,
    drop_last: bool = False,
    pin_memory: bool | None = None,
    rows: Tensor | None = None,
    stored: bool = False,
    part: tuple[int, int] = (0, 1),
    **options: Any,
) -> DataLoader[Sample]:
    """Return a torch DataLoader of (images (B, 3, S, S) float32 normalized, labels (B,) int64).

    With 0 workers whole batches are gathered in this process; that is the fastest for a cache that is in memory,
    since a worker's batch has to be copied once more.

    Args:
        cache: what to read.
        batch_size: B.
        shuffle: each epoch in a new order, which follows from (seed, epoch); else in the order of the rows.
        seed: of the order, and of the random numbers that a `collate_fn` draws in workers.
        workers: processes that read.
        drop_last: leave out the last, shorter batch.
        pin_memory: copy batches into page-locked memory; None where CUDA is there.
        rows: (M,) int64, the part of the cache that is read; None for all of it.
        stored: give images as they are stored, those of a uint8 cache as uint8: a quarter of the bytes on the way to a
            GPU, where `pipeline.normalize.normalize` makes of them what the network sees, to the bit.
        part: (rank, ranks): each batch of B is divided among so many processes, and this one reads its part of it.
        options: passed on to the DataLoader (`multiprocessing_context`, `collate_fn`, ...).

    Raises:
        IndexError, ValueError: rows or a part that cannot be.
        TypeError: no cache; or a sampler of the caller's own, for which torch's DataLoader is there.
    """
    if given := {"sampler", "batch_sampler", "num_workers"} & options.keys():
        instead = "its number of processes is called workers"
        if given != {"num_workers"}:
            instead = f"with your own: DataLoader(CacheDataset(cache), {min(given)}=..., collate_fn=collate)"
        raise TypeError(f"make_loader takes no {' nor '.join(sorted(given))}; {instead}")
    if pin_memory is None:
        pin_memory = torch.cuda.is_available()
    pinned = stored and pin_memory and workers == 0  # at once; else torch copies the batch there
    part_of_cache = None if rows is None else torch.as_tensor(rows, device="cpu")
    dataset = CacheDataset(cache, stored, pinned, part_of_cache)
    all_rows = cache.num_images if part_of_cache is None else part_of_cache
    sampler = EpochSampler(BatchPlan(all_rows, batch_size, shuffle, seed, drop_last, part), cache)
    if sampler.plan.ranks > 1:
        options["batch_sampler"] = RankBatchSampler(sampler)
    else:
        options |= {"batch_size": index(batch_size), "sampler": sampler, "drop_last": drop_last}
    options.setdefault("collate_fn", collate)
    options.setdefault("generator", seeded_generator(seed))  # of what workers draw; torch's global one is left alone
    return CacheLoader(dataset, num_workers=workers, pin_memory=pin_memory and not pinned, **options)

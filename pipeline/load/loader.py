"""Make the DataLoader of a cache."""

import tempfile
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.errors import WorkerDied
from pipeline.load.batch_plan import BatchPlan
from pipeline.load.cache import TensorCache
from pipeline.load.dataset import CacheDataset, Sample, collate
from pipeline.load.random import seeded_generator
from pipeline.load.sampler import EpochSampler, RankBatchSampler
from pipeline.system.processes import has_room_for_sockets


class CacheLoader(DataLoader[Sample]):
    """Checks before each epoch, and before workers start, whether the cache file was written to.

    A sampler could not do that: torch starts the workers first, and leaves them running if the sampler raises.
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
    """Make a torch DataLoader of images (B, 3, H, W), float32 and normalized, and labels (B,) int64.

    With 0 workers, this process reads whole batches. That is fastest for a cache in memory, because the batch of a
    worker has to be copied once more.

    Args:
        cache: the cache to read.
        batch_size: the number B of images in a batch.
        shuffle: use a new order in each epoch, which follows from seed and epoch; otherwise the order of the rows.
        seed: sets the order, and the random numbers that a `collate_fn` draws in workers.
        workers: the number of processes that read.
        drop_last: leave out the last, shorter batch.
        pin_memory: copy batches into page-locked memory; None means only if CUDA is available.
        rows: (M,) int64, the rows to read; None means all.
        stored: give images as stored, so those of a uint8 cache as uint8. A quarter of the bytes go to a GPU, where
            `pipeline.normalize` gives the same tensors bit for bit.
        part: (rank, ranks). Each batch of B images is divided among `ranks` processes; this one reads its part.
        options: further arguments of the DataLoader (`multiprocessing_context`, `collate_fn`, ...).

    Raises:
        WorkerDied: workers are asked for, and every folder for temporary files has too long a name.
        IndexError, ValueError: `rows` or `part` is impossible.
        TypeError: `cache` is not a TensorCache, or a sampler was given; use torch's DataLoader for that.
    """
    if given := {"sampler", "batch_sampler", "num_workers"} & options.keys():
        instead = "its number of processes is called workers"
        if given != {"num_workers"}:
            instead = f"with your own: DataLoader(CacheDataset(cache), {min(given)}=..., collate_fn=collate)"
        raise TypeError(f"make_loader takes no {' nor '.join(sorted(given))}; {instead}")
    if workers and not has_room_for_sockets():
        reason = "its name is too long for a socket"
        raise WorkerDied("no worker can be started", tempfile.gettempdir(), reason, "Set a shorter TMPDIR")
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

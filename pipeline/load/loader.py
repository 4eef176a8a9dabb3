"""Make the DataLoader of a cache."""

import tempfile
from collections.abc import Iterator
from numbers import Real
from operator import index
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pipeline.errors import WorkerDied
from pipeline.load.augment import Augmentation
from pipeline.load.batch_plan import BatchPlan
from pipeline.load.cache import TensorCache
from pipeline.load.dataset import CacheDataset, Sample, collate
from pipeline.load.kinds import KINDS
from pipeline.load.random import seeded_generator
from pipeline.load.sampler import EpochSampler, RankBatchSampler
from pipeline.system.processes import has_room_for_sockets
from pipeline.text import ShownAsText, counted, parse_size, show_size


class CacheLoader(ShownAsText, DataLoader[Sample]):
    """Checks before each epoch, and before workers start, whether the cache file was written to.

    A sampler could not do that: torch starts the workers first, and leaves them running if the sampler raises.
    """

    dataset: CacheDataset
    _given: tuple[int, int] | None = None  # the epoch, and the batches of it that were given; None between epochs

    def __iter__(self) -> Any:
        self.dataset.cache.look_again()
        with torch.device("cpu"):  # torch draws the workers' seed on the default device, with our generator
            batches = super().__iter__()
        return batches if self._order is None else _Batches(batches, self, self._order)

    @property
    def _order(self) -> EpochSampler | None:
        """The sampler that all ranks share; None where a trainer put one of its own in its place."""
        sampler = getattr(self.batch_sampler, "sampler", None)
        return sampler if isinstance(sampler, EpochSampler) else None

    def __repr__(self) -> str:
        changed = f", changed by {', '.join(a.kinds or ())}" if (a := self.dataset.augment) and a.kinds else ""
        workers = f", {counted(self.num_workers, 'worker')}" if self.num_workers else ""
        return f"CacheLoader({self.dataset!r}{changed}{workers}, {self._order or self.batch_sampler!r})"

    def state_dict(self) -> dict[str, Any]:
        """Say which batch comes next, as torchdata's StatefulDataLoader does, in plain values.

        Batches that workers read ahead do not count. After the last batch of an epoch that is the first of the next. It
        is the same for all ranks, and for any number of workers.
        """
        if (order := self._order) is None:
            return {}  # of the order of another sampler nothing is known
        epoch, batch = self._given or (order.epoch, order.start // order.plan.batch_size)
        at_end = batch >= len(order.plan) > 0
        return {"epoch": epoch + at_end, "batch": 0 if at_end else batch} | _kind(order)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where the loader of a `state_dict` was: the next loop gives the rest of its epoch.

        Raises:
            ValueError: the state is of a loader of other batches.
        """
        order = self._order
        ours = {} if order is None else _kind(order)
        theirs = {name: value for name, value in state.items() if name not in ("epoch", "batch")}
        if ours != theirs:
            names = [name for name in ours | theirs if ours.get(name) != theirs.get(name)]
            given, here = (", ".join(f"{name} {kind.get(name)}" for name in names) for kind in (theirs, ours))
            raise ValueError(f"the state is of a loader with {given}; this one has {here}")
        if order is not None:
            order.set_epoch(state["epoch"], state["batch"] * order.plan.batch_size)
        self._given = None


def _kind(order: EpochSampler) -> dict[str, Any]:
    """Name what decides which images a batch has, beside the cache."""
    plan = order.plan
    return {"images": len(plan.rows), "batch_size": plan.batch_size, "shuffle": plan.shuffle, "seed": plan.seed}


class _Batches:
    """Counts the batches that torch's iterator gives."""

    def __init__(self, batches: Iterator[Any], loader: CacheLoader, order: EpochSampler) -> None:
        self._batches = batches
        self._loader = loader
        self._order = order
        self._given = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            batch = next(self._batches)
        except StopIteration:
            self._loader._given = None
            raise
        if self._given == 0:
            self._epoch, start = self._order.begun
            self._given = start // self._order.plan.batch_size
        self._given += 1
        self._loader._given = self._epoch, self._given
        return batch

    def __len__(self) -> int:
        return len(self._loader)


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
    augment: str | Augmentation = "",
    crop_size: str | int | tuple[int, int] | None = None,
    crop_scale: float = 0.35,
    color_jitter: float = 0.4,
    **options: Any,
) -> DataLoader[Sample]:
    """Make a torch DataLoader of images (B, 3, H, W), float32 and normalized, and labels (B,) int64.

    With `augment`, each image is changed anew in each epoch while it is read, as data seed, epoch and row say: as
    `train` changes it with the same options and `data_seed=seed`, bit for bit, with any number of workers.

    With 0 workers, this process reads whole batches. That is fastest for a cache in memory, because the batch of a
    worker has to be copied once more.

    Args:
        cache: the cache to read.
        batch_size: the number B of images in a batch.
        shuffle: use a new order in each epoch, which follows from seed and epoch; otherwise the order of the rows.
        seed: sets the order, the augmentation, and the random numbers that a `collate_fn` draws in workers.
        workers: the number of processes that read.
        drop_last: leave out the last, shorter batch.
        pin_memory: copy batches into page-locked memory; None means only if CUDA is available.
        rows: (M,) int64, the rows to read; None means all.
        stored: give images as stored, so those of a uint8 cache as uint8. A quarter of the bytes go to a GPU, where
            `pipeline.normalize` gives the same tensors bit for bit.
        part: (rank, ranks). Each batch of B images is divided among `ranks` processes; this one reads its part.
        augment: the random changes, as "flip,crop": all kinds of `train --augment` but mixup and cutmix, which change
            labels too. Their order is fixed.
        crop_size: height and width in pixels of the images that come out: 224, "192x256", (192, 256). "crop" resizes
            its box to it. Other changes cut out a part anywhere; without changes it is the center.
        crop_scale: smallest part of an image's area that "crop" keeps.
        color_jitter: largest change of brightness, contrast and saturation by "color".
        options: further arguments of the DataLoader (`multiprocessing_context`, `collate_fn`, ...).

    Raises:
        WorkerDied: workers are asked for, and every folder for temporary files has too long a name.
        IndexError, ValueError: `rows`, `part` or the augmentation is impossible.
        TypeError: `cache` is not a TensorCache, `augment` is no text, or a sampler was given; use torch's DataLoader
            for that.
    """
    if wrong := {"sampler", "batch_sampler", "num_workers"} & options.keys():
        instead = "its number of processes is called workers"
        if wrong != {"num_workers"}:
            instead = f"with your own: DataLoader(CacheDataset(cache), {min(wrong)}=..., collate_fn=collate)"
        raise TypeError(f"make_loader takes no {' nor '.join(sorted(wrong))}; {instead}")
    if workers and not has_room_for_sockets():
        reason = "its name is too long for a socket"
        raise WorkerDied("no worker can be started", tempfile.gettempdir(), reason, "Set a shorter TMPDIR")
    if pin_memory is None:
        pin_memory = torch.cuda.is_available()
    pinned = stored and pin_memory and workers == 0  # at once; else torch copies the batch there
    part_of_cache = None if rows is None else torch.as_tensor(rows, device="cpu")
    dataset = CacheDataset(cache, stored, pinned, part_of_cache)
    if augment or crop_size is not None:
        if stored:
            raise ValueError("stored gives images as they are stored, and augment changes them: give one of the two")
        if not isinstance(augment, Augmentation):
            augment = _augmentation(cache, augment, seed, crop_size, crop_scale, color_jitter)
        dataset.augment = augment
    all_rows = cache.num_images if part_of_cache is None else part_of_cache
    sampler = EpochSampler(
        BatchPlan(all_rows, batch_size, shuffle, seed, drop_last, part), cache, dataset.augment is not None
    )
    if sampler.plan.ranks > 1:
        options["batch_sampler"] = RankBatchSampler(sampler)
    else:
        options |= {"batch_size": index(batch_size), "sampler": sampler, "drop_last": drop_last}
    options.setdefault("collate_fn", collate)
    options.setdefault("generator", seeded_generator(seed))  # of what workers draw; torch's global one is left alone
    return CacheLoader(dataset, num_workers=workers, pin_memory=pin_memory and not pinned, **options)


def _augmentation(
    cache: TensorCache,
    augment: str,
    seed: int,
    crop_size: str | int | tuple[int, int] | None,
    crop_scale: float,
    color_jitter: float,
) -> Augmentation:
    """Return the augmentation that a person typed."""
    if not isinstance(augment or "", str):
        raise TypeError(f'augment is a text, as "flip,crop", not {augment!r}')
    if cache.features is not None:
        raise ValueError(f"{cache.path} holds features: augment and crop_size change images")
    typed = [kind.strip() for kind in augment.split(",")] if augment else []
    if mixed := {"mixup", "cutmix"} & set(typed):
        raise ValueError(f"{min(mixed)} mixes labels too: modelnet's train does that, a loader gives plain labels")
    if not set(typed) <= set(KINDS) or len(set(typed)) < len(typed):
        raise ValueError(f"augment is some of {', '.join(KINDS)}, each once, with commas, not {augment!r}")
    for name, value in (("crop_scale", crop_scale), ("color_jitter", color_jitter)):
        if not isinstance(value, Real) or not 0 <= value <= 1:
            raise ValueError(f"{name} is a number from 0 to 1, not {value!r}")
    try:
        size = None if crop_size is None else parse_size(crop_size)
    except ValueError as error:
        raise ValueError(f"crop_size: {error}") from error
    if size is not None and (size[0] > cache.recipe.size[0] or size[1] > cache.recipe.size[1]):
        whole = show_size(cache.recipe.size)
        raise ValueError(f"crop_size {show_size(size)} is larger than the images of {cache.path}, {whole}")
    kinds = tuple(kind for kind in KINDS if kind in typed)
    return Augmentation(kinds or None, seed, cache.recipe, crop_scale, color_jitter, size)

"""Yield an epoch's batches on the device, and measure how long training waits for them."""

import math
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modelnet.data.mixup import Mixing, mix_images, mix_labels
from modelnet.data.prefetch import Lane, read_ahead, read_beside
from modelnet.data.preload import Preloaded, check_memory
from modelnet.data.relabel import key_class
from modelnet.data.workers import (
    check_shared_memory,
    death_of_a_worker,
    new_note,
    wait_for_batches,
    worker_options,
)
from modelnet.runtime.device import memory_errors
from modelnet.runtime.interrupt import Stop
from modelnet.runtime.ranks import Ranks
from pipeline import TensorCache, make_loader
from pipeline.errors import OptionsError
from pipeline.load.augment import Augmentation
from pipeline.load.batch_memory import send
from pipeline.load.normalize import normalize
from pipeline.load.sampler import EpochSampler
from pipeline.system.processes import usable_cores
from pipeline.text import show_bytes, show_path


class Batch(NamedTuple):
    """A batch on the device, or this rank's part of it.

    Attributes:
        images: (B, 3, H, W) float32, normalized; (B, D) of features.
        labels: (B,) int64; (B, C) float32, the share of each class, where images are mixed.
        rows: (B,) int64 on the CPU, the images' rows in the cache.
        size: images of the whole batch, over all ranks.
    """

    images: Tensor
    labels: Tensor
    rows: Tensor
    size: int


class Batches:
    """The batches of a cache, epoch by epoch, on the device.

    Args:
        cache: what to read.
        device: where the batches go.
        batch_size, shuffle, seed, workers, drop_last, rows: as `make_loader` has them.
        augment: what is done to the images, or None: on a CPU while they are read, else on the device if it does not
            change images one by one.
        mixing: with which other images they are mixed then, or None.
        ranks: the processes among which every batch is divided; this one reads its part.
        crop_size: (height, width) in pixels of the center that is kept of each image, without `augment`; None for all.

    Attributes:
        plan: the rows of every batch, and this rank's part of them.
        waited: seconds spent waiting for batches since the epoch began.
        stop: a request that ends the wait for a batch of a worker, and with it the epoch; None for none.
    """

    def __init__(
        self,
        cache: TensorCache,
        device: torch.device,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        workers: int = 0,
        drop_last: bool = False,
        rows: Tensor | None = None,
        augment: Augmentation | None = None,
        mixing: Mixing | None = None,
        ranks: Ranks | None = None,
        crop_size: tuple[int, int] | None = None,
    ) -> None:
        self.cache = cache
        self.device = device
        self.is_far = device.type == "cuda"
        self.workers = workers
        if augment is None and crop_size is not None:
            augment = Augmentation(None, 0, cache.recipe, crop_size=crop_size)
        self.augment = augment
        self.mixing = mixing
        self.waited = 0.0
        self.preloaded: Preloaded | None = None
        self.ranks = ranks or Ranks()
        self.stop: Stop | None = None
        self.note = new_note() if workers else None
        options = {} if self.note is None else worker_options(self.note)
        part = self.ranks.rank, self.ranks.size
        self.reads_stored = self.is_far and self._on_the_way is None
        self.loader: DataLoader[Any] = make_loader(
            cache,
            *(batch_size, shuffle, seed, workers, drop_last, self.is_far, rows, self.reads_stored, part),
            augment=self._on_the_way or "",
            **options,
        )
        # torch's type allows None, for a loader without batches; ours has batches
        self.sampler = cast(EpochSampler, self.loader.batch_sampler.sampler)  # type: ignore[union-attr]
        self.plan = self.sampler.plan
        if workers and len(self.plan):
            dtype = cache.stored_dtype if self.reads_stored else torch.float32
            shape = (3, *self._on_the_way.size) if self._on_the_way is not None else cache.row_shape
            row_bytes = math.prod(shape) * dtype.itemsize
            check_shared_memory(workers, row_bytes * -(-self.plan.size(0) // self.plan.ranks))

    @property
    def subset(self) -> Tensor:
        """(M,) int64, the rows that all ranks read, in the order that they have without shuffling."""
        return self.plan.rows

    def __len__(self) -> int:
        """Count the batches of an epoch."""
        return len(self.plan)

    @property
    def stored_bytes(self) -> int:
        """Bytes that its images take as they are stored."""
        return len(self.subset) * math.prod(self.cache.row_shape) * self.cache.stored_dtype.itemsize

    def preload(self) -> None:
        """Copy all images to the device, as they are stored; from then on nothing is read.

        Raises:
            OptionsError: the device is not the CPU, and images are changed there one by one.
        """
        if self.is_far and self._on_the_way is not None:
            reason = f"images are changed one by one, which {self.device} does not do"
            raise OptionsError("--preload has no use here", None, reason, "Leave it out, and give --workers")
        self.preloaded = Preloaded(self.cache, self.subset, self.device)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch `start` on; with several ranks, this rank's parts, perhaps empty.

        Raises:
            WorkerDied: a reading process was killed.
            StorageError: one died because the cache was cut or its disk failed.
            CacheDamaged: a row is not what was written.
        """
        self.waited = 0.0
        asked = time.perf_counter()
        with self._reading(number, start):
            batches = self._begin(number, start)
        for step in range(start, len(self)):
            with self._reading(number, step):
                batch = next(batches, None)
            if batch is None:  # asked to stop
                self._end_workers()
                return
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    @property
    def _on_the_way(self) -> Augmentation | None:
        """What changes images while they are read."""
        return None if self.is_far and not (self.augment and self.augment.changes_pixels) else self.augment

    def _begin(self, number: int, start: int) -> Iterator[Batch]:
        """Return an iterator of an epoch's batches from `start` on."""
        batches = self._batches(number, start)
        free_core = usable_cores() > torch.get_num_threads() and self.workers == 0 and self.plan.ranks == 1
        return read_beside(batches) if free_core and not self.is_far else batches

    def _batches(self, number: int, start: int) -> Iterator[Batch]:
        order = self.plan.order(number)
        for step, (images, labels) in zip(range(start, len(self)), self._read_epoch(number, start), strict=False):
            rows = self.plan.own(self.plan.batch(order, step))
            yield Batch(*self._ready(images, labels, number, rows), rows, self.plan.size(step))

    def seen(self, rows: Tensor, epoch: int) -> Batch:
        """Return any rows, (B,) int64, as an epoch, from 0, sees them, whatever batches they are in there."""
        return Batch(*self._ready(*self._read(rows, epoch), epoch, rows), rows, len(rows))

    def _ready(self, images: Tensor, labels: Tensor, epoch: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Do to images and labels on the device what is left to do."""
        images = self._arrived(images, epoch, rows)
        if self.mixing is None or not len(rows):
            return images, labels
        return self._mix(self.mixing, images, labels, epoch, rows)

    def _read_epoch(self, number: int, start: int) -> Iterator[Sequence[Tensor]]:
        """Return an iterator of an epoch's images and labels, on the device."""
        first = start * self.plan.batch_size
        if self.preloaded is not None and self._on_the_way is not None:
            order, steps = self.plan.order(number), range(start, len(self))
            return (self._read(self.plan.own(self.plan.batch(order, step)), number) for step in steps)
        if self.preloaded is not None:
            return self.preloaded.batches(*self.plan.own_batches(self.plan.positions(number)[first:]))
        self.sampler.set_epoch(number, first)
        batches: Iterator[Sequence[Tensor]]
        if self.workers:  # ranks stop after the same step
            batches = wait_for_batches(self.loader, self.stop if self.plan.ranks == 1 else None)
        else:
            batches = iter(self.loader)
        return read_ahead(batches, Lane(self.device)) if self.is_far else batches

    def _read(self, rows: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Read images, as `_read_epoch` does, and labels of any rows."""
        if self.preloaded is not None:
            return self.preloaded.read(rows, self._on_the_way, epoch)
        images = self.cache.read_stored(rows) if self.reads_stored else self.cache.read(rows, self._on_the_way, epoch)
        return send(images, self.device), send(self.cache.labels[rows], self.device)

    def _arrived(self, images: Tensor, epoch: int, rows: Tensor) -> Tensor:
        """Do to images on the device what was not done while they were read."""
        if self.augment is not None and self._on_the_way is None:
            return self.augment(images, epoch, rows)
        return normalize(images, self.cache.recipe) if images.dtype == torch.uint8 else images

    def _mix(self, mixing: Mixing, images: Tensor, labels: Tensor, epoch: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mix the images of rows with their partners, augmented as in their own batches."""
        mixture = mixing.draw(epoch, rows, self.subset, (images.shape[2], images.shape[3]))
        others, other_labels = self._read(mixture.partners_B, epoch)
        others = self._arrived(others, epoch, mixture.partners_B)
        labels = mix_labels(mixture, labels, other_labels, len(self.cache.class_ids))
        return mix_images(mixture, images, others), labels

    def gather(self, values_M: Tensor) -> Tensor:
        """Gather one value an image from all ranks, in the order of the images, after an epoch without shuffling.

        Args:
            values_M: (M, ...) on the CPU, one for each image that this rank got.

        Returns:
            (N, ...), of all images, on every rank.
        """
        if self.plan.ranks == 1:
            return values_M
        numbers = torch.arange(self.plan.images)
        order = torch.cat([self.plan.own_batches(numbers, rank)[0] for rank in range(self.plan.ranks)])
        gathered = torch.cat(self.ranks.gather(values_M))
        return torch.empty_like(gathered).index_copy_(0, order, gathered)

    def rows(self, epoch: int, step: int) -> Tensor:
        """Return (B,) int64, the rows of a whole batch."""
        return self.plan.batch(self.plan.order(epoch), step)

    def names(self, epoch: int, step: int) -> list[str]:
        """Return `class/file` of each image of a batch."""
        rows = self.rows(epoch, step)
        classes = [key_class(self.cache, row) for row in rows.tolist()]
        return [show_path(f"{c}/{self.cache.filenames[row]}") for c, row in zip(classes, rows.tolist(), strict=True)]

    @contextmanager
    def _reading(self, epoch: int, step: int) -> Iterator[None]:
        """Turn the exceptions that torch raises for a failed worker into errors of this project."""
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            if self.workers == 0:
                raise
            if str(error).startswith("Caught "):  # raised in a worker: read the batch here for the original exception
                self.cache.read(self.rows(epoch, step))
                raise
            signals, note = self._end_workers(), "" if self.note is None else self.note.value.decode(errors="replace")
            raise death_of_a_worker(error, self.cache.path, signals, note) from error

    def _end_workers(self) -> list[signal.Signals]:
        """End all workers; return the signals that killed workers before, which torch does not always name."""
        iterator = getattr(self.loader, "_iterator", None)
        if iterator is None:
            return []
        with suppress(RuntimeError):  # torch's SIGCHLD handler may report the same death again
            iterator._shutdown_workers()
        signals = [signal.Signals(-worker.exitcode) for worker in iterator._workers if (worker.exitcode or 0) < 0]
        for worker in iterator._workers:  # a hanging worker ignores SIGTERM, and the exit would wait for it
            worker.kill()
            worker.join()
        self.loader._iterator = None
        return signals


def preload(parts: Sequence[Batches]) -> str:
    """Copy all images of some batches to their device, and return a note of it.

    Raises:
        DeviceError: they do not fit into its memory.
        OptionsError: as `Batches.preload`.
    """
    device, needed = parts[0].device, sum(part.stored_bytes for part in parts)
    check_memory(needed, device)
    with memory_errors(device):
        for part in parts:
            part.preload()
    images = sum(len(part.subset) for part in parts)
    return f"{images} images, {show_bytes(needed)}, are in the memory of {device}"

"""Batches on the device: how long the network waited for them, and what it means when a reader dies."""

import math
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from modelnet.data.mixup import Mixing, Mixture, mix_images, mix_labels
from modelnet.data.prefetch import Lane, read_ahead, read_beside
from modelnet.data.preload import Preloaded
from modelnet.runtime.interrupt import begin_worker
from modelnet.runtime.ranks import Ranks
from pipeline import TensorCache, make_loader
from pipeline.errors import StorageError, WorkerDied
from pipeline.load.augment import Augmentation, center_crop
from pipeline.load.normalize import normalize
from pipeline.load.sampler import EpochSampler
from pipeline.load.to_device import send
from pipeline.text import show_path


class Batches:
    """The batches of a cache, epoch by epoch, on the device.

    Args:
        cache: what to read.
        device: where the batches go.
        batch_size, shuffle, seed, workers, drop_last, rows: as `make_loader` has them.
        augment: what is done to the images on the device, or None.
        mixing: with which other images they are mixed then, or None.
        ranks: the processes among which every batch is divided; this one reads its part.
        crop_size: side, in pixels, of a part of each image: its middle, where `augment` chooses no other; None for all.

    Attributes:
        subset: (M,) int64, the rows that are read by all ranks, as they come without shuffling.
        whole: (B,) int64, the rows of the whole batch of which a part came last, and `number`, its epoch.
        waited: seconds spent waiting for batches since the epoch began.
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
        crop_size: int | None = None,
    ) -> None:
        options: dict[str, Any] = {}
        if workers:
            options = {"persistent_workers": True, "worker_init_fn": partial(begin_worker, os.getpid())}
            if sys.platform == "linux":  # a process that another has forked would be slow, and outlive this one
                options["multiprocessing_context"] = "fork"
        self.cache = cache
        self.device = device
        self.batch_size = batch_size
        self.is_far = device.type == "cuda"
        self.workers = workers
        self.augment = augment
        self.mixing = mixing
        self.crop_size = crop_size
        self.number = 0
        self.waited = 0.0
        self.preloaded: Preloaded | None = None
        self.ranks = ranks or Ranks()
        part = self.ranks.rank, self.ranks.size
        self.loader: DataLoader[Any] = make_loader(
            cache, batch_size, shuffle, seed, workers, drop_last, self.is_far, rows, self.is_far, part, **options
        )
        # torch has it that there may be none: of a loader that is not batched, which ours is
        self.sampler = cast(EpochSampler, self.loader.batch_sampler.sampler)  # type: ignore[union-attr]
        self.subset = self.sampler.rows
        self.whole = self.subset[:0]

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.loader)

    @property
    def stored_bytes(self) -> int:
        """Bytes that its images take as they are stored."""
        return len(self.subset) * math.prod(self.cache.row_shape) * self.cache.stored_dtype.itemsize

    def preload(self) -> None:
        """Copy all images to the device, as they are stored; from then on nothing is read."""
        self.preloaded = Preloaded(self.cache, self.subset, self.device)

    @property
    def images_an_epoch(self) -> int:
        """Images in them."""
        return min(len(self) * self.batch_size, len(self.subset))

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (images (B, 3, S, S) float32, labels (B,) int64) of an epoch from batch `start` on.

        With several ranks B is this one's part of the batch, which may be none of a last one. Where images are mixed,
        labels are (B, C) float32: the part that each class has.

        Raises:
            WorkerDied: a reading process was killed.
            StorageError: one died because the cache was cut or its disk failed.
            CacheDamaged: a row is not what was written.
        """
        self.waited = 0.0
        asked = time.perf_counter()
        order = self.sampler.order(number)
        with self._reading(number, start):
            batches = self._begin(number, start, order)
        for step in range(start, len(self)):
            with self._reading(number, step):
                images, labels = next(batches)
            if images.dtype == torch.uint8:
                images = normalize(images, self.cache.recipe)
            self.waited += time.perf_counter() - asked
            self.number, self.whole = number, order[step * self.batch_size : (step + 1) * self.batch_size]
            if self.augment is not None and len(images):
                images, labels = self._change(self.augment, images, labels, self.ranks.part(self.whole))
            elif self.crop_size is not None:
                images = center_crop(images, self.crop_size)
            yield images, labels
            asked = time.perf_counter()

    def whole_labels(self) -> Tensor:
        """Return the labels of the whole batch of which a part came last, as `epoch` yields them, on the CPU."""
        labels_N = self.cache.labels
        if self.mixing is None:
            return labels_N[self.whole]
        mixture = self._mixture(self.mixing, self.whole)
        return mix_labels(mixture, labels_N[self.whole], labels_N[mixture.partners_B], len(self.cache.class_ids))

    def _mixture(self, mixing: Mixing, rows: Tensor) -> Mixture:
        return mixing.draw(self.number, rows, self.subset, self.crop_size or self.cache.recipe.size)

    def _change(self, augment: Augmentation, images: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Augment the images of some rows, and mix them with their partners, augmented as in their own place."""
        images = augment(images, self.number, rows)
        if self.mixing is None:
            return images, labels
        mixture = self._mixture(self.mixing, rows)
        others, other_labels = self._read(mixture.partners_B)
        others = augment(others, self.number, mixture.partners_B)
        labels = mix_labels(mixture, labels, other_labels, len(self.cache.class_ids))
        return mix_images(mixture, images, others), labels

    def _read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return images, normalized, and labels of any rows, on the device."""
        if self.preloaded is not None:
            images, labels = self.preloaded.read(rows)
        else:
            read = self.cache.read_stored if self.is_far else self.cache.read
            images, labels = send(read(rows), self.device), send(self.cache.labels[rows], self.device)
        return (normalize(images, self.cache.recipe) if images.dtype == torch.uint8 else images), labels

    def _begin(self, number: int, start: int, order: Tensor) -> Iterator[Sequence[Tensor]]:
        """Return what gives an epoch's images, as they are stored or normalized, and labels, on the device."""
        if self.preloaded is not None:
            return self.preloaded.batches(order[start * self.batch_size :], self.batch_size, self.ranks)
        self.sampler.set_epoch(number, start * self.batch_size)
        batches = iter(self.loader)
        if self.is_far:
            return read_ahead(batches, Lane(self.device))
        free_core = (os.cpu_count() or 1) > torch.get_num_threads() and self.workers == 0 and self.ranks.size == 1
        return read_beside(batches) if free_core else batches

    def together(self, values_M: Tensor) -> Tensor:
        """Put what the ranks have of the images of an epoch without shuffling into the order of the images.

        Args:
            values_M: (M, ...) on the CPU, one for each image that this rank got.

        Returns:
            (N, ...), of all images, on every rank.
        """
        if self.ranks.size == 1:
            return values_M
        batches = torch.arange(len(self.subset)).split(self.batch_size)
        places = torch.cat([self.ranks.part(batch, rank) for rank in range(self.ranks.size) for batch in batches])
        gathered = torch.cat(self.ranks.gather(values_M))
        return torch.empty_like(gathered).index_copy_(0, places, gathered)

    def rows(self, epoch: int, step: int) -> list[int]:
        """Return the rows of a batch."""
        order = self.sampler.order(epoch)
        return cast(list[int], order[step * self.batch_size : (step + 1) * self.batch_size].tolist())

    def names(self, epoch: int, step: int) -> list[str]:
        """Return `class/file` of each image of a batch."""
        rows = self.rows(epoch, step)
        classes = [self.cache.class_ids[label] for label in self.cache.labels[rows].tolist()]
        return [show_path(f"{c}/{self.cache.filenames[row]}") for c, row in zip(classes, rows, strict=True)]

    @contextmanager
    def _reading(self, epoch: int, step: int) -> Iterator[None]:
        """Say what a failure of a worker means; torch has three exceptions for it and loses ours on the way."""
        try:
            yield
        except (RuntimeError, OSError, EOFError) as error:
            if self.workers == 0:
                raise
            if str(error).startswith("Caught "):  # raised in a worker: read the batch here to have the real exception
                self.cache.read(torch.tensor(self.rows(epoch, step)))
                raise
            raise death_of_a_worker(error, self.cache.path, self._end_workers()) from error

    def _end_workers(self) -> list[signal.Signals]:
        """End all workers and return what killed those that were dead; torch's exception does not always name it."""
        iterator = getattr(self.loader, "_iterator", None)
        if iterator is None:
            return []
        with suppress(RuntimeError):  # torch's handler of SIGCHLD may tell of the same death once more
            iterator._shutdown_workers()
        return [signal.Signals(-worker.exitcode) for worker in iterator._workers if (worker.exitcode or 0) < 0]


_DEATH = re.compile(r"DataLoader worker \(pid.*?\) (is killed by signal: ([\w ]+)|exited unexpectedly)")


def death_of_a_worker(
    error: Exception, cache: Path, signals: Sequence[signal.Signals] = ()
) -> WorkerDied | StorageError:
    """Return what the exception by which torch tells that a loader worker has died means to a user.

    Args:
        error: one of several kinds, by chance.
        cache: that was read.
        signals: that killed workers, as far as is known.
    """
    found = _DEATH.search(str(error))
    named = found.group(2) if found else None
    if named == "Bus error" or signal.SIGBUS in signals:
        reason = "the cache was changed or its disk failed while a worker read it (bus error)"
        return StorageError("the cache cannot be read", cache, reason, "Run verify on it; train --resume goes on")
    if signals:
        named = signal.strsignal(signals[0])
    how = f"killed by signal: {named}" if named else str(error) or type(error).__name__
    return WorkerDied("a loader worker died", cache, how, "train --resume goes on; --workers 0 needs no workers")


@contextmanager
def worker_deaths(cache: Path) -> Iterator[None]:
    """Catch the death of a worker that torch reports, by a signal handler, in the midst of anything else."""
    try:
        yield
    except RuntimeError as error:
        if not _DEATH.search(str(error)):
            raise
        raise death_of_a_worker(error, cache) from error

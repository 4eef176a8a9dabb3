"""How fast shuffled batches come out of a cache and out of other systems, and how soon the first one comes."""

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.dataset import StoredPixels, Workplace
from benchmarks.peers import Deliver, Epochs, Peer, Reader, load_peers
from benchmarks.tables import Table, compare
from benchmarks.timing import Measured, images_a_second, interleave, seconds
from pipeline import CacheDataset, TensorCache, make_loader

BATCHES = (8, 64, 256)
FIRST_BATCH = 64
LIMIT, OURS, OURS_UINT8, FIRST, COPIED = (
    "gather limit",
    "ours, float32 cache",
    "ours, uint8 cache",
    "ours, first epoch (checks)",
    "our dataset, torch's collate",
)

Systems = dict[str, Callable[[int], Iterable[Tensor]]]  # name -> batch size -> epochs


def measure(work: Workplace) -> list[Table]:
    """Compare reading: float32 batches, uint8 batches, first batch."""
    peers, skipped = load_peers()
    stores = Stores(work)
    tables = []
    for deliver in ("float32", "uint8"):
        systems = {**ours(work, deliver), **stores.systems(peers, deliver, skipped)}
        columns = {f"batch {size}": _one_size(systems, size, work) for size in BATCHES}
        h5py = tuple(name for name in systems if name.startswith("plain h5py"))
        what = "normalized float32" if deliver == "float32" else "uint8"
        against = {"× limit": (LIMIT,), **({"× h5py": h5py} if h5py else {})}
        tables.append(compare(f"Reading {work.images:,} images as {what} batches, images/s", columns, against))
    tables[0].notes += skipped
    tables.append(first_batches(work, stores, peers))
    return tables


def ours(work: Workplace, deliver: Deliver) -> Systems:
    """The limit of what memory gives, and this project's loader: with checked rows, and checking them."""
    if deliver == "uint8":
        cache = checked(TensorCache(work.uint8))
        return {
            LIMIT: lambda size: Gather(cache, size),
            OURS_UINT8: lambda size: Epochs(loader(cache, size, stored=True)),
        }
    floats, pixels = checked(TensorCache(work.float32)), checked(TensorCache(work.uint8))
    return {
        LIMIT: lambda size: Gather(floats, size),
        OURS: lambda size: Epochs(loader(floats, size)),
        OURS_UINT8: lambda size: Epochs(loader(pixels, size)),
        FIRST: lambda size: Unchecked(work.float32, size),
        COPIED: lambda size: Epochs(DataLoader(CacheDataset(pixels), size, shuffle=True)),
    }


class Gather:
    """Epochs of the fastest gather there is: into one buffer, which every batch overwrites."""

    def __init__(self, cache: TensorCache, batch_size: int) -> None:
        self.images = cache.images
        self.batch_size = batch_size
        self.buffer = torch.empty((batch_size, *cache.images.shape[1:]), dtype=cache.images.dtype)

    def __iter__(self) -> Iterator[Tensor]:
        for rows in torch.randperm(len(self.images)).split(self.batch_size):
            yield torch.index_select(self.images, 0, rows, out=self.buffer[: len(rows)])


class Unchecked:
    """Epochs of our loader on a cache that is opened anew each time, so that every row is checked."""

    def __init__(self, path: Path, batch_size: int) -> None:
        self.path = path
        self.batch_size = batch_size

    def __iter__(self) -> Iterator[Tensor]:
        yield from Epochs(loader(TensorCache(self.path), self.batch_size))


def loader(cache: TensorCache, batch_size: int, stored: bool = False) -> "DataLoader[tuple[Tensor, int]]":
    """As `train` on the CPU makes it; with `stored` as for a GPU, which normalizes, but without its memory."""
    return make_loader(cache, batch_size, pin_memory=False, stored=stored)


def checked(cache: TensorCache) -> TensorCache:
    """Read every row once: from here on it is the second epoch."""
    for rows in torch.arange(cache.num_images).split(64):
        cache.read_stored(rows)
    return cache


class Stores:
    """The peers' own files, each written once from the pixels of the uint8 cache."""

    def __init__(self, work: Workplace) -> None:
        self.work = work
        self.built: dict[str, Path] = {}

    def path(self, peer: Peer, reader: Reader) -> Path:
        """Return what a reader reads, built if it is not yet."""
        match reader.store:
            case "float32":
                return self.work.float32
            case "uint8":
                return self.work.uint8
            case "photos":
                return self.work.photos
        if peer.name not in self.built:
            path = self.work.folder / f"read-{peer.name.lower().replace(' ', '-')}"
            self.work.say(f"writing the images for {peer.name}")
            if peer.build is not None:
                peer.build(StoredPixels(self.work.uint8), path, 2)
            self.built[peer.name] = path
        return self.built[peer.name]

    def systems(self, peers: list[Peer], deliver: Deliver, skipped: list[str]) -> Systems:
        """Return every reader of `deliver` that works here; what does not goes from `peers` to `skipped`."""
        found: Systems = {}
        for peer in list(peers):
            try:
                for reader in peer.readers:
                    if deliver in reader.delivers:
                        path = self.path(peer, reader)
                        check(next(iter(reader.open(path, 8, deliver))), deliver)
                        found[reader.name] = _opener(reader, path, deliver)
            except Exception as error:  # an installation of another system may fail in any way
                peers.remove(peer)
                skipped.append(f"{peer.name} is skipped: {type(error).__name__}: {error}")
        return found


def check(batch: Tensor, deliver: Deliver) -> None:
    """Refuse a batch that is not what is compared."""
    dtype = torch.uint8 if deliver == "uint8" else torch.float32
    if batch.dtype != dtype or batch.shape[:2] != (8, 3):
        raise ValueError(f"delivers {tuple(batch.shape)} {batch.dtype}")


def _opener(reader: Reader, path: Path, deliver: Deliver) -> Callable[[int], Iterable[Tensor]]:
    return lambda size: reader.open(path, size, deliver)


def _one_size(systems: Systems, size: int, work: Workplace) -> dict[str, Measured]:
    work.say(f"reading with batch size {size}")
    opened = {name: open_epochs(size) for name, open_epochs in systems.items()}
    return interleave({name: _epoch(epochs) for name, epochs in opened.items()}, work.rounds)


def _epoch(epochs: Iterable[Tensor]) -> Callable[[], float]:
    return lambda: images_a_second(epochs)


def first_batches(work: Workplace, stores: Stores, peers: list[Peer]) -> Table:
    """Measure how long the first float32 batch takes, from the path of the data."""
    opened = TensorCache(work.float32)
    openers: Systems = {
        "ours, the cache is open": lambda size: Epochs(loader(opened, size)),
        OURS: lambda size: Epochs(loader(TensorCache(work.float32), size)),
        OURS_UINT8: lambda size: Epochs(loader(TensorCache(work.uint8), size)),
    }
    for peer in peers:
        for reader in peer.readers:
            if "float32" in reader.delivers:
                openers[reader.name] = _opener(reader, stores.path(peer, reader), "float32")
    work.say("first batches")
    measured = interleave({name: _first(open_epochs) for name, open_epochs in openers.items()}, work.rounds)
    table = Table(f"First batch of {FIRST_BATCH} images, from the path, ms", ("ms", "spread"))
    for name, figure in measured.items():
        table.add(name, figure.median, figure.spread)
    return table


def _first(open_epochs: Callable[[int], Iterable[Tensor]]) -> Callable[[], float]:
    def first() -> float:
        batches: Iterator[Tensor] | None = None

        def work() -> None:
            nonlocal batches
            batches = iter(open_epochs(FIRST_BATCH))
            next(batches)

        spent = seconds(work)
        if isinstance(batches, Generator):
            batches.close()
        return 1000 * spent

    return first

"""How fast photographs become a cache: ours, other builders, the same work without bookkeeping, decoding alone."""

import multiprocessing
import os
import shutil
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks.dataset import Photographs, Workplace, replicate
from benchmarks.peers import Peer, load_peers
from benchmarks.tables import Table, compare
from benchmarks.timing import interleave, seconds
from pipeline import build_cache
from pipeline.build.worker import Item, Job, fill_rows
from pipeline.decode.decode import decode
from pipeline.format.header import IMAGES_OFFSET
from pipeline.recipe import Fit, Recipe, StoredType
from pipeline.source.reader import read_image
from pipeline.source.scan import scan_source
from pipeline.system import files
from pipeline.system.processes import usable_cores

IMAGES, MORE_IMAGES = 1024, 4096
IN_A_ROW_GROUP = 100
WORKERS = usable_cores()
DTYPES: tuple[StoredType, ...] = ("float32", "uint8")


def measure(work: Workplace) -> list[Table]:
    """Compare builders, all with a worker a core."""
    photos = replicate(work.source, work.folder / "photos-to-build", work.scaled(IMAGES, 64))
    peers, skipped = load_peers()
    building = Building(photos, work.folder / "built")
    measures: dict[str, Callable[[], float]] = {}
    for dtype in DTYPES:
        measures[f"ours, {dtype}"] = building.of(building.ours(dtype))
        measures[_bare(dtype)] = building.of(building.bare(dtype))
    archive = pack(photos, work.folder / "photos-to-build.tar")
    measures["ours, uint8, from a tar"] = building.of(building.ours("uint8", archive))
    try:
        measures["ours, uint8, from Parquet"] = building.of(building.ours("uint8", pack_parquet(photos)))
    except ImportError as error:
        skipped.append(f"Parquet is skipped: {error}")
    measures["decode + resize alone"] = building.of(building.decode)
    measures["decode + resize alone, Pillow"] = building.of(building.decode_plainly)
    peers = [peer for peer in peers if peer.build is not None and works(building, peer, skipped)]
    measures |= {peer.name: building.of(building.peer(peer)) for peer in peers}
    work.say("building with every builder in turn")
    measured = interleave(measures, work.rounds, between=os.sync)
    others = tuple(peer.name for peer in peers)
    against = {
        "× fastest peer": others,
        "× bare float32": (_bare("float32"),),
        "× bare uint8": (_bare("uint8"),),
        "× decode + resize": ("decode + resize alone",),
    }
    table = compare(
        f"Building from {len(building.paths):,} photographs with {WORKERS} workers, images/s",
        {"built": measured},
        {name: systems for name, systems in against.items() if systems},
    )
    table.notes += [
        "Ours and bare processes wait until the bytes are on the disk; the peers do not.",
        *skipped,
    ]
    return [table, more(work), fits(photos, work, peers)]


def works(building: "Building", peer: Peer, skipped: list[str]) -> bool:
    """Try a peer, and add the reason to `skipped` where it fails."""
    try:
        building.of(building.peer(peer))()
    except Exception as error:  # an installation of another system may fail in any way
        skipped.append(f"{peer.name} is skipped: {type(error).__name__}: {error}")
        return False
    return True


def more(work: Workplace) -> Table:
    """Compare ours with its bounds on more photographs, where the start of a build counts for less."""
    photos = replicate(work.source, work.folder / "more-photos", work.scaled(MORE_IMAGES, 64))
    building = Building(photos, work.folder / "built")
    alone = "decode + resize alone"
    measures: dict[str, Callable[[], float]] = {
        "ours, uint8": building.of(building.ours("uint8")),
        _bare("uint8"): building.of(building.bare("uint8")),
        alone: building.of(building.decode),
    }
    work.say("building from more photographs")
    measured = interleave(measures, work.rounds, between=os.sync)
    title = f"Building from {len(building.paths):,} photographs with {WORKERS} workers, images/s"
    return compare(title, {"built": measured}, {"× decode + resize": (alone,)})


def fits(photos: Path, work: Workplace, peers: Sequence[Peer]) -> Table:
    """Compare builders on each way to make a square of a photograph; all store 8-bit pixels."""
    measures: dict[str, dict[str, Callable[[], float]]] = {}
    for fit in get_args(Fit):
        building = Building(photos, work.folder / "built", fit)
        measures[fit] = {"ours": building.of(building.ours("uint8"))}
        measures[fit] |= {peer.name: building.of(building.peer(peer)) for peer in peers}
    work.say("building with each fit in turn")
    flat = {f"{fit} {name}": one for name in measures["squash"] for fit, by in measures.items() for one in [by[name]]}
    measured = interleave(flat, work.rounds, between=os.sync)
    columns = {fit: {name: measured[f"{fit} {name}"] for name in by} for fit, by in measures.items()}
    against = {"× fastest peer": tuple(peer.name for peer in peers)} if peers else {}
    table = compare(f"Building by fit, uint8, with {WORKERS} workers, images/s", columns, against)
    squash = measured["squash ours"]
    ratios = (f"{fit} {measured[f'{fit} ours'].over(squash):.2f}" for fit in columns if fit != "squash")
    table.notes.append(f"Ours against ours, squashed: {', '.join(ratios)}.")
    return table


def _bare(dtype: StoredType) -> str:
    return f"bare processes, {dtype}"


def pack(photos: Path, path: Path) -> Path:
    """Write a tar of class tars, as ImageNet is distributed."""
    with tarfile.open(path, "w") as outer:
        for folder in sorted(photos.iterdir()):
            inner = path.with_name(f"{folder.name}.tar")
            with tarfile.open(inner, "w", dereference=True) as archive:
                archive.add(folder, ".")
            outer.add(inner, inner.name)
            inner.unlink()
    return path


def pack_parquet(photos: Path) -> Path:
    """Write a Parquet file with the images and their classes, as Hugging Face does: 100 in a row group."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    path = photos.with_name(f"{photos.name}.parquet")
    files = sorted(file for folder in photos.iterdir() for file in folder.iterdir())
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with ParquetWriter(path, pa.schema([("image", image), ("label", pa.string())])) as writer:
        for first in range(0, len(files), IN_A_ROW_GROUP):
            part = files[first : first + IN_A_ROW_GROUP]
            rows = [
                {"image": {"bytes": file.read_bytes(), "path": file.name}, "label": file.parent.name} for file in part
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
    return path


class Building:
    """Ways to build from one folder, each into a place that is deleted afterwards."""

    def __init__(self, photos: Path, place: Path, fit: Fit = "squash") -> None:
        manifest = scan_source(photos)
        self.photos = photos
        self.place = place
        self.fit = fit
        self.images = Photographs(photos, fit=fit)
        self.paths = [manifest.path(candidate) for candidate in range(len(manifest.names))]

    def of(self, build: Callable[[Path], object]) -> Callable[[], float]:
        """Return a measure of a way to build, in images/s."""

        def measured() -> float:
            self.place.mkdir()
            try:
                return len(self.paths) / seconds(lambda: build(self.place / "built"))
            finally:
                shutil.rmtree(self.place)

        return measured

    def ours(self, dtype: StoredType, source: Path | None = None) -> Callable[[Path], object]:
        """The project's own."""
        return lambda path: build_cache(source or self.photos, path, dtype=dtype, fit=self.fit)

    def peer(self, peer: Peer) -> Callable[[Path], object]:
        """Another's."""
        return lambda path: peer.build(self.images, path, WORKERS) if peer.build else None

    def bare(self, dtype: StoredType) -> Callable[[Path], object]:
        """The same work a row, by processes that know their share from the start: no queue, no journal, no tables."""
        recipe = Recipe(dtype=dtype)

        def build(path: Path) -> None:
            fd = files.create(path)
            files.reserve(fd, IMAGES_OFFSET + len(self.paths) * recipe.row_bytes)
            items = [Item(row, name) for row, name in enumerate(self.paths)]
            in_processes(lambda some: fill_rows(Job(path, recipe), some), items)
            files.sync(fd)
            os.close(fd)

        return build

    def decode(self, _: Path) -> None:
        """Decode as the project does, and keep nothing."""
        in_processes(lambda some: [decode(read_image(path)[0], Recipe()) for path in some], self.paths)

    def decode_plainly(self, _: Path) -> None:
        """Decode with Pillow alone, as the peers are given it."""
        in_processes(lambda some: [self.images[index] for index in some], list(range(len(self.images))))


def in_processes(work: Callable[[list[Any]], object], items: list[Any]) -> None:
    """Share items among `WORKERS` forked processes and wait for all."""
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=work, args=(items[first::WORKERS],)) for first in range(WORKERS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a process ended with {process.exitcode}")

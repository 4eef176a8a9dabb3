"""What several files cost: reading and opening a set of shards against one file; building it here, or on a cluster."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.dataset import Workplace, replicate
from benchmarks.peers import Epochs
from benchmarks.reading import BATCHES, checked, loader
from benchmarks.tables import Table, compare
from benchmarks.timing import images_a_second, interleave, seconds
from pipeline import TensorCache, build_cache, build_shards
from pipeline.recipe import StoredType
from pipeline.shards.dask import dask_executor
from pipeline.system.processes import usable_cores

READ, BUILT = 2048, 1000  # images
COUNTS = (16, 256)
BUILT_SHARDS = 8
WORKERS = usable_cores()
ONE = "ours, one file"
DTYPES: tuple[StoredType, ...] = ("float32", "uint8")


def measure(work: Workplace) -> list[Table]:
    """Compare shards with one file, and a cluster with this machine's own processes."""
    photos = replicate(work.source, work.folder / "photos-to-read", work.scaled(READ, 64))
    tables = []
    for dtype in DTYPES:
        work.say(f"building {dtype} caches of 1 file and of {' and '.join(map(str, COUNTS))}")
        paths = write(photos, work.folder / f"sharded-{dtype}", dtype)
        tables.append(reading(paths, dtype, work.rounds))
        if dtype == DTYPES[0]:
            tables.append(opening(paths, work.rounds))
        shutil.rmtree(work.folder / f"sharded-{dtype}")
    return [*tables, building(work)]


def write(photos: Path, folder: Path, dtype: StoredType) -> dict[str, Path]:
    """Build the same images into one file and into sets."""
    paths = {ONE: folder / "one.h5"} | {f"ours, {count} shards": folder / f"{count}.h5" for count in COUNTS}
    build_cache(photos, paths[ONE], dtype=dtype)
    for count, path in zip(COUNTS, list(paths.values())[1:], strict=True):
        build_shards(photos, path, count, dtype=dtype)
    return paths


def reading(paths: dict[str, Path], dtype: StoredType, rounds: int) -> Table:
    """Measure shuffled epochs of checked rows, normalized float32."""
    caches = {name: checked(TensorCache(path)) for name, path in paths.items()}
    count = caches[ONE].num_images
    columns = {}
    for size in BATCHES:
        epochs = {name: Epochs(loader(cache, size)) for name, cache in caches.items()}
        columns[f"batch {size}"] = interleave({n: partial(images_a_second, e) for n, e in epochs.items()}, rounds)
    title = f"Reading {count:,} images of a {dtype} cache as normalized float32 batches, images/s"
    return compare(title, columns, {"× one file": (ONE,)})


def opening(paths: dict[str, Path], rounds: int) -> Table:
    """Measure opening, in ms."""

    def milliseconds(path: Path) -> float:
        return 1000 * seconds(lambda: TensorCache(path))

    table = Table("Opening, ms", ("ms", "spread"))
    for name, figure in interleave({name: partial(milliseconds, path) for name, path in paths.items()}, rounds).items():
        table.add(name, figure.median, figure.spread)
    return table


def building(work: Workplace) -> Table:
    """Measure building float32 caches, with as many processes everywhere."""
    photos = replicate(work.source, work.folder / "photos-to-shard", work.scaled(BUILT, 64))
    images = sum(1 for _ in photos.glob("*/*"))
    local, cluster = f"ours, {BUILT_SHARDS} shards", f"ours, {BUILT_SHARDS} shards, {WORKERS} Dask workers"
    measures: dict[str, Callable[[Path], object]] = {
        ONE: lambda path: build_cache(photos, path),
        local: lambda path: build_shards(photos, path, BUILT_SHARDS),
    }
    notes = ["The cluster is on this machine; connecting to it counts, starting it does not."]
    with scheduler(work.folder) as address:
        if address is None:
            notes = ["Dask is skipped: distributed is not installed"]
        else:
            measures[cluster] = partial(_on_cluster, address, photos)
        work.say("building here and on the cluster in turn")
        place = work.folder / "sharded"
        timed = {name: partial(_rate, build, place, images) for name, build in measures.items()}
        measured = interleave(timed, work.rounds, between=os.sync)
    table = compare(f"Building from {images:,} photographs, images/s", {"built": measured}, {"× one file": (ONE,)})
    table.notes += notes
    return table


def _on_cluster(address: str, photos: Path, path: Path) -> None:
    with dask_executor(address) as executor:
        build_shards(photos, path, BUILT_SHARDS, executor=executor)


def _rate(build: Callable[[Path], object], place: Path, images: int) -> float:
    place.mkdir()
    try:
        return images / seconds(lambda: build(place / "built.h5"))
    finally:
        shutil.rmtree(place)


@contextmanager
def scheduler(folder: Path) -> Iterator[str | None]:
    """Yield the address of a Dask scheduler with a worker a core, on this machine; None where there is no Dask."""
    if find_spec("distributed") is None:
        yield None
        return
    file = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": os.fspath(Path(__file__).resolve().parent.parent)}

    def start(*arguments: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "dask", *arguments, "--no-dashboard", "--scheduler-file", str(file)]
        return subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)

    worker = ("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")
    processes = [start("scheduler", "--host", "127.0.0.1", "--port", "0"), *(start(*worker) for _ in range(WORKERS))]
    try:
        while not file.exists():
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"]
    finally:
        for process in processes:
            process.kill()
            process.wait()

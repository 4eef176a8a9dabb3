"""A cache of ImageNet's number of rows: opening, reading, looking at it, checking its freshness; and cold pages."""

import gc
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.dataset import Workplace, draw_cache, invented_manifest
from benchmarks.memory import CLI
from benchmarks.peers import Epochs
from benchmarks.reading import checked, loader
from benchmarks.tables import Table, compare
from benchmarks.timing import images_a_second, interleave, number, seconds
from pipeline import TensorCache
from pipeline.format.header import IMAGES_OFFSET
from pipeline.inspect.info import check_source
from pipeline.recipe import Recipe, StoredType
from pipeline.source.scan import scan_source

ROWS, FEW = 1_281_167, 10_000
CLASSES = 1000
SIDE = 32
DTYPE: StoredType = "uint8"  # 3.9 GB; float32 would be 15.7
BATCH = 256
LONG = 500_000  # files; looking at more is done once
COLD_SECONDS = 3.0
DISK_THREADS = (1, 4, 16)


def measure(work: Workplace) -> list[Table]:
    """Compare many rows with few."""
    rows, few = work.scaled(ROWS, 20_000), work.scaled(FEW, 2_000)
    work.say(f"drawing a cache of {rows:,} rows")
    many_path = draw(work, rows)
    few_path = draw(work, few)
    work.say("opening and reading it")
    tables = [opening(many_path, work.rounds), shuffled(few_path, many_path, work.rounds)]
    many_path.unlink()
    work.say("checking the freshness of many files")
    tables.append(freshness(work, [max(100, rows // 100), rows // 10, rows]))
    work.say("reading cold pages")
    tables.append(cold(work))
    return tables


def draw(work: Workplace, rows: int) -> Path:
    """Draw a cache of so many small rows."""
    recipe = Recipe(size=SIDE, dtype=DTYPE)
    return draw_cache(work.folder / f"scale-{rows}.h5", invented_manifest(rows, CLASSES), recipe)


def opening(path: Path, rounds: int) -> Table:
    """Measure what happens once, in seconds."""
    count = TensorCache(path).num_images
    measures: dict[str, tuple[Callable[[], float], float]] = {
        "open": (lambda: seconds(lambda: TensorCache(path)), 0.25),
        "first batch of 8, from the path": (
            lambda: seconds(lambda: next(iter(Epochs(loader(TensorCache(path), 8))))),
            0.25,
        ),
        "`info`": (partial(_command, "info", str(path)), 1.0),
    }
    measured = interleave({name: run for name, (run, _) in measures.items()}, rounds)
    table = Table(f"{count:,} rows of {SIDE} × {SIDE} {DTYPE}, s", ("s", "spread", "target"))
    for name, figure in measured.items():
        table.add(name, figure.median, figure.spread, f"{measures[name][1]:g}")
    return table


def _command(*arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, str(CLI), *arguments], check=True, capture_output=True))


def shuffled(few_path: Path, many_path: Path, rounds: int) -> Table:
    """Compare what an image of a shuffled epoch costs."""
    few, many = (checked(TensorCache(path)) for path in (few_path, many_path))
    measures = {
        "ours, many rows": partial(_microseconds, many),
        "ours, few rows": partial(_microseconds, few),
    }
    measured = interleave(measures, rounds)
    figures = {
        f"ours, {few.num_images:,} rows": measured["ours, few rows"],
        f"ours, {many.num_images:,} rows": measured["ours, many rows"],
    }
    base = tuple(figures)[:1]
    return compare(f"An image of a shuffled epoch, batch {BATCH}, µs", {"µs": figures}, {"× few": base})


def _microseconds(cache: TensorCache) -> float:
    return 1e6 / images_a_second(Epochs(loader(cache, BATCH)), 60.0)


def freshness(work: Workplace, sizes: list[int]) -> Table:
    """Measure what it takes to see that so many files have not changed: a look at each, by its stat data."""
    columns = ("s", "spread", "µs a file", "of these listing, µs a file")
    table = Table("Checking that nothing has changed, s", columns)
    for count in sizes:
        rounds = 1 if count > LONG else work.rounds
        folder = work.folder / f"files-{count}"
        content = make_files(folder, count)
        path = work.folder / f"files-{count}.h5"
        recipe = Recipe(size=1, dtype="uint8")
        draw_cache(path, scan_source(folder), recipe, hashlib.sha256(content).digest())
        if why := check_source(path, folder):
            raise RuntimeError(f"the drawn cache should be fresh: {why}")
        works: dict[str, Callable[[], object]] = {
            "check": partial(check_source, path, folder),
            "list": partial(scan_source, folder),
        }
        times = interleave({name: partial(seconds, work) for name, work in works.items()}, rounds, 0)
        check, listing = times["check"], times["list"]
        table.add(
            f"{count:,} files", check.median, check.spread, 1e6 * check.median / count, 1e6 * listing.median / count
        )
        path.unlink()
        shutil.rmtree(folder)
    return table


def make_files(folder: Path, count: int, content: bytes = b"not looked at") -> bytes:
    """Make so many files in `CLASSES` folders, links to few; return what all of them contain."""
    first = b""
    for place_number in range(count):
        place = os.fsencode(folder / f"{place_number % CLASSES}")
        if place_number < CLASSES:
            (folder / str(place_number)).mkdir(parents=True)
        path = place + b"/%07d.jpg" % place_number
        if place_number % 50_000 == 0:  # ext4 has at most 65,000 links to a file
            Path(os.fsdecode(path)).write_bytes(content)
            first = path
        else:
            os.link(first, path)
    return content


def cold(work: Workplace) -> Table:
    """Read rows whose pages are not in memory, as all are in an epoch over more than memory holds.

    Each measure drops the pages first; none reads a row twice, so nothing can be served from memory.
    """
    path = work.float32
    gc.collect()  # whoever has it mapped keeps its pages in memory
    if str(path) in Path("/proc/self/maps").read_text():
        raise RuntimeError(f"{path.name} is mapped by this process")
    row_bytes = Recipe().row_bytes
    measures: dict[str, Callable[[], float]] = {
        f"disk, random reads, {threads} threads": partial(random_reads, path, row_bytes, threads)
        for threads in DISK_THREADS
    }
    measures |= {
        f"ours, batch {size}": partial(_cold_epoch, path, size) for size in (8, 64, 256) if size <= work.images
    }
    measured = interleave(measures, work.rounds)
    disk = tuple(name for name in measured if name.startswith("disk"))
    table = compare(
        f"Reading cold rows of {number(row_bytes / 1e6)} MB in random order, images/s",
        {"cold": measured},
        {"× disk": disk},
    )
    table.notes.append(f"An epoch, or its first {COLD_SECONDS:g} s. Our reader checks every row that it reads.")
    return table


def drop(path: Path) -> None:
    """Take a file's pages out of memory; nobody may have it mapped."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


def random_reads(path: Path, row_bytes: int, threads: int) -> float:
    """Read rows in random order with `pread`, so many at a time, and return rows/s."""
    drop(path)
    fd = os.open(path, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    count = (os.fstat(fd).st_size - IMAGES_OFFSET) // row_bytes
    order = np.random.default_rng().permutation(count).tolist()
    start = time.perf_counter()

    def read(row: int) -> int:
        if time.perf_counter() - start > COLD_SECONDS:
            return 0
        return len(os.pread(fd, row_bytes, IMAGES_OFFSET + row * row_bytes)) // row_bytes

    with ThreadPoolExecutor(threads) as pool:
        done = sum(pool.map(read, order))
        spent = time.perf_counter() - start
    os.close(fd)
    return done / spent


def _cold_epoch(path: Path, batch_size: int) -> float:
    """Read in a process of its own: a map of this one would hold the pages."""
    drop(path)
    command = [sys.executable, "-m", "benchmarks.scale", str(path), str(batch_size)]
    environment = os.environ | {"PYTHONPATH": str(CLI.parent)}
    ended = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(ended.stdout)


if __name__ == "__main__":
    from pipeline.load.batch_memory import keep_freed_memory

    keep_freed_memory()
    print(images_a_second(Epochs(loader(TensorCache(sys.argv[1]), int(sys.argv[2]))), COLD_SECONDS))

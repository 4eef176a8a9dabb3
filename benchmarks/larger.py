"""A cache larger than the memory that its reader may have, page cache included.

The limit is a control group's (Linux, a user who may make one); the disk's own pace is measured under the same.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.dataset import Workplace, draw_cache, invented_manifest
from benchmarks.memory import CLI
from benchmarks.peers import Epochs
from benchmarks.scale import drop
from benchmarks.tables import Table, compare
from benchmarks.timing import images_a_second, interleave, number
from pipeline import Recipe, TensorCache, make_loader
from pipeline.format.header import IMAGES_OFFSET
from pipeline.format.reader import CacheReader

GROUPS = Path("/sys/fs/cgroup")
ROWS = 27_000  # 4 GB of uint8
LEAST = 0.6e9  # bytes of memory that a reader needs, whatever it reads
THREADS = 4
BATCHES = (8, 64)
WORKERS = 2
EPOCHS = 3
SECONDS = 10.0  # or as much of the epochs as is read until then


def measure(work: Workplace) -> list[Table]:
    """Compare with the disk, where a group can be made."""
    rows = work.scaled(ROWS, 10_000)
    work.say(f"larger: drawing {rows:,} rows")
    path = draw_cache(work.folder / "larger.h5", invented_manifest(rows), Recipe(dtype="uint8"))
    size = path.stat().st_size
    try:
        with limited(max(int(LEAST), size // 4)) as group:
            return [beside_the_disk(path, group, work.rounds)]
    except OSError as error:
        why = f"Not measured: no control group with a limit of memory can be made here ({error})."
        return [Table("Larger than memory", (), notes=[why])]
    finally:
        path.unlink()


def beside_the_disk(path: Path, group: Path, rounds: int) -> Table:
    """Measure readers, each in a process of its own in the group."""
    readers = [f"disk, random reads, {THREADS} threads", *(f"ours, batch {size}" for size in BATCHES)]
    readers += [f"ours, {WORKERS} loader workers, batch {size}" for size in BATCHES]
    measured = interleave({name: partial(run_reader, path, name, group) for name in readers}, rounds, warm_up=0)
    cache, limit = path.stat().st_size / 1e9, int(limit_of(group).read_text()) / 1e9
    title = f"Reading {cache:.1f} GB at random with {limit:.1f} GB of memory, page cache included, images/s"
    table = compare(title, {"larger than memory": measured}, {"× disk": readers[:1]})
    row_bytes = Recipe(dtype="uint8").row_bytes
    table.notes.append(
        f"Rows of {number(row_bytes / 1e6)} MB, {EPOCHS} epochs or their first {SECONDS:g} s, cold at first."
    )
    return table


def limit_of(group: Path) -> Path:
    """Return the file that holds a group's limit: the two versions of control groups call it differently."""
    return group / ("memory.limit_in_bytes" if group.parent.name == "memory" else "memory.max")


@contextmanager
def limited(size: int) -> Iterator[Path]:
    """Make a control group whose processes have so many bytes of memory together, their page cache included.

    Raises:
        OSError: no such group can be made here.
    """
    older = GROUPS / "memory"
    group = (older if older.is_dir() else GROUPS) / f"benchmark-{os.getpid()}"
    group.mkdir()
    try:
        limit_of(group).write_text(str(size))
        yield group
    finally:
        with suppress(OSError):
            group.rmdir()


def run_reader(path: Path, name: str, group: Path) -> float:
    """Read in a process of its own, in the group from its first moment; nothing of the cache is in memory then."""
    drop(path)
    enter = 'echo $$ > "$0" && exec "$@"'
    command = [sys.executable, "-m", "benchmarks.larger", str(path), name]
    ended = subprocess.run(
        ["sh", "-c", enter, str(group / "cgroup.procs"), *command],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(CLI.parent)},
    )
    return float(ended.stdout)


def random_reads(path: Path) -> float:
    """Read rows with `pread`, `THREADS` at a time, and return rows/s."""
    reader = CacheReader(path)
    size, count = reader.header.extents["images"].row_bytes, reader.num_images
    os.posix_fadvise(reader.fd, 0, 0, os.POSIX_FADV_RANDOM)
    start = time.perf_counter()

    def read(row: int) -> int:
        if time.perf_counter() - start > SECONDS:
            return 0
        return len(os.pread(reader.fd, size, IMAGES_OFFSET + row * size)) // size

    random = np.random.default_rng()
    with ThreadPoolExecutor(THREADS) as pool:
        done = sum(sum(pool.map(read, random.permutation(count).tolist())) for _ in range(EPOCHS))
    return done / (time.perf_counter() - start)


def epochs(path: Path, batch_size: int, workers: int = 0) -> float:
    """Read batches as `train` does, with or without workers, and return images/s."""
    from pipeline.load.batch_memory import keep_freed_memory

    keep_freed_memory()
    one = Epochs(make_loader(TensorCache(path), batch_size, workers=workers, pin_memory=False))
    return images_a_second((batch for _ in range(EPOCHS) for batch in one), SECONDS)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="One of the readers; prints images/s.")
    parser.add_argument("cache", type=Path)
    parser.add_argument("reader")
    read_what = parser.parse_args()
    last, workers = read_what.reader.rpartition(" ")[2], WORKERS if "workers" in read_what.reader else 0
    print(random_reads(read_what.cache) if last == "threads" else epochs(read_what.cache, int(last), workers))

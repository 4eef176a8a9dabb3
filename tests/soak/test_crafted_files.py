"""Files made by somebody who knows the format: refused or harmless, in little memory, and nothing else is ever opened.

Each has a header of ours with checksums that fit. Where only the HDF5 library's objects are crafted, the reader does
not look at them and reads the tables that the header names; `verify` says that the two views differ.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.build.build import build_cache
from pipeline.errors import CacheUnsafe, OutputError
from pipeline.format.checks import read_header
from pipeline.format.header import IMAGES_OFFSET, USER_BLOCK
from pipeline.format.reader import CacheReader
from tests.soak.seal import seal
from tests.soak.trees import plant
from tests.support.builds import InThisProcess

REPOSITORY = Path(__file__).resolve().parent.parent.parent
MEMORY = 400 * 10**6  # bytes, of the reader and of what `verify` starts
SECONDS = 100

Values = dict[str, Any]


# What the HDF5 library would follow, in place of the table of labels.


def external_link(file: Any, foreign: Path) -> None:
    file["labels"] = h5py.ExternalLink(str(foreign / "foreign.h5"), "/labels")


def external_storage(file: Any, foreign: Path) -> None:
    file.create_dataset("labels", (6,), "<i8", external=[(str(foreign / "foreign.bin"), 0, h5py.h5f.UNLIMITED)])


def virtual_dataset(file: Any, foreign: Path) -> None:
    layout = h5py.VirtualLayout((6,), "<i8")
    layout[:] = h5py.VirtualSource(str(foreign / "foreign.h5"), "labels", (6,))
    file.create_virtual_dataset("labels", layout)


def virtual_dataset_that_grows(file: Any, foreign: Path) -> None:
    layout = h5py.VirtualLayout((6,), "<i8", maxshape=(None,))
    source = h5py.VirtualSource(str(foreign / "foreign.h5"), "labels", (6,), maxshape=(None,))
    layout[: h5py.h5s.UNLIMITED] = source[: h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("labels", layout)


def virtual_dataset_of_many_files(file: Any, foreign: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    space = h5py.h5s.create_simple((6,), (h5py.h5s.UNLIMITED,))
    space.select_hyperslab((0,), (h5py.h5s.UNLIMITED,), block=(1,), stride=(1,))
    source = h5py.h5s.create_simple((1,))
    plist.set_virtual(space, str(foreign / "foreign%b.h5").encode(), b"labels", source)
    whole = h5py.h5s.create_simple((6,), (h5py.h5s.UNLIMITED,))
    h5py.h5d.create(file.id, b"labels", h5py.h5t.STD_I64LE, whole, plist)


def soft_link(file: Any, foreign: Path) -> None:
    file["labels"] = h5py.SoftLink("/images")


def soft_link_to_itself(file: Any, foreign: Path) -> None:
    file["labels"] = h5py.SoftLink("/labels")


def link_in_the_middle_of_a_path(file: Any, foreign: Path) -> None:
    file["elsewhere"] = h5py.ExternalLink(str(foreign / "foreign.h5"), "/")
    file["labels"] = h5py.SoftLink("/elsewhere/labels")


def group_that_holds_itself(file: Any, foreign: Path) -> None:
    file["labels"] = file["/"]


def shape_bomb(file: Any, foreign: Path) -> None:
    file.create_dataset("labels", (2**50,), "<i8", chunks=(2**16,))


def strings_of_any_length(file: Any, foreign: Path) -> None:
    file.create_dataset("labels", (6,), h5py.string_dtype(), data=["x" * 1000] * 6)


def compressed_zeros(file: Any, foreign: Path) -> None:
    file.create_dataset("labels", (10**7,), "<i8", chunks=(10**7,), compression="gzip", data=np.zeros(10**7, "<i8"))


OBJECTS = (
    *(external_link, external_storage, virtual_dataset, virtual_dataset_that_grows, virtual_dataset_of_many_files),
    *(soft_link, soft_link_to_itself, link_in_the_middle_of_a_path, group_that_holds_itself),
    *(shape_bomb, strings_of_any_length, compressed_zeros),
)


# What the header may say.


def _set(name: str, key: str, value: Any) -> Callable[[Values], None]:
    def change(values: Values) -> None:
        next(d for d in values["datasets"] if d["name"] == name)[key] = value

    return change


def overlapping(values: Values) -> None:
    labels, hashes = (next(d for d in values["datasets"] if d["name"] == name) for name in ("labels", "row_hash"))
    labels["offset"] = hashes["offset"]


def doubled(values: Values) -> None:
    values["datasets"].append(values["datasets"][2])


def nested(values: Values) -> None:
    inner: list[Any] = []
    for _ in range(900):
        inner = [inner]
    values["shard"] = inner


def large_file(values: Values) -> None:
    values["file_size"] = 2**62


def float_size(values: Values) -> None:
    values["file_size"] = float(values["file_size"])


def out_of_order(values: Values) -> None:
    values["datasets"].reverse()


HEADERS: dict[str, Callable[[Values], None]] = {
    "extents that overlap": overlapping,
    "an extent in the header": _set("labels", "offset", 0),
    "an extent behind the end": _set("labels", "offset", 2**40),
    "a negative offset": _set("labels", "offset", -8),
    "an offset beyond 64 bits": _set("labels", "offset", 2**64 + 8192),
    "images elsewhere": _set("images", "offset", 4096),
    "more rows than bytes": _set("labels", "shape", [2**60]),
    "a negative count": _set("labels", "shape", [-1]),
    "no dimensions": _set("labels", "shape", []),
    "a shape of fractions": _set("labels", "shape", [6.0]),
    "many dimensions": _set("images", "shape", [6, *[1] * 70]),
    "objects for a dtype": _set("labels", "dtype", "|O"),
    "a dtype of the largest width": _set("filenames", "dtype", "|S1048576"),
    "a dtype that is none": _set("filenames", "dtype", "|S99999999999999999999"),
    "another dtype": _set("labels", "dtype", "<f8"),
    "a dataset twice": doubled,
    "nested lists": nested,
    "a size that is not the file's": large_file,
    "a size that is no whole number": float_size,
    "datasets in another order": out_of_order,
}

# What the tables may say.


def _put(name: str, data: bytes) -> Callable[[bytearray, Values], None]:
    def change(file: bytearray, values: Values) -> None:
        offset = next(d["offset"] for d in values["datasets"] if d["name"] == name)
        file[offset : offset + len(data)] = data

    return change


TABLES: dict[str, Callable[[bytearray, Values], None]] = {
    "a label that is too large": _put("labels", (0).to_bytes(8, "little") + (2**40).to_bytes(8, "little")),
    "a negative label": _put("labels", b"\xff" * 8),
    "names out of order": _put("filenames", b"zzzz.jpg"),
    "classes out of order": _put("classes", b"9"),
    "a class without a name": _put("classes", b"\0"),
    "failures that are no JSON": _put("failed", b"{{{{"),
    "failures that are something else": _put("failed", b'{"a":1}' + bytes(20)),
    "remarks on no row": _put("remarks", b'{"row":99999999999,"remark":"x"}'),
}


def base(workspace: Path) -> tuple[bytes, Values]:
    path = workspace / "base.h5"
    if not path.exists():
        build_cache(plant(workspace / "source", 6), path, size=16, executor=InThisProcess())
    data = path.read_bytes()
    length = int.from_bytes(data[12:16], "little")
    values: Values = json.loads(data[16 : 16 + length])
    return data, values


def craft_objects(workspace: Path, path: Path, add: Callable[[Any, Path], None], foreign: Path) -> None:
    """Make a file whose objects are crafted, followed by the tables that a header of ours speaks of."""
    data, values = base(workspace)
    images = values["datasets"][0]
    with h5py.File(
        path, "w", userblock_size=USER_BLOCK, libver=("v110", "v110"), alignment_threshold=2048, alignment_interval=4096
    ) as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        space = h5py.h5s.create_simple(tuple(images["shape"]))
        dataset = h5py.h5d.create(file.id, b"images", h5py.h5t.IEEE_F32LE, space, plist)
        assert dataset.get_offset() == IMAGES_OFFSET
        add(file, foreign)
        for entry in values["datasets"][1:]:
            if entry["name"] != "labels":
                file.create_dataset(entry["name"], (6,), "<i8")
    crafted = bytearray(path.read_bytes())
    end = IMAGES_OFFSET + int(np.prod(images["shape"])) * 4
    crafted[IMAGES_OFFSET:end] = data[IMAGES_OFFSET:end]
    shift = len(crafted) - USER_BLOCK
    crafted.extend(data[USER_BLOCK:])
    for entry in values["datasets"][1:]:
        entry["offset"] += shift
    values["file_size"] = len(crafted)
    seal(crafted, values)
    path.write_bytes(crafted)


def craft(workspace: Path, path: Path, change: Callable[[bytearray, Values], None]) -> None:
    data, values = base(workspace)
    crafted = bytearray(data)
    change(crafted, values)
    seal(crafted, values)
    path.write_bytes(crafted)


READER = """
import json, resource, sys
from pathlib import Path
from pipeline.inspect.info import describe_cache
from pipeline.errors import CacheError
from pipeline.format.reader import CacheReader
from pipeline.inspect.verify import verify_cache
answers = {}
for path in map(Path, sys.argv[1:]):
    try:
        stored = CacheReader(path)
        assert all(map(stored.row_is_good, range(stored.num_images)))
        labels = stored.table("labels").tolist()
        str(describe_cache(path))
        answers[path.name] = [labels, list(map(str, verify_cache(path)))]
    except CacheError as error:
        answers[path.name] = error.exit_code
    except Exception as error:
        answers[path.name] = repr(error)
used = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
print(json.dumps([answers, used * 1024]))
"""


def trace(log: Path) -> list[str]:
    """Return the start of a command that writes down every file that is opened; empty where that cannot be done."""
    strace = shutil.which("strace")
    if not strace or subprocess.run([strace, "-f", "-o", os.devnull, "true"], capture_output=True).returncode:
        return []
    return [strace, "-f", "-s", "4096", "-o", str(log), "-e", "trace=open,openat,openat2,creat"]


def make_foreign(workspace: Path) -> Path:
    foreign = workspace / "foreign"
    foreign.mkdir()
    for name in ("foreign.h5", "foreign0.h5", "foreign1.h5"):
        with h5py.File(foreign / name, "w") as file:
            file.create_dataset("labels", data=np.arange(6, dtype="<i8"), maxshape=(None,), chunks=(6,))
    (foreign / "foreign.bin").write_bytes(bytes(48))
    return foreign


def test_crafted_files_are_refused_or_harmless_and_no_other_file_is_opened(workspace: Path) -> None:
    foreign = make_foreign(workspace)
    folder = workspace / "crafted"
    folder.mkdir()
    for add in OBJECTS:
        craft_objects(workspace, folder / add.__name__, add, foreign)
    for name, change in HEADERS.items():
        craft(workspace, folder / name, lambda _, values, change=change: change(values))  # type: ignore[misc]
    for name, put in TABLES.items():
        craft(workspace, folder / name, put)
    shutil.copy(workspace / "base.h5", folder / "untouched")
    paths = sorted(folder.iterdir())
    log = workspace / "log"
    tracing = trace(log)

    ended = subprocess.run(
        [*tracing, sys.executable, "-c", READER, *map(str, paths)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=REPOSITORY,
    )

    assert (ended.returncode, ended.stderr) == (0, "")
    answers, used = json.loads(ended.stdout)
    labels = CacheReader(workspace / "base.h5").table("labels").tolist()
    assert answers.pop("untouched") == [labels, []]
    wrong = {}
    for name in (add.__name__ for add in OBJECTS):
        answer = answers.pop(name)
        if not (isinstance(answer, list) and answer[0] == labels and any("sees labels as" in a for a in answer[1])):
            wrong[name] = answer
    wrong |= {name: answer for name, answer in answers.items() if answer != 65}
    opened = [line for line in log.read_text().splitlines() if str(foreign) in line] if tracing else []
    print(
        f"\ncrafted files: {len(OBJECTS)} harmless, {len(answers)} refused, {len(wrong)} wrong; {len(opened)} foreign "
        f"files opened; {used / 1e6:.0f} MB of memory at most"
    )
    assert not wrong
    assert not opened, "\n".join(opened[:10])
    assert used < MEMORY
    if not tracing:
        pytest.skip("strace is missing, or ptrace is not permitted: which files were opened was not looked at")


def test_the_trace_sees_what_the_hdf5_library_opens(workspace: Path) -> None:
    foreign = make_foreign(workspace)
    craft_objects(workspace, workspace / "c.h5", external_link, foreign)
    log = workspace / "log"
    if not (tracing := trace(log)):
        pytest.skip("strace is missing, or ptrace is not permitted")
    program = "import h5py, sys; print(h5py.File(sys.argv[1])['labels'][:])"
    subprocess.run([*tracing, sys.executable, "-c", program, str(workspace / "c.h5")], check=True, capture_output=True)

    assert str(foreign / "foreign.h5") in log.read_text()


@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_refused_at_once(workspace: Path) -> None:
    source = plant(workspace / "source", 6)
    build_cache(source, workspace / "base.h5", size=16, executor=InThisProcess())
    fifo, folder, link = workspace / "fifo.h5", workspace / "folder.h5", workspace / "link.h5"
    os.mkfifo(fifo)
    folder.mkdir()
    link.symlink_to(workspace / "base.h5")

    for path in (fifo, folder, Path("/dev/zero")):
        with pytest.raises(CacheUnsafe, match="not a regular file"):
            CacheReader(path)
    for path in (fifo, folder, link):
        with pytest.raises(OutputError):
            build_cache(source, path, size=16, executor=InThisProcess())
    assert CacheReader(link).num_images == 6  # a link is read as what it leads to


@pytest.mark.timeout(60)
@pytest.mark.parametrize("suffix", [".stat", ".journal", ".building", ".lock"])
def test_a_fifo_where_a_file_of_ours_should_be_blocks_nobody(suffix: str, workspace: Path) -> None:
    source, path = plant(workspace / "source", 6), workspace / "c.h5"
    build_cache(source, path, size=16, executor=InThisProcess())
    before = path.read_bytes()
    (workspace / f"c.h5{suffix}").unlink(missing_ok=True)
    os.mkfifo(workspace / f"c.h5{suffix}")

    if suffix == ".lock":
        with pytest.raises(Exception, match=r"c\.h5"):
            build_cache(source, path, size=16, rebuild=True, executor=InThisProcess())
    else:
        build_cache(source, path, size=16, rebuild=True, executor=InThisProcess())
    assert path.read_bytes() == before


def test_a_header_is_believed_only_as_a_whole(workspace: Path) -> None:
    """The control of the crafted headers: untouched but sealed anew, the same file is read."""
    craft(workspace, workspace / "c.h5", lambda _, values: None)
    reader = CacheReader(workspace / "c.h5")

    assert read_header(reader.fd, reader.path).num_images == 6

"""`docs/format.md`, tried out: a reader written from that page alone, and HDF5's own tools (`hdf5`, `classes`)."""

import errno
import hashlib
import json
import math
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash
from PIL import Image

from pipeline.build.build import build_cache
from pipeline.errors import (
    AccessDenied,
    CacheDamaged,
    CacheError,
    CacheMissing,
    CacheUnsafe,
    WorkerDied,
)
from pipeline.format.checks import open_cache
from pipeline.format.reader import CacheReader
from tests.support.command_line import REPOSITORY
from tests.support.photos import make_photos

# --- a reader from the document: struct, json, numpy, xxhash; nothing of `pipeline` -------------------------------


class StrangersCache:
    """What somebody would write who has only read `docs/format.md`."""

    DATASETS = (
        ("images", None, "N"),
        ("filenames", "S", "N"),
        ("labels", "<i8", "N"),
        ("classes", "S", "C"),
        ("class_names", "S", "C"),
        ("row_hash", "<u8", "N"),
        ("source_sha256", "|u1", "N"),
        ("source_size", "<i4", "N"),
        ("source_format", "S", "N"),
        ("image_hash", "<u8", "N"),
        ("failed", "S", "F"),
        ("remarks", "S", "R"),
        ("alike", "<i8", "A"),
    )

    def __init__(self, path: Path) -> None:
        self.data = path.read_bytes()
        assert self.data[:8] == bytes.fromhex("93 4D 4E 43 41 43 48 45")
        version, length = struct.unpack_from("<II", self.data, 8)
        assert version == 1
        self.header_end = 32 + length
        assert self.header_end <= 4096
        checksum = xxhash.xxh3_128(self.data[: 16 + length]).digest()
        assert checksum == self.data[16 + length : self.header_end]
        text = self.data[16 : 16 + length].decode("ascii")
        self.header = json.loads(text)
        assert json.dumps(self.header, sort_keys=True, separators=(",", ":")) == text
        assert not any(self.data[self.header_end : 4096])
        assert set(self.header) == {
            "content", "datasets", "decoder", "digest", "file_size", "fingerprint", "recipe", "shard",
        }  # fmt: skip
        assert self.header["content"] == "images" and self.header["shard"] is None
        assert self.header["file_size"] == len(self.data)
        self._check_datasets()
        images = self.datasets["images"]
        self.images_end = 8192 + math.prod(images["shape"]) * np.dtype(images["dtype"]).itemsize
        outside = self.data[self.header_end : 8192] + self.data[self.images_end :]
        assert xxhash.xxh3_128(outside).hexdigest() == self.header["digest"]

    def _check_datasets(self) -> None:
        size = self.header["recipe"]["size"]
        stored = {"float32": "<f4", "uint8": "|u1"}[self.header["recipe"]["dtype"]]
        assert [entry["name"] for entry in self.header["datasets"]] == [name for name, *_ in self.DATASETS]
        self.datasets = {entry["name"]: entry for entry in self.header["datasets"]}
        assert self.datasets["images"]["offset"] == 8192
        counts: dict[str, int] = {}
        ends = []
        for name, dtype, of in self.DATASETS:
            entry = self.datasets[name]
            count, *row_shape = entry["shape"]
            assert counts.setdefault(of, count) == count
            shapes = {"images": [3, *size], "source_sha256": [32], "source_size": [2], "alike": [2]}
            assert row_shape == shapes.get(name, [])
            assert re.fullmatch(r"\|S[1-9]\d*", entry["dtype"]) if dtype == "S" else entry["dtype"] == (dtype or stored)
            bytes_of_it = max(1, count) * math.prod(row_shape) * np.dtype(entry["dtype"]).itemsize
            ends.append((entry["offset"], entry["offset"] + bytes_of_it))
        end_before = 4096
        for start, end in sorted(ends):
            assert end_before <= start < end <= len(self.data)
            end_before = end
        assert counts["N"] >= 1 and counts["C"] >= 1
        decoder = self.header["decoder"]
        formats = {*self["source_format"].tolist()} | {entry["format"].encode() for entry in self.failed()}
        assert sorted(decoder) == sorted(name.decode() for name in formats - {b""})
        assert all(re.fullmatch("[0-9a-f]{32}|", digits) for digits in decoder.values())

    def __getitem__(self, name: str) -> Any:
        entry = self.datasets[name]
        count = math.prod(entry["shape"])
        return np.frombuffer(self.data, entry["dtype"], count, entry["offset"]).reshape(entry["shape"])

    def failed(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in self["failed"].tolist()]

    def remarks(self) -> list[dict[str, Any]]:
        return [json.loads(entry) for entry in self["remarks"].tolist()]

    def float32(self, row: int) -> Any:
        """What the network sees of a row."""
        stored, recipe = self["images"][row], self.header["recipe"]
        if recipe["dtype"] == "float32":
            return stored
        mean, std = (np.array(recipe[name], np.float32)[:, None, None] for name in ("mean", "std"))
        return (stored.astype(np.float32) / np.float32(255) - mean) / std

    def fingerprint(self) -> str:
        digest = hashlib.sha256(
            json.dumps(
                [1, self.header["decoder"], self.header["recipe"]], sort_keys=True, separators=(", ", ": ")
            ).encode()
        )
        for name in ("classes", "class_names", "filenames", "labels", "source_sha256", "failed"):
            width = np.dtype(self.datasets[name]["dtype"]).itemsize
            digest.update(struct.pack("<QQ", self.datasets[name]["shape"][0], width) + self[name].tobytes())
        return digest.hexdigest()


def looks(pixels_HWC: Any) -> int:
    """The image hash in the document's words."""
    red, green, blue = (pixels_HWC[..., c].astype(np.int64) for c in range(3))
    grey = ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).astype(np.uint8)
    cells = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX))
    bits = "".join("1" if row[x] > row[x + 1] else "0" for row in cells for x in range(8))
    return int(bits, 2)


@pytest.fixture(scope="module", params=["float32", "uint8"])
def rich(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A source with everything that a table can hold, and its cache."""
    folder = tmp_path_factory.mktemp("rich")
    photos = make_photos(folder / "photos")
    (photos / "10").mkdir()
    (photos / "2" / "broken.JPEG").write_bytes(b"no image")
    (photos / "2" / os.fsdecode(b"caf\xe9 broken.jpg")).write_bytes(b"GIF89a")
    (photos / "1" / "deep").mkdir()
    shutil.copy(photos / "1" / "n03874293_7.JPEG", photos / "1" / "deep" / os.fsdecode(b"\xe9.jpg"))
    Image.new("RGB", (20, 20), (9, 9, 9)).save(photos / "1" / "tiny and blank.png")
    (photos / "classes.csv").write_text("id,name\n1,Schlägel\n", encoding="utf-8")
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 1e-5)
    build_cache(photos, folder / "c.h5", size=33, mean=mean, std=std, dtype=request.param, workers=1)
    yield photos, folder / "c.h5"


def test_a_stranger_reads_every_table_from_the_document_alone(rich: tuple[Path, Path]) -> None:
    photos, path = rich

    cache = StrangersCache(path)

    assert cache["classes"].tolist() == [b"1", b"2", b"10"]
    assert cache["class_names"].tolist() == ["Schlägel".encode(), b"", b""]
    rows = [
        (b"1", b"deep/\xe9.jpg"),
        (b"1", b"n03874293_1030.JPEG"),
        (b"1", b"n03874293_43.JPEG"),
        (b"1", b"n03874293_7.JPEG"),
        (b"1", b"n03874293_775.JPEG"),
        (b"1", b"tiny and blank.png"),
        (b"2", b"n01740131_12.JPEG"),
        (b"2", b"n01740131_300.JPEG"),
        (b"2", b"n01740131_4405.JPEG"),
        (b"2", b"n03874293_775.JPEG"),
    ]
    assert list(zip(cache["classes"][cache["labels"]].tolist(), cache["filenames"].tolist(), strict=True)) == rows
    assert cache.failed() == [
        {
            "class_id": 2,
            "name": "broken.JPEG",
            "reason": "not an image",
            "transient": False,
            "source_sha256": hashlib.sha256(b"no image").hexdigest(),
            "format": "",
        },
        {
            "class_id": 2,
            "name": "caf\udce9 broken.jpg",
            "reason": "truncated",
            "transient": False,
            "source_sha256": hashlib.sha256(b"GIF89a").hexdigest(),
            "format": "GIF",
        },
    ]
    assert cache.remarks() == [
        {"row": 5, "remark": "tiny: 20 × 20 pixels"},
        {"row": 5, "remark": "blank: nearly one color all over"},
    ]
    recipe = cache.header["recipe"]
    assert recipe == {
        "size": [33, 33],
        "fit": "squash",
        "resize_to": None,
        "interpolation": "bilinear",
        "pad_color": None,
        "background": None,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 1e-5],
        "dtype": recipe["dtype"],
        "exif_rotate": False,
        "max_megapixels": 64,
        "scaled_decode": False,
    }
    assert cache.fingerprint() == cache.header["fingerprint"]
    mean, std = (np.array(recipe[name], np.float32)[:, None, None] for name in ("mean", "std"))
    for row, (class_id, name) in enumerate(rows):
        source = photos / os.fsdecode(class_id) / os.fsdecode(name)
        pixels_HWC = np.asarray(Image.open(source).convert("RGB").resize((33, 33), Image.Resampling.BILINEAR))
        pixels_CHW = pixels_HWC.transpose(2, 0, 1)
        expected = (pixels_CHW.astype(np.float32) / np.float32(255) - mean) / std
        assert cache.float32(row).tobytes() == expected.tobytes()
        assert cache["row_hash"][row] == xxhash.xxh3_64(cache["images"][row].tobytes()).intdigest()
        assert cache["source_sha256"][row].tobytes() == hashlib.sha256(source.read_bytes()).digest()
        assert cache["image_hash"][row] == looks(pixels_HWC)
        with Image.open(source) as image:
            assert cache["source_size"][row].tolist() == [image.height, image.width]
            assert cache["source_format"][row].decode() == image.format


def test_empty_tables_count_nothing_and_occupy_one_zero_element(cache_path: Path) -> None:
    cache = StrangersCache(cache_path)

    for name in ("failed", "remarks"):
        assert cache.datasets[name]["shape"] == [0] and cache.datasets[name]["dtype"] == "|S1"
        assert cache.data[cache.datasets[name]["offset"]] == 0
        with h5py.File(cache_path) as file:
            assert file[name].shape == (1,) and file[name][0] == b""
    assert cache.datasets["alike"]["shape"] == [0, 2]
    assert not any(cache.data[cache.datasets["alike"]["offset"] :][:16])


# --- the same file through HDF5's own tools -----------------------------------------------------------------------


def test_h5py_sees_what_the_header_says_and_nothing_else(rich: tuple[Path, Path]) -> None:
    cache = StrangersCache(rich[1])

    with h5py.File(rich[1]) as file:
        assert file.userblock_size == 4096 and not file.attrs
        assert set(file) == set(cache.datasets)
        for name, entry in cache.datasets.items():
            assert isinstance(file.get(name, getlink=True), h5py.HardLink)
            dataset = file[name]
            count, *row_shape = entry["shape"]
            assert (dataset.dtype.str, dataset.shape) == (entry["dtype"], (max(1, count), *row_shape))
            assert dataset.id.get_offset() == entry["offset"]
            properties = dataset.id.get_create_plist()
            assert properties.get_layout() == h5py.h5d.CONTIGUOUS
            assert properties.get_nfilters() == properties.get_external_count() == 0
            assert h5py.h5g.get_objinfo(dataset.id).mtime == 0
            assert not dataset.is_virtual
            attributes = {key: dataset.attrs[key] for key in dataset.attrs}
            types = {key: re.sub(r"S\d+", "S", value.dtype.str) for key, value in attributes.items()}
            assert types == (ATTRIBUTES if name == "images" else {})
            for key, value in cache.header["recipe"].items() if attributes else ():
                assert as_json(attributes[key]) == ("none" if value is None else value), key
            assert attributes.get("content", b"images") == b"images"
            assert dataset[()][:count].tobytes() == cache[name].tobytes()


ATTRIBUTES = {
    "content": "|S",
    "size": "<i8",
    "fit": "|S",
    "resize_to": "|S",
    "interpolation": "|S",
    "pad_color": "|S",
    "background": "|S",
    "mean": "<f8",
    "std": "<f8",
    "dtype": "|S",
    "exif_rotate": "|u1",
    "max_megapixels": "<i8",
    "scaled_decode": "|u1",
}


def as_json(value: Any) -> Any:
    """Turn an attribute into what the header has, in the document's words."""
    if value.dtype.kind == "S":
        return value.decode()
    return bool(value) if value.dtype == np.uint8 else value.tolist()


def parsed_dump(text: str) -> dict[str, dict[str, Any]]:
    """Pick name, type, shape and offset of each dataset from what `h5dump -p -H` prints."""
    found = {}
    for part in (part.partition("ATTRIBUTE")[0] for part in text.split('DATASET "')[1:]):
        shape = re.search(r"DATASPACE\s+SIMPLE \{ \( ([\d, ]+) \)", part)
        offset = re.search(r"STORAGE_LAYOUT \{\s+CONTIGUOUS\s+SIZE \d+\s+OFFSET (\d+)", part)
        width = re.search(r"STRSIZE (\d+);", part)
        number = re.search(r"DATATYPE\s+(H5T_\w+)", part)
        assert shape and offset and number and re.search(r"FILTERS \{\s+NONE", part)
        types = {"H5T_IEEE_F32LE": "<f4", "H5T_STD_U8LE": "|u1", "H5T_STD_I64LE": "<i8", "H5T_STD_U64LE": "<u8"}
        types["H5T_STD_I32LE"] = "<i4"
        found[part.split('"')[0]] = {
            "dtype": f"|S{width[1]}" if width else types[number[1]],
            "shape": [int(n) for n in shape[1].split(",")],
            "offset": int(offset[1]),
        }
    return found


def test_h5dump_sees_what_the_header_says_and_nothing_else(rich: tuple[Path, Path]) -> None:
    if not shutil.which("h5dump"):
        pytest.skip("h5dump is not installed")
    cache = StrangersCache(rich[1])

    text = subprocess.check_output(["h5dump", "-p", "-H", rich[1]], text=True)

    assert parsed_dump(text) == {
        name: {
            "dtype": entry["dtype"],
            "shape": [max(1, entry["shape"][0]), *entry["shape"][1:]],
            "offset": entry["offset"],
        }
        for name, entry in cache.datasets.items()
    }
    assert re.findall(r'ATTRIBUTE "(\w+)"', text) == sorted(ATTRIBUTES)
    assert not re.search(r"LINK|GROUP \"(?!/\")|CHUNKED|COMPACT|VIRTUAL|EXTERNAL|VARIABLE", text)


def test_h5dump_shows_the_stored_values(rich: tuple[Path, Path]) -> None:
    if not shutil.which("h5dump"):
        pytest.skip("h5dump is not installed")
    cache = StrangersCache(rich[1])

    for name in ("images", "labels", "row_hash", "image_hash", "source_sha256", "source_size"):
        raw = rich[1].parent / f"{name}.bin"
        command = ["h5dump", "-d", name, "-b", "LE", "-o", raw, rich[1]]
        subprocess.run(command, check=True, capture_output=True)
        assert raw.read_bytes() == cache[name].tobytes()
        raw.unlink()
    for name, value in (("fit", '"squash"'), ("mean", "0.485, 0.456, 0.406"), ("size", "33, 33")):
        assert f"(0): {value}\n" in subprocess.check_output(["h5dump", "-a", f"images/{name}", rich[1]], text=True)


def test_no_path_user_or_host_goes_into_the_file(rich: tuple[Path, Path]) -> None:
    data = rich[1].read_bytes()

    for word in (os.fsencode(rich[0].parent.name), h5py.version.version.encode()):
        assert word not in data


# --- what is refused, and how it is told ---------------------------------------------------------------------------


def test_a_missing_file_is_told_from_an_unfinished_build(tmp_path: Path) -> None:
    with pytest.raises(CacheMissing, match=r"there is no such file\. Build it") as missing:
        CacheReader(tmp_path / "c.h5")
    assert missing.value.exit_code == 66

    (tmp_path / "c.h5.building").touch()
    with pytest.raises(CacheMissing, match=r"an unfinished build exists\. Run its build again"):
        CacheReader(tmp_path / "c.h5")
    (tmp_path / "c.h5.journal").touch()
    with pytest.raises(CacheMissing, match=r"an unfinished build exists\. Run build-cache again to resume it"):
        CacheReader(tmp_path / "c.h5")


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the file is empty"),
        (b"\x93MN", "its first bytes are not a cache's"),
        (b"x" * 9000, "its first bytes are not a cache's"),
        (b"\x89HDF\r\n\x1a\n" + bytes(9000), "an HDF5 file, but not one that build-cache made"),
    ],
)
def test_what_is_not_ours_is_refused_and_told_what_is_read(data: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "c.h5").write_bytes(data)

    with pytest.raises(CacheUnsafe, match=f"{why}; a tensor cache of format 1 is read") as refused:
        CacheReader(tmp_path / "c.h5")
    assert refused.value.exit_code == 65


def test_a_folder_or_fifo_is_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.h5")

    for path in (tmp_path, tmp_path / "fifo.h5"):
        with pytest.raises(CacheUnsafe, match="not a regular file"):
            open_cache(path)


def test_a_cache_that_may_not_be_read_is_denied(copy: Path, unprivileged: None) -> None:
    copy.chmod(0)

    with pytest.raises(AccessDenied) as denied:
        CacheReader(copy)
    assert denied.value.exit_code == 77


def test_a_cache_for_which_there_are_no_addresses_is_told_with_the_limit(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*arguments: Any) -> Any:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr("pipeline.format.reader.mmap.mmap", no_room)

    with pytest.raises(
        WorkerDied, match=r"Cannot allocate memory\. Raise the limits of memory \(ulimit -v, ulimit -d\)"
    ) as died:
        CacheReader(copy)
    assert died.value.exit_code == 71


def test_a_newer_format_is_named_with_the_one_that_is_read(copy: Path) -> None:
    data = bytearray(copy.read_bytes())
    data[8] = 2
    copy.write_bytes(data)

    with pytest.raises(CacheError, match="it has format 2; this version reads format 1"):
        CacheReader(copy)


@pytest.mark.parametrize("by", [-1, +1, -4096, +4096])
def test_a_cache_that_was_cut_or_lengthened_is_refused_with_both_sizes(by: int, copy: Path) -> None:
    size = copy.stat().st_size
    os.truncate(copy, size + by)

    with pytest.raises(CacheDamaged, match=f"{size + by} bytes, {size} expected"):
        CacheReader(copy)


def test_any_flipped_bit_outside_the_rows_is_noticed_on_opening(copy: Path) -> None:
    data = copy.read_bytes()
    cache = StrangersCache(copy)
    outside = [*range(0, 8192, 61), *range(cache.header_end - 20, cache.header_end + 20)]
    outside += [*range(cache.images_end, len(data), 61), len(data) - 1]

    for place in outside:
        if place >= len(data):
            continue
        copy.write_bytes(data[:place] + bytes([data[place] ^ 1 << place % 8]) + data[place + 1 :])
        with pytest.raises(CacheError):
            CacheReader(copy)

    copy.write_bytes(data)
    CacheReader(copy).close()


def rewritten(path: Path, **changes: Any) -> None:
    """Change the header as a forger would: with a checksum that fits."""
    cache = StrangersCache(path)
    header = json.loads(json.dumps(cache.header | changes))
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    start = struct.pack("<8sII", b"\x93MNCACHE", 1, len(text)) + text
    start += xxhash.xxh3_128(start).digest()
    path.write_bytes(start.ljust(4096, b"\0") + cache.data[4096:])


def with_dataset(path: Path, which: str, /, **changes: Any) -> list[dict[str, Any]]:
    return [e | changes if e["name"] == which else e for e in StrangersCache(path).header["datasets"]]


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("images", {"offset": 4096}),
        ("images", {"offset": 12288}),
        ("images", {"shape": [2**62, 3, 64, 64]}),
        ("images", {"shape": [9, 3, 64, 64]}),
        ("images", {"shape": [8, 3, 64, 65]}),
        ("images", {"dtype": "|u1"}),
        ("images", {"dtype": ">f4"}),
        ("labels", {"offset": 0}),
        ("labels", {"offset": 8192}),
        ("labels", {"offset": 2**62}),
        ("labels", {"offset": -8}),
        ("labels", {"offset": 5320.0}),
        ("labels", {"offset": True}),
        ("labels", {"shape": [7]}),
        ("labels", {"shape": []}),
        ("labels", {"dtype": "|O"}),
        ("filenames", {"dtype": "|S0"}),
        ("filenames", {"dtype": "|S99999999999"}),
        ("filenames", {"name": "other"}),
        ("failed", {"shape": [2**40]}),
    ],
)
def test_a_forged_extent_is_refused(name: str, changes: dict[str, Any], copy: Path) -> None:
    rewritten(copy, datasets=with_dataset(copy, name, **changes))

    with pytest.raises(CacheError) as refused:
        CacheReader(copy)
    assert refused.value.exit_code == 65


@pytest.mark.parametrize(
    "changes",
    [
        {"content": "features"},
        {"content": None},
        {"recipe": {}},
        {"recipe": None},
        {"datasets": []},
        {"datasets": None},
        {"file_size": "404688"},
        {"extra": 1},
        {"digest": "0" * 32},
        {"decoder": 5},
        {"decoder": []},
        {"decoder": [1]},
        {"decoder": {}},
        {"decoder": {"JPEG": 5}},
        {"decoder": {"JPEG": "0" * 31}},
        {"decoder": {"PNG": "0" * 32}},
        {"decoder": "0" * 32},
        {"fingerprint": None},
        {"shard": {"index": 0}},
        {"shard": 7777},
    ],
)
def test_a_forged_header_is_refused_or_harmless(changes: dict[str, Any], copy: Path) -> None:
    rewritten(copy, **changes)

    with pytest.raises(CacheError):
        CacheReader(copy)


def test_the_document_names_every_dataset_and_every_key() -> None:
    page = (REPOSITORY / "docs" / "format.md").read_text()

    for name, *_ in StrangersCache.DATASETS:
        assert f"| `{name}` |" in page
    for key in ("content", "datasets", "decoder", "digest", "file_size", "fingerprint", "recipe", "shard"):
        assert f"| `{key}` |" in page
    for key in ATTRIBUTES:
        assert f"| `{key}` |" in page

"""Caches of Parquet files that hold images (`tables/parquet_images`) are those of folders."""

import errno
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.build.build import build_cache
from pipeline.errors import SourceError, StorageError, TableDamaged, WorkerDied
from pipeline.format.reader import CacheReader
from pipeline.inspect.info import check_source
from pipeline.load.cache import TensorCache
from pipeline.shards.build import build_shards
from pipeline.source import reader
from pipeline.source.reader import Damaged, Member, read_image, show_location
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.source.tables.labels import Labels
from pipeline.source.tables.parquet_images import ImageRow, _Images
from tests.support.archives import built, jpeg, tree
from tests.support.builds import InThisProcess, files_left
from tests.support.photos import settle

LABELS = ["cat", "dog", "cat", "dog", "cat"]


def write_set(path: Path, labels: Sequence[Any], paths: Sequence[str | None] | None = None, **more: Any) -> Path:
    """Write images with their labels as Hugging Face does, two to a row group."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = sorted(set(LABELS))
    images = [{"bytes": jpeg(i), "path": f"{i}.jpg" if paths is None else paths[i]} for i in range(len(labels))]
    codes = [names.index(label) if isinstance(label, str) else label for label in labels]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    note = {"huggingface": json.dumps({"info": {"features": features}})}
    columns = pa.table({"image": images, "label": codes} | more).replace_schema_metadata(note)
    pq.write_table(columns, path, row_group_size=2)
    return path


def folder_of(root: Path, labels: Sequence[str]) -> Path:
    for i, label in enumerate(labels):
        (root / label).mkdir(parents=True, exist_ok=True)
        (root / label / f"{i}.jpg").write_bytes(jpeg(i))
    return root


def names_of(source: Path) -> list[bytes]:
    return list(scan_source(source).names)


def test_the_cache_of_a_parquet_file_is_that_of_the_folder(tmp_path: Path) -> None:
    table = write_set(tmp_path / "t.parquet", LABELS)

    assert built(table, tmp_path / "t.h5") == built(folder_of(tmp_path / "x", LABELS), tmp_path / "x.h5")
    assert check_source(tmp_path / "t.h5", table) == ""


def test_workers_shards_and_classes_work_with_parquet_files(tmp_path: Path) -> None:
    table = write_set(tmp_path / "t.parquet", LABELS)
    whole = built(table, tmp_path / "c.h5")

    build_cache(table, tmp_path / "w.h5", size=16, workers=2)
    assert (tmp_path / "w.h5").read_bytes() == whole
    build_shards(table, tmp_path / "s.h5", shards=2, executor=InThisProcess(), size=16)
    assert TensorCache(tmp_path / "s.h5").fingerprint == CacheReader(tmp_path / "c.h5").fingerprint
    assert scan_source(table, None, Choice(classes=("dog",), per_class=1)).class_ids == ["dog"]


def test_a_set_of_several_files_is_named_by_what_they_share(tmp_path: Path) -> None:
    data = tmp_path / "set" / "data"
    for number in range(2):
        write_set(data / f"train-{number:05}-of-00002.parquet", LABELS[:2], [f"{number}-{i}.jpg" for i in range(2)])

    assert names_of(data / "train") == [b"0-0.jpg", b"1-0.jpg", b"0-1.jpg", b"1-1.jpg"]
    assert names_of(tmp_path / "set") == names_of(data) == names_of(data / "train")
    assert scan_source(tmp_path / "set").left_out == {}
    write_set(data / "test-00000-of-00001.parquet", LABELS)
    with pytest.raises(SourceError, match=r"of several sets: test, train\. Build each: build-cache .*/data/train"):
        scan_source(tmp_path / "set")
    assert len(names_of(data / "test")) == 5


def test_images_without_a_path_of_their_own_are_called_by_their_row(tmp_path: Path) -> None:
    paths = ["dog/a.jpg", "dog/a.jpg", None, "/home/me/b.jpg", "x/c.jpg"]
    table = write_set(tmp_path / "t.parquet", LABELS, paths)

    assert names_of(table) == [b"dog/a.jpg", b"t-3", b"x/c.jpg", b"a.jpg", b"t-4"]
    write_set(table, LABELS, ["same.jpg"] * 5)
    assert names_of(table) == [b"t-1", b"t-3", b"t-5", b"t-2", b"t-4"]


def test_columns_of_bytes_and_other_labels_can_be_named(tmp_path: Path) -> None:
    columns = {"png": [jpeg(i) for i in range(2)], "coarse": ["a", "b"], "fine": ["c", "d"]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")

    with pytest.raises(SourceError, match=r"known to have the label: png, coarse, fine\. Give --label-column"):
        scan_source(tmp_path / "t.parquet")
    manifest = scan_source(tmp_path / "t.parquet", None, Choice(labels=Labels(None, None, "fine")))
    assert manifest.class_ids == ["c", "d"] and list(manifest.names) == [b"t-1", b"t-2"]
    assert read_image(manifest.location(1))[0] == jpeg(1)


def test_rows_are_read_in_any_order_and_named(tmp_path: Path) -> None:
    manifest = scan_source(write_set(tmp_path / "t.parquet", LABELS))
    places = [manifest.location(row) for row in range(5)]

    for row in (4, 0, 3, 3, 1, 2):
        place = places[row]
        assert isinstance(place, Member) and read_image(place)[0] == jpeg(place.offset)
    assert show_location(places[1]) == f"{tmp_path / 't.parquet'}, row 3"


def test_threads_that_read_one_file_get_their_own_images(tmp_path: Path) -> None:
    labels = ["cat", "dog"] * 15
    table = write_set(tmp_path / "t.parquet", labels)
    pq.write_table(pq.read_table(table), table, row_group_size=20)  # several batches to a row group
    places = list(map(scan_source(table).location, range(30))) * 20

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(read_image, places))

    wanted = [jpeg(i) for i in range(30)]
    assert all(isinstance(place, Member) for place in places)
    assert [data for data, _ in found] == [wanted[place.offset] for place in places if isinstance(place, Member)]


def test_an_image_without_bytes_has_failed_and_a_changed_file_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_set(tmp_path / "t.parquet", LABELS[:2])
    place = scan_source(table).location(0)
    monkeypatch.setattr(reader, "image_bytes", lambda *_: None)
    with pytest.raises(Damaged, match="no bytes in the Parquet file"):
        read_image(place)
    write_set(table, LABELS)
    with pytest.raises(StorageError, match="it was changed while its images were read"):
        read_image(place)


def test_a_damaged_file_is_refused_or_fails_its_images(tmp_path: Path) -> None:
    table = write_set(tmp_path / "t.parquet", LABELS)
    place = scan_source(table).location(0)
    assert isinstance(place, Member)
    data = bytearray(table.read_bytes())
    data[4:300] = bytes(296)
    table.write_bytes(data)
    again = place._replace(archive_stat=reader.stat_of(table.stat()))
    for _ in range(2):  # the second time, the iterator of the first one is at its end
        with pytest.raises(Damaged, match="not in the Parquet file: it is damaged"):
            read_image(again)
    table.write_bytes(data[:500])
    with pytest.raises(TableDamaged, match="it is no whole Parquet file"):
        scan_source(table)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EIO, "Failed to read.\nDetail: [errno 5]"), "Input/output error"),
        (pa.ArrowMemoryError("malloc failed"), "no memory to read it"),
    ],
)
def test_images_that_the_system_fails_to_read_are_tried_again(
    error: Exception, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table, unpack = write_set(tmp_path / "t.parquet", LABELS), _Images._unpack
    settle(tmp_path)

    def failing(images: _Images, place: ImageRow) -> None:
        if place.group == 1:
            raise error
        unpack(images, place)

    with monkeypatch.context() as patch:
        patch.setattr(_Images, "_unpack", failing)
        report = build_cache(table, tmp_path / "c.h5", size=16, executor=InThisProcess())
    assert [(f.name, f.reason, f.transient) for f in report.failed] == [(f"{i}.jpg", reason, True) for i in (2, 3)]

    report = build_cache(table, tmp_path / "c.h5", size=16, executor=InThisProcess())
    assert (report.decoded, report.cached, report.failed) == (2, 5, [])


def test_a_source_without_file_handles_is_no_damaged_file(tmp_path: Path) -> None:
    table = write_set(tmp_path / "t.parquet", LABELS)

    with files_left(0), pytest.raises(WorkerDied, match=r"t\.parquet: Too many open files \(the limit is"):
        scan_source(table)


def test_a_row_without_label_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableDamaged, match=r"row 2: the label of 1\.jpg is missing"):
        scan_source(write_set(tmp_path / "t.parquet", ["cat", -1]))


def test_a_table_without_images_is_no_source(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": ["a.jpg"], "label": ["x"]}), tmp_path / "t.parquet")

    with pytest.raises(SourceError, match=r"no column of it holds images.*--table FILE"):
        scan_source(tmp_path / "t.parquet")
    tree(tmp_path / "x", "a.jpg", "b.jpg")
    assert scan_source(tmp_path / "x", None, Choice(labels=Labels(tmp_path / "t.parquet"))).class_ids == ["x"]


def test_a_named_table_is_refused_for_images_with_labels_beside_them(tmp_path: Path) -> None:
    table = write_set(tmp_path / "set" / "t.parquet", LABELS)
    (tmp_path / "labels.csv").write_text("file,label\n0.jpg,bird\n")
    choice = Choice(labels=Labels(tmp_path / "labels.csv"))

    with pytest.raises(SourceError, match=r"Build it without --table, and then .* train --labels .*labels\.csv") as no:
        scan_source(table, choice=choice)
    assert no.value.exit_code == 66
    with pytest.raises(SourceError, match="names no image here"):
        scan_source(tmp_path / "set", choice=choice)

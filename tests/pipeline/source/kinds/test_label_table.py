"""Classes from a table of labels: one that is named, or known beside images. A table that is not known is refused."""

import csv
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pipeline.build.build import build_cache
from pipeline.errors import AccessDenied, ArchiveDamaged, SourceError, TableDamaged
from pipeline.inspect.info import check_source
from pipeline.load.cache import TensorCache
from pipeline.shards.build import build_shards
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from pipeline.source.tables.labels import Labels
from tests.support.archives import JPEG, built, packed, spoiled_zip, tree, zip_of
from tests.support.builds import InThisProcess
from tests.support.photos import save_jpeg

SPECIES = {"a.jpg": "cat", "b.jpg": "dog", "c.jpg": "cat", "d.jpg": "T - shirt, old"}


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of pictures that lie in no class."""
    folder = tmp_path_factory.mktemp("labels") / "flat"
    for seed, name in enumerate(SPECIES):
        save_jpeg(folder / name, 20, 24, seed)
    return folder


@pytest.fixture(scope="module")
def by_folder(flat: Path) -> bytes:
    """Return the cache of the folder that `SPECIES` describes."""
    for name, label in SPECIES.items():
        place = flat.parent / "folders" / label / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / name, place)
    return built(flat.parent / "folders", flat.parent / "folders.h5")


def write_csv(path: Path, *rows: Sequence[str], header: Sequence[str] = ("file_name", "label")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def write_lines(path: Path, *rows: Sequence[str], header: Sequence[str] = ("file_name", "label")) -> Path:
    path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows))
    return path


def named(table: Path, label: str | None = None, file: str | None = None) -> Choice:
    return Choice(labels=Labels(table, file, label))


@pytest.mark.parametrize(("name", "write"), [("t.csv", write_csv), ("t.jsonl", write_lines)])
def test_the_cache_of_a_table_is_that_of_the_folder_it_describes(
    name: str, write: Callable[..., Path], flat: Path, by_folder: bytes, tmp_path: Path
) -> None:
    table = write(tmp_path / name, *reversed(SPECIES.items()))

    assert built(flat, tmp_path / "c.h5", named(table)) == by_folder


def test_rows_may_name_images_by_path_or_by_content(flat: Path, by_folder: bytes, tmp_path: Path) -> None:
    folders = flat.parent / "folders"
    rows = [(os.path.relpath(file, folders), file.parent.name) for file in folders.rglob("*.jpg")]
    digests = [(hashlib.sha256((folders / path).read_bytes()).hexdigest(), label) for path, label in rows]

    for number, table in enumerate((rows, digests)):
        choice = named(write_csv(tmp_path / f"{number}.csv", *table))
        assert built(folders, tmp_path / f"{number}.h5", choice) == by_folder


@pytest.mark.parametrize(
    ("folder", "table"), [("", "metadata.csv"), ("", "metadata.jsonl"), ("train", "train.csv"), ("train", "labels.csv")]
)
def test_usual_tables_are_known_without_options(folder: str, table: str, flat: Path, tmp_path: Path) -> None:
    source = tmp_path / "x"
    shutil.copytree(flat, source / folder)
    write, ids = (write_csv, folder != "") if table.endswith("csv") else (write_lines, False)
    rows = [(name.removesuffix(".jpg") if ids else name, label) for name, label in SPECIES.items()]
    header = ("id", "breed") if ids else ("file_name", "label")
    write(source / table, *rows, header=header)
    if ids:
        shutil.copytree(flat, source / "test")
        write_csv(source / "sample_submission.csv", ("a", "cat"), header=header)
    expected = {
        label: [f"{folder}/{name}".lstrip("/") for name in SPECIES if SPECIES[name] == label]
        for label in set(SPECIES.values())
    }

    manifest = scan_source(source)

    names = [os.fsdecode(name) for name in manifest.names]
    assert {
        label: names_of(manifest.labels.tolist(), names, i) for i, label in enumerate(manifest.class_ids)
    } == expected
    assert manifest.left_out.total() == (5 if ids else 0)
    assert sum(count for why, count in manifest.left_out.items() if why.startswith("in a folder of test")) == 4 * ids


def test_the_cache_of_a_competition_is_that_of_the_folder_it_describes(flat: Path, tmp_path: Path) -> None:
    shutil.copytree(flat, tmp_path / "x/train")
    shutil.copytree(flat, tmp_path / "x/test_images")
    write_csv(tmp_path / "x/train.csv", *((name[0], label) for name, label in SPECIES.items()), header=("id", "kind"))
    for name, label in SPECIES.items():
        place = tmp_path / "folders" / label / "train" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(flat / name, place)

    assert built(tmp_path / "x", tmp_path / "x.h5") == built(tmp_path / "folders", tmp_path / "y.h5")


def test_a_zip_of_images_and_their_table_is_no_archive_of_one_class(flat: Path, tmp_path: Path) -> None:
    source = tmp_path / "x"
    shutil.copytree(flat, source)
    write_csv(source / "labels.csv", *SPECIES.items())

    zipped = zip_of(source, tmp_path / "x.zip")

    assert built(zipped, tmp_path / "z.h5") == built(source, tmp_path / "x.h5")


def names_of(labels: Sequence[int], names: Sequence[str], label: int) -> list[str]:
    return [name for name, one in zip(names, labels, strict=True) if one == label]


def test_archives_shards_and_classes_work_with_a_table(flat: Path, tmp_path: Path) -> None:
    source = tmp_path / "x"
    shutil.copytree(flat, source / "train")
    write_csv(source / "train.csv", *SPECIES.items(), header=("image", "label"))
    folder, tar, zipped = packed(source)
    whole = built(folder, tmp_path / "c.h5")

    assert built(tar, tmp_path / "tar.h5") == whole == built(zipped, tmp_path / "zip.h5")
    build_shards(folder, tmp_path / "s.h5", shards=2, executor=InThisProcess(), size=16)
    assert TensorCache(tmp_path / "s.h5").fingerprint == TensorCache(tmp_path / "c.h5").fingerprint
    some = Choice(classes=("dog",), merged=(("any", ("cat", "T - shirt, old")),))
    chosen = scan_source(zipped, None, some)
    assert chosen.class_ids == ["any", "dog"]
    assert list(chosen.names) == [b"T - shirt, old/train/d.jpg", b"cat/train/a.jpg", b"cat/train/c.jpg", b"train/b.jpg"]
    assert check_source(tmp_path / "c.h5", folder) == ""


def test_a_changed_label_decodes_nothing(flat: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", *SPECIES.items())
    built(flat, tmp_path / "c.h5", named(table))
    write_csv(table, *(SPECIES | {"a.jpg": "dog"}).items())

    assert check_source(tmp_path / "c.h5", flat, named(table)) == "class dog: 1 moved here"
    report = build_cache(flat, tmp_path / "c.h5", executor=InThisProcess(), choice=named(table))

    assert (report.decoded, report.copied, report.counts) == (0, 4, [1, 1, 2])


def test_a_named_table_in_the_source_is_not_left_out(flat: Path, tmp_path: Path) -> None:
    shutil.copytree(flat, tmp_path / "x")
    write_csv(tmp_path / "x/other.csv", ("a.jpg", "cat"))
    (tmp_path / "x/tables").mkdir()
    table = write_csv(tmp_path / "x/tables/t.csv", *SPECIES.items())

    assert scan_source(tmp_path / "x", None, named(table)).left_out == {"suffix .csv": 1}


def test_images_in_no_row_and_rows_without_image_are_named(flat: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", ("a.jpg", "cat"), ("x.jpg", "emu"), ("b.jpg", "dog"), ("b.jpg", "dog"))

    manifest = scan_source(flat, None, named(table))

    assert manifest.left_out_named == [("c.jpg", "in no row of t.csv"), ("d.jpg", "in no row of t.csv")]
    assert manifest.warnings == [
        f"1 row of {table} without image: x.jpg (line 3)",
        f"1 row of {table} repeated",
        f"1 label of {table} without image, and no class: emu",
    ]


def test_a_file_that_cannot_be_reached_fails_in_its_class(flat: Path, tmp_path: Path) -> None:
    shutil.copytree(flat, tmp_path / "x")
    (tmp_path / "x/e.jpg").symlink_to("nowhere")

    manifest = scan_source(
        tmp_path / "x", None, named(write_csv(tmp_path / "t.csv", *SPECIES.items(), ("e.jpg", "emu")))
    )

    assert [(f.class_id, f.name) for f in manifest.failed] == [("emu", "e.jpg")]


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([("a.jpg", "")], r"line 2: the label of a\.jpg is missing"),
        ([("b.jpg", "dog"), ("a.jpg", "nan")], r"line 3: the label of a\.jpg is missing"),
        ([("a.jpg", "1.0"), ("b.jpg", "1")], r"line 2: the label of a\.jpg is 1\.0, and 1 is another"),
        ([("a.jpg", "x" * 256)], r"line 2: .* no name of a class: 256 bytes"),
        ([("a.jpg", "b\udcff")], r"line 2: .* which is no UTF-8"),
        ([("a.jpg", "cat"), ("./a.jpg", "dog")], r"line 3: label of a\.jpg is cat \(line 2\) and dog \(line 3\)"),
        ([("../flat/a.jpg", "cat")], "is not a path below the source"),
    ],
)
def test_a_row_without_one_label_is_named(rows: list[tuple[str, str]], why: str, flat: Path, tmp_path: Path) -> None:
    lines = "".join(f"{file},{label}\n" for file, label in rows)
    (tmp_path / "t.csv").write_bytes(f"file,label\n{lines}".encode(errors="surrogateescape"))

    with pytest.raises(TableDamaged, match=why):
        scan_source(flat, None, named(tmp_path / "t.csv"))


def test_labels_are_ordered_as_folders_are(flat: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "t.csv", *zip(SPECIES, ["10", "9", "1", "9"], strict=True))

    assert scan_source(flat, None, named(table)).class_ids == [1, 9, 10]


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    tree(tmp_path / "x", "cat/a.jpg", "a.jpg", "dog/b.jpg")
    table = write_csv(tmp_path / "t.csv", ("cat/a.jpg", "cat"), ("a.jpg", "cat"))

    with pytest.raises(SourceError, match=r"of class cat would both be called a\.jpg: a\.jpg and cat/a\.jpg"):
        scan_source(tmp_path / "x", None, named(table))


def test_columns_can_be_named_for_a_table_that_is_known(flat: Path, tmp_path: Path) -> None:
    shutil.copytree(flat, tmp_path / "x")
    write_csv(tmp_path / "x/train.csv", ("a.jpg", "0", "cat"), header=("image", "target", "sort"))

    assert scan_source(tmp_path / "x").class_ids == [0]
    assert scan_source(tmp_path / "x", None, Choice(labels=Labels(None, None, "sort"))).class_ids == ["cat"]
    with pytest.raises(SourceError, match=r"no table in it has such columns\. Give --table FILE"):
        scan_source(flat.parent / "folders", None, Choice(labels=Labels(None, None, "sort")))


@pytest.mark.parametrize(
    "paths",
    [
        ["images/a.jpg", "labels.csv"],
        ["images/a.jpg", "images/metadata.jsonl"],
        ["images/a.jpg", "annotations.json"],
        ["images/0/a.jpg", "images/1/b.jpg", "images/metadata.csv", "other/"],
        ["a.jpg", "b.jpg", "train.csv"],
        ["images/a.jpg", "labels/a.txt"],
        ["x/images/a.jpg", "x/images/b.jpg", "x/labels/a.json"],
    ],
)
def test_images_in_one_folder_with_a_table_are_refused(paths: list[str], tmp_path: Path) -> None:
    table = next(path for path in paths if not path.endswith(("jpg", "/")))
    with pytest.raises(SourceError, match=rf"no classes .*, and {table} may hold their labels") as refused:
        scan_source(tree(tmp_path / "x", *paths))
    assert refused.value.exit_code == 66 and "a folder for each class" in refused.value.advice
    assert ("--table" in refused.value.advice) == table.endswith((".csv", ".jsonl"))


def test_the_folder_can_still_be_asked_for_as_a_class(tmp_path: Path) -> None:
    for source in packed(tree(tmp_path / "x", "images/a.jpg", "labels.csv", "images/b.jpg")):
        with pytest.raises(SourceError, match=r"labels\.csv.*if they are one class: --classes images"):
            scan_source(source)
        manifest = scan_source(source, None, Choice(("images",)))
        assert manifest.class_ids == ["images"] and manifest.left_out == {"suffix .csv": 1}


@pytest.mark.parametrize(
    "paths",
    [
        ["cat/a.jpg", "dog/b.jpg", "labels.csv"],
        ["cat/a.jpg", "classes.csv"],
        ["cat/a.jpg", "cat/a.json"],  # of one image
        ["cat/a.jpg", "notes.txt"],
        ["cat/a.jpg", "dog/notes.txt"],
        ["cat/a.jpg", "empty/"],
        ["cat/a.jpg", "cat/sub/a.txt"],
    ],
)
def test_other_files_beside_classes_are_no_tables_of_labels(paths: list[str], tmp_path: Path) -> None:
    source = tree(tmp_path / "x", *paths)
    if "classes.csv" in paths:
        (source / "classes.csv").write_text("id,name\ncat,a cat\n")

    assert scan_source(source).class_ids[0] == "cat"


@pytest.mark.parametrize("table", ["metadata.csv", "train.csv", "classes.csv"])
@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("encrypted", "encrypted"),
        ("lzma", "packed by a zip's method 14"),
        ("checksum", "damaged: its size"),
        ("large", "536870913 bytes; at most 536870912 are read"),
    ],
)
def test_a_table_that_cannot_be_unpacked_is_named(table: str, how: str, why: str, tmp_path: Path) -> None:
    members = {"images/a.jpg": JPEG, "images/b.jpg": JPEG, table: b"file_name,label\na.jpg,cat\n"}
    source = spoiled_zip(tmp_path / "x.zip", members, table, how)

    with pytest.raises(ArchiveDamaged, match=rf"x\.zip/{table}: {why}.*\. Unpack the archive") as refused:
        scan_source(source)
    assert refused.value.exit_code == 65


def test_a_table_that_may_not_be_read_is_not_passed_over(tmp_path: Path, unprivileged: None) -> None:
    source = tree(tmp_path / "x", "cat/a.jpg", "dog/b.jpg", "metadata.csv")
    (source / "metadata.csv").chmod(0)

    with pytest.raises(AccessDenied, match=r"metadata\.csv: permission denied"):
        scan_source(source)


def test_images_beside_a_folder_of_tests_are_refused_in_an_archive_too(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", "a.jpg", "test/b.jpg", "labels.csv")
    for source in (folder, zip_of(folder, tmp_path / "set.zip")):
        with pytest.raises(SourceError, match=r"no classes .*, and labels.csv may hold their labels"):
            scan_source(source)

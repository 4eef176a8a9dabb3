"""Readable names of classes, from classes.csv or ImageNet's synset mapping."""

from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.csv", "id,name\n1,paddle\n2,snake\n3,unused\n"),
        ("classes.csv", "\ufeffname,id\r\npaddle,1\r\n snake , 2 \r\n"),
        ("LOC_synset_mapping.txt", "1 paddle, boat paddle\n2 snake\n"),
    ],
)
def test_readable_names_come_from_a_table_in_the_source(name: str, text: str, photos: Path) -> None:
    (photos / name).write_text(text, encoding="utf-8", newline="")

    manifest = scan_source(photos)

    assert manifest.class_names == ["paddle", "snake"]
    assert manifest.left_out.total() == 0


@pytest.mark.parametrize("data", [b"a,b\n1,2\n", b"", b"id,name\n1,\xff\n"])
def test_a_table_of_names_that_cannot_be_read_is_refused(data: bytes, photos: Path) -> None:
    (photos / "classes.csv").write_bytes(data)

    with pytest.raises(SourceError, match="class names cannot be read"):
        scan_source(photos)


def test_a_class_with_two_names_is_refused(photos: Path) -> None:
    (photos / "classes.csv").write_text("id,name\n1,paddle\n2,snake\n1,boat\n")

    with pytest.raises(SourceError, match=r"classes\.csv: class 1 is called paddle and boat\. Leave one") as refused:
        scan_source(photos)
    assert refused.value.exit_code == 66

    (photos / "classes.csv").write_text("id,name\n1,paddle\n2,snake\n1,paddle\n")
    assert scan_source(photos).class_names == ["paddle", "snake"]


def test_ids_that_name_no_class_folder_are_warned_of(photos: Path) -> None:
    (photos / "classes.csv").write_text("id,name\nn01,paddle\nn02,snake\n")

    manifest = scan_source(photos)

    assert manifest.class_names == ["", ""]
    assert manifest.warnings == ["classes.csv names n01, n02: no class folders"]
    (photos / "classes.csv").write_text("id,name\n1,paddle\n2,snake\n")
    assert scan_source(photos, None, Choice(("1",))).warnings == []  # the other is not asked for


def test_classes_with_the_same_readable_name_are_warned_of(photos: Path) -> None:
    (photos / "LOC_synset_mapping.txt").write_text("1 crane\n2 crane, bird\n")

    assert scan_source(photos).warnings == ["classes 1, 2 are all called crane"]

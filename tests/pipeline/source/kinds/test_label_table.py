"""A table of labels beside images that lie in one folder is refused; beside class folders it is left out."""

from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from tests.support.archives import packed, tree


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

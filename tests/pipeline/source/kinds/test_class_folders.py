"""A folder for each class: where the class folders lie, deeper folders within them, and folders of the system."""

from pathlib import Path

import pytest

from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from tests.support.archives import packed, tree


def images(source: Path, choice: Choice | None = None) -> list[tuple[object, str]]:
    """List class and name of each image."""
    manifest = scan_source(source, None, choice)
    labels = zip(manifest.labels.tolist(), manifest.names, strict=True)
    return [(manifest.class_ids[label], name.decode()) for label, name in labels]


def test_images_in_folders_within_each_class_are_built_with_a_note(tmp_path: Path) -> None:
    for source in packed(tree(tmp_path / "x", "cat/video1/a.jpg", "cat/video2/a.jpg", "dog/video3/a.jpg")):
        assert images(source) == [("cat", "video1/a.jpg"), ("cat", "video2/a.jpg"), ("dog", "video3/a.jpg")]
        assert any("the outer folders are the classes" in warning for warning in scan_source(source).warnings)
    (tmp_path / "x" / "cat" / "a.jpg").touch()
    assert scan_source(tmp_path / "x").warnings == []


def test_a_single_folder_around_class_folders_is_entered(tmp_path: Path) -> None:
    for source in packed(tree(tmp_path / "x", "a/b/cat/1.jpg", "a/b/dog/2.jpg", "a/b/classes.csv")):
        (tmp_path / "x/a/b/classes.csv").write_text("id,name\ncat,a cat\ndog,a dog\n")
        if source.is_dir():
            assert scan_source(source).class_names == ["a cat", "a dog"]
            assert scan_source(source).warnings == ["the classes are the folders in a/b/, which is the only folder"]
            assert Path(scan_source(source).path(1).decode()) == source / "a/b/dog/2.jpg"
        else:
            (tmp_path / "x/a/b/classes.csv").unlink()


def test_a_class_that_is_asked_for_overrules_where_classes_seem_to_lie(tmp_path: Path) -> None:
    for source in packed(tree(tmp_path / "x", "a/cat/1.jpg", "a/dog/2.jpg")):
        assert images(source) == [("cat", "1.jpg"), ("dog", "2.jpg")]
        assert images(source, Choice(("dog",))) == [("dog", "2.jpg")]
    assert images(tmp_path / "x", Choice(("a",))) == [("a", "cat/1.jpg"), ("a", "dog/2.jpg")]


SYSTEM = ["@eaDir", "lost+found", "$RECYCLE.BIN", "$Recycle.Bin", "#recycle", "System Volume Information", "@Recycle"]


@pytest.mark.parametrize("name", SYSTEM)
def test_folders_of_the_system_are_no_classes_and_hold_no_images(name: str, tmp_path: Path) -> None:
    clean = tree(tmp_path / "clean", "cat/img.jpg", "dog/img.jpg")
    junk = [f"{name}/cat/a.jpg", f"cat/{name}/img.jpg/SYNOPHOTO_THUMB_XL.jpg", f"dog/{name}/b.jpg"]
    for source in packed(tree(tmp_path / "x", "cat/img.jpg", "dog/img.jpg", *junk)):
        assert images(source) == images(clean)
        how = f"system folder {name}" if source.is_dir() else f"in a system folder {name}"
        assert scan_source(source).left_out == {how: 3}


def test_formats_that_are_not_read_are_named(tmp_path: Path) -> None:
    paths = [f"cat/{number}.{suffix}" for number, suffix in enumerate(["jp2", "JP2", "jxl", "ppm", "webp", "jpg"])]

    manifest = scan_source(tree(tmp_path / "x", *paths))

    read = "only JPEG, PNG, GIF, BMP, TIFF, WebP, AVIF and HEIC are read"
    assert manifest.warnings == [f"1 JPEG XL file and 2 JPEG 2000 files and 1 PPM file left out; {read}"]
    assert manifest.left_out == {"suffix .jp2": 2, "suffix .jxl": 1, "suffix .ppm": 1}

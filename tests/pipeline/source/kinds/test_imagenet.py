"""ImageNet's validation images, which lie in no class folders, against the same images sorted into some."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.build.build import build_cache
from pipeline.errors import SourceError
from pipeline.format.reader import CacheReader
from pipeline.load.cache import TensorCache
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from tests.support.archives import built, tar_of, zip_of
from tests.support.builds import InThisProcess
from tests.support.command_line import RunCli
from tests.support.photos import make_photos

SYNSETS = {"1": "n03874293", "2": "n01740131"}
TABLE = "LOC_val_solution.csv"


@pytest.fixture(scope="module")
def in_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, each in the folder of its synset, named as ImageNet does."""
    photos = make_photos(tmp_path_factory.mktemp("flat") / "photos")
    for number, image in enumerate(sorted(photos.rglob("*.JPEG"), key=lambda path: path.name)):
        image.rename(image.with_name(f"ILSVRC2012_val_{number:08d}.JPEG"))
    for folder, synset in SYNSETS.items():
        (photos / folder).rename(photos / synset)
    return photos


def flat(in_folders: Path, place: Path) -> Path:
    """Lay all images side by side, and the table above them."""
    place.mkdir(parents=True)
    lines = ["ImageId,PredictionString"]
    for image in in_folders.rglob("*.JPEG"):
        shutil.copy(image, place)
        lines.append(f"{image.stem},{image.parent.name} 85 1 499 272 {image.parent.name} 2 3 4 5 ")
    (place.parent / TABLE).write_text("\n".join(lines))
    return place


def in_kaggles_layout(in_folders: Path, place: Path) -> Path:
    images = flat(in_folders, place / "ILSVRC/Data/CLS-LOC/val")
    (images.parent / TABLE).rename(place / TABLE)
    return images


def within(in_folders: Path, place: Path) -> Path:
    images = flat(in_folders, place / "val")
    (place / TABLE).rename(images / TABLE)
    return images


def of_a_folder_with_the_tar(in_folders: Path, place: Path) -> Path:
    """What was downloaded, and nothing else."""
    tar_of(flat(in_folders, place / "val"), place / "ILSVRC2012_img_val.tar")
    shutil.rmtree(place / "val")
    return place


SOURCES: dict[str, Callable[[Path, Path], Path]] = {
    "the tar": lambda images, place: tar_of(flat(images, place / "val"), place / "ILSVRC2012_img_val.tar"),
    "a folder with the tar": of_a_folder_with_the_tar,
    "a tar with the table": lambda images, place: tar_of(within(images, place / "x"), place / "val.tar"),
    "a zip of all of Kaggle's": lambda images, place: (
        zip_of(in_kaggles_layout(images, place / "x").parents[3], place / "k.zip") / "ILSVRC/Data/CLS-LOC/val"
    ),
    "Kaggle's folder": in_kaggles_layout,
    "a folder beside the table": lambda images, place: flat(images, place / "val"),
    "a folder with the table": within,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_validation_images_are_as_if_each_lay_in_the_folder_of_its_synset(
    kind: str, in_folders: Path, tmp_path: Path
) -> None:
    (tmp_path / "place").mkdir()
    source = SOURCES[kind](in_folders, tmp_path / "place")

    assert built(source, tmp_path / "c.h5") == built(in_folders, tmp_path / "folders.h5")
    assert CacheReader(tmp_path / "c.h5").class_ids == sorted(SYNSETS.values())


@pytest.mark.parametrize("kind", ["the tar", "Kaggle's folder"])
def test_classes_and_images_of_them_can_be_chosen(kind: str, in_folders: Path, tmp_path: Path) -> None:
    (tmp_path / "place").mkdir()
    source = SOURCES[kind](in_folders, tmp_path / "place")
    for number, choice in enumerate(
        [
            Choice(classes=("n01740131",), per_class=2),
            Choice(merged=(("snake", ("n01740131",)), ("all", ("n03874293",))), per_class=3),
        ]
    ):
        flat, folders = (
            built(at, tmp_path / f"{name}{number}.h5", choice) for name, at in (("flat", source), ("by", in_folders))
        )
        assert flat == folders


def test_a_changed_table_moves_images_and_nothing_is_decoded_again(in_folders: Path, tmp_path: Path) -> None:
    source = flat(in_folders, tmp_path / "val")
    build_cache(source, tmp_path / "c.h5", size=16, executor=InThisProcess())
    text = (tmp_path / TABLE).read_text().splitlines()
    image, _, first = text[1].partition(",")
    other = next(synset for synset in SYNSETS.values() if synset != first[:9])
    (tmp_path / TABLE).write_text("\n".join([text[0], f"{image},{other} 1 2 3 4", *text[2:]]))

    report = build_cache(source, tmp_path / "c.h5", size=16, executor=InThisProcess())

    assert report.decoded == 0
    cache = TensorCache(tmp_path / "c.h5")
    assert cache.class_ids[int(cache.labels[cache.filenames.index(image + ".JPEG")])] == other


def test_validation_images_without_their_table_are_refused(in_folders: Path, tmp_path: Path, run_cli: RunCli) -> None:
    tar = SOURCES["the tar"](in_folders, tmp_path)
    (tmp_path / TABLE).unlink()
    for source in (tar, tmp_path / "val"):
        ended = run_cli("build-cache", str(source), "--out", str(tmp_path / "c.h5"))
        assert ended.code == 66 and TABLE in ended.stderr and not (tmp_path / "c.h5").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("id,name\n1,a\n", r"LOC_val_solution\.csv: its first line is not ImageId,PredictionString"),
        ("ImageId,PredictionString\nILSVRC2012_val_00009999,n03874293 1 2 3 4\n", "lists none of its 8 images"),
        ("", "its first line"),
        pytest.param("ImageId,PredictionString\n" + "x" * 140_000, "not a table: field larger", id="a long cell"),
    ],
)
def test_a_table_that_says_nothing_of_the_images_is_refused(
    text: str, words: str, in_folders: Path, tmp_path: Path
) -> None:
    source = flat(in_folders, tmp_path / "val")
    (tmp_path / TABLE).write_text(text)
    with pytest.raises(SourceError, match=words):
        scan_source(source)


def test_images_that_the_table_does_not_list_are_left_out_by_name(in_folders: Path, tmp_path: Path) -> None:
    source = flat(in_folders, tmp_path / "val")
    lines = (tmp_path / TABLE).read_text().splitlines()
    (tmp_path / TABLE).write_text("\n".join([*lines[:-1], lines[-1].partition(",")[0] + ","]))

    manifest = scan_source(source)

    assert manifest.left_out_named == [(lines[-1].partition(",")[0] + ".JPEG", f"not in {TABLE}")]
    assert len(manifest.names) == 7 and manifest.seen == 8


def test_a_class_tar_beside_the_table_is_still_a_class(in_folders: Path, tmp_path: Path) -> None:
    """As in a folder of downloads: its images are not those that the table lists."""
    flat(in_folders, tmp_path / "val")
    photos = make_photos(tmp_path / "photos")
    source = tar_of(photos / "1", tmp_path / "n03874293.tar")

    assert scan_source(source).class_folders == [b"n03874293"]

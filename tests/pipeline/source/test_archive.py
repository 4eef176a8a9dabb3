"""Archives give the cache of the folder they would unpack to: archive, kinds/class_archives, contents."""

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.build.build import build_cache
from pipeline.errors import ArchiveDamaged, SourceError, StorageError
from pipeline.format.reader import CacheReader
from pipeline.inspect.info import check_source
from pipeline.source.reader import Member, read_image
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from tests.support.archives import JPEG, built, jpeg, tar_of, write_tar, zip_of
from tests.support.builds import InThisProcess, note_reads
from tests.support.command_line import RunCli
from tests.support.photos import make_photos, save_jpeg, settle

NAMES = "id,name\n1,paddle\n2,snake\n"


def class_archives(folder: Path, target: Path, make: Callable[[Path, Path], Path] = tar_of) -> Path:
    """Write an archive for each class folder, and the table of names."""
    target.mkdir()
    for place in folder.iterdir():
        if place.is_dir():
            make(place, target / f"{place.name}.{'tar' if make is tar_of else 'zip'}")
        else:
            shutil.copy(place, target)
    return target


@pytest.fixture(scope="module")
def named_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with names of its classes, an empty class, a nested folder and what is no image."""
    folder = make_photos(tmp_path_factory.mktemp("archives") / "photos")
    (folder / "classes.csv").write_text(NAMES)
    (folder / "3").mkdir()
    (folder / "2" / "deep").mkdir()
    shutil.move(folder / "2" / "n01740131_12.JPEG", folder / "2" / "deep")
    (folder / "1" / "broken.jpg").write_bytes(b"no image")
    (folder / "1" / "notes.txt").write_text("text")
    return folder


@pytest.fixture(scope="module")
def expected(named_photos: Path) -> bytes:
    """The cache of the folder."""
    return built(named_photos, named_photos.parent / "photos.h5")


def imagenet(folder: Path, place: Path) -> Path:
    return tar_of(class_archives(folder, place / "inner"), place / "train.tar")


SOURCES: dict[str, Callable[[Path, Path], Path]] = {
    "a tar": lambda folder, place: tar_of(folder, place / "a.tar"),
    "a tar with a folder around": lambda folder, place: tar_of(folder, place / "a.tar", "a/b"),
    "a folder within a tar": lambda folder, place: tar_of(folder, place / "a.tar", "x/train") / "x" / "train",
    "a tar of class tars": imagenet,
    "a tar of a folder of class tars": lambda folder, place: tar_of(
        class_archives(folder, place / "inner"), place / "a.tar", "train"
    ),
    "a folder of class tars": lambda folder, place: class_archives(folder, place / "tars"),
    "a folder of class zips": lambda folder, place: class_archives(folder, place / "zips", zip_of),
    "a deflated zip": lambda folder, place: zip_of(folder, place / "a.zip"),
    "a stored zip": lambda folder, place: zip_of(folder, place / "a.ZIP", "", zipfile.ZIP_STORED),
    "a zip with a folder around": lambda folder, place: zip_of(folder, place / "a.zip", "photos"),
    "a stored zip of class tars": lambda folder, place: zip_of(
        class_archives(folder, place / "inner"), place / "a.zip", "", zipfile.ZIP_STORED
    ),
    "Kaggle's layout in a zip": lambda folder, place: zip_of(folder, place / "a.zip", "ILSVRC/Data/CLS-LOC/train"),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_an_archive_gives_the_cache_of_its_unpacked_folder_to_the_byte(
    kind: str, named_photos: Path, expected: bytes, tmp_path: Path
) -> None:
    source = SOURCES[kind](named_photos, tmp_path)

    assert built(source, tmp_path / "c.h5") == expected
    cache = CacheReader(tmp_path / "c.h5")
    assert (cache.class_ids, cache.class_names) == ([1, 2, 3], ["paddle", "snake", ""])


def test_names_of_classes_are_found_beside_archives_and_atop_kaggles(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    synsets = "1 paddle, boat paddle\n2 snake\n"
    kaggle = tmp_path / "kaggle"
    train = kaggle / "ILSVRC" / "Data" / "CLS-LOC" / "train"
    shutil.copytree(photos, train)
    save_jpeg(train.parent / "val" / "ILSVRC2012_val_1.JPEG", 20, 20, 1)
    (kaggle / "LOC_synset_mapping.txt").write_text(synsets)
    packed = zip_of(kaggle, tmp_path / "kaggle.zip")
    beside = tmp_path / "beside"
    beside.mkdir()
    tar_of(photos, beside / "train.tar")
    (beside / "LOC_synset_mapping.txt").write_text(synsets)

    caches = {
        built(source, tmp_path / f"{number}.h5")
        for number, source in enumerate((kaggle, train, packed, beside / "train.tar"))
    }

    assert len(caches) == 1
    assert CacheReader(tmp_path / "0.h5").class_names == ["paddle", "snake"]


def test_only_the_class_tars_that_are_asked_for_are_opened(named_photos: Path, tmp_path: Path) -> None:
    inner = class_archives(named_photos, tmp_path / "inner")
    (inner / "3.tar").write_bytes(b"no tar")
    source = tar_of(inner, tmp_path / "train.tar")
    choice = Choice(("1", "2"), per_class=3)

    assert built(source, tmp_path / "a.h5", choice) == built(named_photos, tmp_path / "b.h5", choice)
    with pytest.raises(ArchiveDamaged, match=r"train\.tar/3\.tar: it is no tar or zip") as damaged:
        scan_source(source)
    assert damaged.value.exit_code == 65


def test_parts_of_a_source_in_several_archives_are_put_together(tmp_path: Path, shared_photos: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    for number, names in enumerate((("1",), ("2",))):
        part = tmp_path / str(number)
        for name in names:
            shutil.copytree(shared_photos / name, part / name)
        zip_of(part, parts / f"part{number}.zip")

    assert built(parts, tmp_path / "a.h5") == built(shared_photos, tmp_path / "b.h5")


def test_archives_beside_class_folders_are_left_out(shared_photos: Path, tmp_path: Path) -> None:
    photos = shutil.copytree(shared_photos, tmp_path / "photos")
    tar_of(shared_photos, photos / "backup.tar")

    manifest = scan_source(photos)

    assert manifest.class_ids == [1, 2] and manifest.left_out == {"suffix .tar": 1}


# --- reading -----------------------------------------------------------------------------------------------------


def test_a_tar_is_read_once_from_its_beginning_to_its_end(
    named_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for file in sorted(named_photos.rglob("*.JPEG"), key=lambda file: file.stem[::-1]):  # not in the cache's order
            archive.add(file, file.relative_to(named_photos))
    read = note_reads(monkeypatch)

    built(tmp_path / "a.tar", tmp_path / "c.h5")

    offsets = [place.offset for place in read if isinstance(place, Member)]
    assert len(offsets) == 8 and offsets == sorted(set(offsets))


def test_members_of_an_unchanged_archive_are_not_read_again(
    named_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tar_of(named_photos, tmp_path / "a.tar")
    settle(tmp_path)
    before = built(source, tmp_path / "c.h5")
    read = note_reads(monkeypatch)
    fresh = build_cache(source, tmp_path / "c.h5", size=16, executor=InThisProcess())
    assert fresh.up_to_date and not read

    os.utime(source)
    touched = build_cache(source, tmp_path / "c.h5", size=16, executor=InThisProcess())
    assert touched.up_to_date and len(read) == 9

    changed = shutil.copytree(named_photos, tmp_path / "changed")
    save_jpeg(changed / "1" / "n03874293_7.JPEG", 30, 30, 77)
    tar_of(changed, source)
    assert check_source(tmp_path / "c.h5", source) == "class 1: 1 changed"
    report = build_cache(source, tmp_path / "c.h5", size=16, executor=InThisProcess())
    assert (report.decoded, report.copied) == (1, 7)
    assert (tmp_path / "c.h5").read_bytes() == built(changed, tmp_path / "d.h5") != before


class Stopping(InThisProcess):
    """Stops the build after two chunks."""

    def __init__(self) -> None:
        self.chunks = 0

    def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
        self.chunks += 1
        if self.chunks > 2:
            raise KeyboardInterrupt
        return super().submit(function, *arguments, **options)


def test_a_build_that_was_stopped_goes_on_to_the_same_bytes(
    named_photos: Path, expected: bytes, tmp_path: Path
) -> None:
    source = imagenet(named_photos, tmp_path)
    settle(source.parent)
    with pytest.raises(KeyboardInterrupt):
        build_cache(source, tmp_path / "c.h5", size=16, workers=2, executor=Stopping())

    report = build_cache(source, tmp_path / "c.h5", size=16, executor=InThisProcess())

    assert report.kept > 0 and report.kept + report.decoded == 8
    assert (tmp_path / "c.h5").read_bytes() == expected


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_an_archive_that_changes_during_a_build_stops_it(
    how: str, named_photos: Path, expected: bytes, tmp_path: Path
) -> None:
    source = tar_of(named_photos, tmp_path / "a.tar")
    content = source.read_bytes()

    class Changing(InThisProcess):
        def submit(self, function: Any, /, *arguments: Any, **options: Any) -> Any:
            if how == "changed":
                source.write_bytes(content[:20000] + bytes(len(content) - 20000))
            else:
                source.unlink(missing_ok=True)
            return super().submit(function, *arguments, **options)

    with pytest.raises(StorageError, match=r"the archive cannot be read any more: .*a\.tar: ") as stopped:
        build_cache(source, tmp_path / "c.h5", size=16, executor=Changing())
    assert stopped.value.exit_code == 74 and not (tmp_path / "c.h5").exists()
    source.write_bytes(content)

    assert built(source, tmp_path / "c.h5") == expected


# --- what may be in an archive -----------------------------------------------------------------------------------


def test_odd_names_are_only_names_and_nothing_is_written(tmp_path: Path) -> None:
    data = [jpeg(seed) for seed in range(7)]
    (tmp_path / "in").mkdir()
    source = write_tar(
        tmp_path / "in" / "a.tar",
        {
            "./cats/a.jpg": data[0],
            "/dogs//b.jpg": data[1],
            "../../up.jpg": data[2],
            "cats/../../x.jpg": data[2],
            "dogs/new\nline \x1b[31m.jpg": data[3],
            "dogs/\udcff.jpg": data[4],
            f"dogs/{'n' * 300}.jpg": data[5],
            ".hidden/c.jpg": data[6],
            "__MACOSX/cats/a.jpg": data[6],
            "cats/._a.jpg": data[6],
            "above.jpg": data[6],
        },
    )
    before = sorted(tmp_path.rglob("*"))

    manifest = scan_source(source)

    assert manifest.class_folders == [b"cats", b"dogs"]
    long_name = b"n" * 300 + b".jpg"
    assert list(manifest.names) == [b"a.jpg", b"b.jpg", b"new\nline \x1b[31m.jpg", long_name, b"\xff.jpg"]
    assert [read_image(manifest.location(row))[0] for row in range(5)] == [data[0], data[1], data[3], data[5], data[4]]
    assert manifest.left_out == {
        "a name with ..": 2,
        "in a hidden folder": 2,
        "hidden file": 1,
        "outside a class folder": 1,
    }
    assert sorted(tmp_path.rglob("*")) == before


def test_names_with_nul_are_left_out(tmp_path: Path) -> None:
    names = ["é/a.jpg", "é\0N/b.jpg", "é/c\0N.jpg"]
    tar = write_tar(tmp_path / "a.tar", dict.fromkeys(names, JPEG))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name.replace("\0", "@"), JPEG)  # zipfile cuts names
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"@N", b"\0N"))

    for source in (tar, tmp_path / "a.zip"):
        manifest = scan_source(source)
        assert (manifest.class_folders, list(manifest.names)) == (["é".encode()], [b"a.jpg"])
        assert manifest.left_out == {"a name with NUL": 2}


def test_if_a_name_comes_twice_the_last_member_counts(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tar", {"1/a.jpg": b"old", "1/b.jpg": b"b", "./1/a.jpg": b"new"})

    manifest = scan_source(source)

    assert list(manifest.names) == [b"a.jpg", b"b.jpg"]
    assert [read_image(manifest.location(row))[0] for row in range(2)] == [b"new", b"b"]
    assert manifest.left_out == {"replaced by a later member of the same name": 1} and manifest.seen == 3


def test_links_and_devices_in_an_archive_are_left_out_by_name(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "a.jpg").write_bytes(jpeg())
    os.link(tmp_path / "1" / "a.jpg", tmp_path / "1" / "b.jpg")
    (tmp_path / "1" / "c.jpg").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "1" / "d.jpg")
    source = tar_of(tmp_path / "1", tmp_path / "a.tar", "1")

    manifest = scan_source(source)

    assert len(manifest.names) == 1 and manifest.seen == 4
    assert {reason for _, reason in manifest.left_out_named} == {
        "a hard link within the archive",
        "a symbolic link within the archive",
        "a FIFO",
    }


def patched(path: Path, place: int, value: bytes) -> None:
    """Overwrite bytes of a zip: in its only local header at `place`, and in its table of contents behind that."""
    data = bytearray(path.read_bytes())
    table = data.rindex(b"PK\1\2")
    for at in (place, table + place + 2):
        data[at : at + len(value)] = value
    path.write_bytes(data)


def break_header(path: Path) -> None:
    path.write_bytes(b"PK\5\6" + path.read_bytes()[4:])  # as an empty zip begins


def damage_content(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[200] ^= 255
    path.write_bytes(data)


DAMAGES: dict[str, tuple[Callable[[Path], None], str, bool]] = {
    "encrypted": (lambda path: patched(path, 6, b"\1"), "encrypted", False),
    "another method": (lambda path: patched(path, 8, b"\x0c"), "packed by a zip's method 12", False),
    "damaged": (damage_content, "damaged: its size or checksum is not that of the archive", False),
    "larger than declared": (lambda path: patched(path, 22, b"\1\0\0\0"), "damaged: its size or checksum", False),
    "a bomb": (lambda path: patched(path, 22, b"\xff\xff\xff\x7f"), "at most 536870912 are read", True),
    "no local header": (break_header, "damaged: not where", False),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_member_is_named_and_the_cache_stays_fresh(kind: str, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    with zipfile.ZipFile(parts / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1/bad.jpg", jpeg())
    with zipfile.ZipFile(parts / "good.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1/good.jpg", jpeg(1))
    damage, reason, transient = DAMAGES[kind]
    damage(parts / "bad.zip")

    report = build_cache(parts, tmp_path / "c.h5", size=16, executor=InThisProcess())

    assert [(f.class_id, f.name, f.transient) for f in report.failed] == [(1, "bad.jpg", transient)]
    assert reason in report.failed[0].reason and report.cached == 1
    assert build_cache(parts, tmp_path / "c.h5", size=16, executor=InThisProcess()).up_to_date


def test_an_archive_that_is_cut_is_refused(named_photos: Path, tmp_path: Path, run_cli: RunCli) -> None:
    for path in (tar_of(named_photos, tmp_path / "a.tar"), zip_of(named_photos, tmp_path / "a.zip")):
        path.write_bytes(path.read_bytes()[:10_000])
        ended = run_cli("build-cache", path.name)
        assert ended.code == 65 and f"the archive cannot be read: {path.name}: it" in ended.stderr, ended.stderr
        assert "It was not copied whole" in ended.stderr
    assert not (tmp_path / "data").exists()


def test_a_tar_without_the_mark_of_its_end_is_read_with_a_warning(tmp_path: Path) -> None:
    source = write_tar(tmp_path / "a.tar", {"1/a.jpg": bytes(512)})
    source.write_bytes(source.read_bytes()[:1024])

    assert scan_source(source).warnings == [f"{source} has no end mark; it may have been cut off"]


def test_of_concatenated_tars_the_first_is_read_with_a_warning(tmp_path: Path) -> None:
    first, second = (write_tar(tmp_path / f"{name}.tar", {f"{name}/a.jpg": bytes(512)}) for name in "12")
    first.write_bytes(first.read_bytes() + second.read_bytes())

    manifest = scan_source(first)

    assert manifest.class_folders == [b"1"]
    assert manifest.warnings == [
        f"{first} continues after its end mark, where reading a tar stops: is it several archives?"
    ]


def test_an_archive_that_is_compressed_as_a_whole_is_refused_with_advice(named_photos: Path, tmp_path: Path) -> None:
    for form, command in (("gz", "gunzip"), ("bz2", "bunzip2"), ("xz", "unxz")):
        with tarfile.open(tmp_path / f"a.tar.{form}", f"w:{form}") as archive:  # type: ignore[call-overload]
            archive.add(named_photos, "photos")
        with pytest.raises(SourceError, match=rf"compressed as a whole.*{command} -k"):
            scan_source(tmp_path / f"a.tar.{form}")
    inner = tmp_path / "inner"
    inner.mkdir()
    tar_of(named_photos / "1", inner / "1.tar")
    with pytest.raises(SourceError, match=r"a\.zip/1\.tar: it is compressed within the archive"):
        scan_source(zip_of(inner, tmp_path / "a.zip"))


def test_train_and_val_in_an_archive_are_two_sources(tmp_path: Path, shared_photos: Path, run_cli: RunCli) -> None:
    both = tmp_path / "both"
    for part in ("train", "val"):
        shutil.copytree(shared_photos, both / part)
    source = zip_of(both, tmp_path / "photos.zip")

    with pytest.raises(SourceError, match=r"looks like train/ and val/\. Build each: build-cache .*photos\.zip/train"):
        scan_source(source)
    with pytest.raises(SourceError, match=r"photos\.zip/test: there is no such folder in the archive"):
        scan_source(source / "test")
    ended = run_cli("build-cache", source / "val", "--size", "16", "-j", "1", "--dtype", "uint8")
    assert ended.code == 0 and "data/cache/photos-val.h5: 8 images" in ended.stdout, ended.stderr

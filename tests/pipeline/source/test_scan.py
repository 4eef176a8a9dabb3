"""Scanning folders with every trap: scan, folder, collected, manifest, file_names."""

import errno
import os
import socket
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from pipeline.build import worker
from pipeline.build.build import build_cache
from pipeline.decode.decode import decode
from pipeline.errors import AccessDenied, PipelineError, SourceError, StorageError, WorkerDied
from pipeline.load.cache import TensorCache
from pipeline.recipe import Recipe, pixels_to_row
from pipeline.source.reader import read_image
from pipeline.source.scan import scan_source
from tests.support.archives import tar_of
from tests.support.builds import appending_read, files_left
from tests.support.photos import picture

_real_read_image = read_image


def images(root: Path) -> list[tuple[object, str]]:
    manifest = scan_source(root)
    return [
        (manifest.class_ids[label], os.fsdecode(name))
        for label, name in zip(manifest.labels, manifest.names, strict=True)
    ]


# --- 1, 2: nothing to read ---------------------------------------------------------------------------------------


def test_a_source_that_is_not_there_or_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    with pytest.raises(SourceError, match="there is no such folder or archive") as missing:
        scan_source(tmp_path / "missing")
    with pytest.raises(SourceError, match="this is a file, and no tar or zip"):
        scan_source(tmp_path / "file")
    assert missing.value.exit_code == 66 and missing.value.path == tmp_path / "missing"


def test_a_source_without_images_is_refused_with_the_suffixes_looked_for(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "notes.txt").write_text("x")

    with pytest.raises(SourceError, match=r"no files ending in \.jpg, \.jpeg, \.jpe, \.jfif, \.png") as refused:
        scan_source(tmp_path)
    assert refused.value.exit_code == 66

    picture(tmp_path / "a.jpg")
    with pytest.raises(
        SourceError, match=r"images lie directly in it.* or name a table with the label of each: --table FILE"
    ):
        scan_source(tmp_path)


def test_a_source_in_which_nothing_decodes_gives_no_file(tmp_path: Path) -> None:
    (tmp_path / "photos" / "1").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "photos" / "1" / name).write_bytes(b"no JPEG")

    with pytest.raises(SourceError, match=r"none of its files could be decoded \(2 × not an image\)"):
        build_cache(tmp_path / "photos", tmp_path / "c.h5", size=8, workers=1)

    assert {entry.name for entry in tmp_path.iterdir()} <= {"photos", "c.h5.lock"}


# --- 3, 5: classes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "class_ids"),
    [
        (["9", "10", "1"], [1, 9, 10]),
        (["9", "10", "1", "01"], ["01", "1", "10", "9"]),
        (["0", "2"], [0, 2]),
        (["00", "2"], ["00", "2"]),
        (["-1", "2"], ["-1", "2"]),
        (["1.5", "2"], ["1.5", "2"]),
        (["٣", "2"], ["2", "٣"]),  # a digit, but not one of ours
        (["n03874293", "n01740131"], ["n01740131", "n03874293"]),
        (["b", "B", "a"], ["B", "a", "b"]),
    ],
)
def test_class_ids_are_integers_if_all_are_and_strings_in_byte_order_else(
    folders: list[str], class_ids: list[object], tmp_path: Path
) -> None:
    for folder in folders:
        picture(tmp_path / folder / "a.jpg")

    manifest = scan_source(tmp_path)

    assert manifest.class_ids == class_ids
    assert [os.fsdecode(folder) for folder in manifest.class_folders] == list(map(str, class_ids))


def test_an_empty_class_keeps_its_place_and_a_person_is_told(photos: Path, tmp_path: Path) -> None:
    (photos / "0").mkdir()

    report = build_cache(photos, tmp_path / "c.h5", size=8, workers=1)

    assert (report.class_ids, report.counts) == ([0, 1, 2], [0, 4, 4])
    assert report.warnings == ["class 0 is empty; it stays one of the classes"]
    assert TensorCache(tmp_path / "c.h5").labels.tolist() == [1] * 4 + [2] * 4


def test_a_folder_that_holds_our_own_caches_is_no_class(photos: Path) -> None:
    build_cache(photos, photos / "caches" / "c.h5", size=8, workers=1)

    assert scan_source(photos, photos / "caches" / "c.h5").class_ids == [1, 2]
    assert scan_source(photos, photos / "caches" / "d.h5").class_ids == [1, 2]  # whatever cache is being built


# --- 12 to 16: what is no image ----------------------------------------------------------------------------------


def test_suffixes_count_in_any_case_and_the_rest_is_left_out_by_suffix(tmp_path: Path) -> None:
    for name in ("a.JPG", "b.jpeg", "c.Jpe", "d.JFIF", "e.PnG"):
        picture(tmp_path / "1" / name)
    for name in ("f.jxl", "g.JXL", "h.tar.gz", "Thumbs.db", "README", ".DS_Store", "._a.JPG"):
        picture(tmp_path / "1" / name)
    picture(tmp_path / "1" / ".thumbnails" / "a.jpg")
    picture(tmp_path / "__MACOSX" / "1" / "a.jpg")
    picture(tmp_path / "above.jpg")

    manifest = scan_source(tmp_path)

    assert [name for _, name in images(tmp_path)] == ["a.JPG", "b.jpeg", "c.Jpe", "d.JFIF", "e.PnG"]
    assert manifest.left_out == {
        "suffix .jxl": 2,
        "suffix .gz": 1,
        "suffix .db": 1,
        "no suffix": 1,
        "hidden file": 2,
        "hidden folder": 2,
        "outside a class folder": 1,
    }
    assert manifest.left_out_named == [("above.jpg", "outside a class folder")]
    assert manifest.seen == 15


def test_real_folders_are_read_before_links_to_them_whatever_their_names(tmp_path: Path) -> None:
    picture(tmp_path / "2" / "a.jpg")
    picture(tmp_path / "2" / "deep" / "b.jpg")
    (tmp_path / "1").symlink_to("2")
    (tmp_path / "2" / "again").symlink_to("deep")
    (tmp_path / "2" / "deep" / "up").symlink_to("..")

    manifest = scan_source(tmp_path)

    assert images(tmp_path) == [(2, "a.jpg"), (2, "deep/b.jpg")]
    assert manifest.left_out == {"link to a folder that is read already": 3}


def test_links_that_lead_out_of_the_source_are_followed(tmp_path: Path) -> None:
    picture(tmp_path / "elsewhere" / "class" / "a.jpg")
    picture(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "photos" / "1").mkdir(parents=True)
    (tmp_path / "photos" / "1" / "link.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "photos" / "2").symlink_to(tmp_path / "elsewhere" / "class")

    assert images(tmp_path / "photos") == [(1, "link.jpg"), (2, "a.jpg")]


def test_an_unreadable_file_fails_and_an_unreadable_folder_ends_the_build(
    photos: Path, tmp_path: Path, unprivileged: None
) -> None:
    (photos / "1" / "n03874293_7.JPEG").chmod(0)

    report = build_cache(photos, tmp_path / "c.h5", size=8, workers=1)
    assert [(f.class_id, f.name, f.reason, f.transient) for f in report.failed] == [
        (1, "n03874293_7.JPEG", "permission denied", True)
    ]
    assert report.cached == 7

    (photos / "2").chmod(0)
    with pytest.raises(AccessDenied, match=r"a folder cannot be read: .*/photos/2: permission denied") as refused:
        build_cache(photos, tmp_path / "c.h5", size=8, workers=1)
    assert refused.value.exit_code == 77
    (photos / "2").chmod(0o755)


def test_a_class_folder_that_may_be_listed_and_not_entered_ends_the_build(
    photos: Path, tmp_path: Path, unprivileged: None
) -> None:
    (photos / "2").chmod(0o644)
    with pytest.raises(AccessDenied, match=r"a folder cannot be read: .*/photos/2: permission denied"):
        build_cache(photos, tmp_path / "c.h5", size=8, workers=1)
    (photos / "2").chmod(0o755)

    photos.chmod(0o644)
    with pytest.raises(AccessDenied, match=r"a folder cannot be read: .*/photos.*: permission denied"):
        build_cache(photos, tmp_path / "c.h5", size=8, workers=1)
    photos.chmod(0o755)


def test_a_class_that_is_a_link_to_where_one_may_not_look_ends_the_build(
    photos: Path, tmp_path: Path, unprivileged: None
) -> None:
    closed = tmp_path / "closed"
    (closed / "class").mkdir(parents=True)
    (photos / "3").symlink_to(closed / "class")
    closed.chmod(0)

    with pytest.raises(AccessDenied, match=r"a folder cannot be read: .*/photos/3: permission denied"):
        scan_source(photos)
    closed.chmod(0o755)


def test_a_source_is_not_listed_without_file_handles(photos: Path, tmp_path: Path) -> None:
    for source in (photos, tar_of(photos, tmp_path / "a.tar")):
        wanted = rf"{source.name}: Too many open files \(the limit is \d+\)\. Raise the limit"
        with files_left(0), pytest.raises(WorkerDied, match=wanted) as died:
            scan_source(source)
        assert died.value.exit_code == 71


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.EMFILE, WorkerDied),
        (errno.ENFILE, WorkerDied),
        (errno.ENOMEM, WorkerDied),
        (errno.EIO, StorageError),
        (errno.ENOENT, None),
    ],
)
def test_a_class_folder_that_the_system_fails_to_list_ends_the_build(
    number: int, kind: type[PipelineError] | None, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.scandir

    def scandir(path: bytes) -> Any:
        if path.endswith(b"/2"):
            raise OSError(number, os.strerror(number))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    if kind is None:  # it is gone
        assert [(f.class_id, f.reason) for f in scan_source(photos).failed] == [(2, "No such file or directory")]
        return
    with pytest.raises(kind, match=rf"a folder cannot be read: .*/photos/2: {os.strerror(number)}"):
        scan_source(photos)


def test_links_that_lead_nowhere_are_named(photos: Path) -> None:
    (photos / "3").symlink_to("/not mounted/3")
    (photos / "1" / "more").symlink_to("/not mounted/more")

    manifest = scan_source(photos)

    nowhere = "a link that leads nowhere"
    assert manifest.left_out_named == [("1/more", nowhere), ("3", nowhere)]
    assert manifest.left_out == {nowhere: 2} and manifest.class_ids == [1, 2]


def test_classes_that_a_person_cannot_tell_apart_are_pointed_out(photos: Path) -> None:
    for name in (NFC, NFD, "É.jpg"):
        picture(photos / name.removesuffix(".jpg") / "a.jpg", 1)
    (photos / "again").symlink_to("1")

    warnings = scan_source(photos).warnings

    assert warnings[0] == "class again leads to a folder that is read already, in another class or as the source"
    assert warnings[-1] == (
        "classes 'e\\u0301' and '\\xc9' and '\\xe9' differ in how Unicode writes the same letters; they are kept apart"
    )


# --- all of them -------------------------------------------------------------------------------------------------

NFC, NFD = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
NOT_UTF8 = b"\xff\xfe.jpg"
FORGED = "-a\nerror: forged\t\x1b[31m.jpg"


def too_long(folder: Path, name: str) -> str:
    """Write an image whose path the system cannot open; return its path below `folder`."""
    at = os.open(folder, os.O_RDONLY)
    part, parts = "d" * 250, 0
    while len(os.fsencode(folder)) + (parts + 1) * 251 < 4090:
        os.mkdir(part, dir_fd=at)
        inner = os.open(part, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at, parts = inner, parts + 1
    longest = "x" * 251 + name
    os.close(os.open(longest, os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    return "/".join([part] * parts + [longest])


def make_trapped_tree(root: Path) -> str:
    """Write a tree with every trap that a source can hold; return the name of the file with the longest path."""
    picture(root / "1" / "a.jpg", 1)
    picture(root / "1" / "A.JPG", 2)
    picture(root / "9" / "a.jpg", 3)  # the same name in two classes
    picture(root / "10" / NFC, 4)
    picture(root / "10" / NFD, 5)
    picture(root / "01" / "sub" / "deep" / "b.jpeg", 6)
    picture(root / "Cat" / os.fsdecode(NOT_UTF8), 7)
    picture(root / "cat" / FORGED, 8)
    picture(root / "cat" / "-rf.jpg", 9)
    (root / "9" / "copy.jpg").write_bytes((root / "1" / "a.jpg").read_bytes())
    (root / "empty").mkdir()
    for name in (".DS_Store", "Thumbs.db", "._x.jpg", ".hidden.jpg", "notes.txt", "README", "movie.MP4"):
        (root / "1" / name).write_bytes(b"x")
    picture(root / "1" / ".thumbnails" / "t.jpg")
    picture(root / "__MACOSX" / "t.jpg")
    picture(root / ".git" / "t.jpg")
    picture(root / "above.jpg")
    (root / "readme.txt").write_bytes(b"x")
    (root / "9" / "linked.jpg").symlink_to(picture(root.parent / "elsewhere.jpg", 10))
    (root / "9" / "dangling.jpg").symlink_to("nowhere")
    (root / "9" / "self.jpg").symlink_to("self.jpg")
    (root / "9" / "loop").symlink_to("..")
    os.mkfifo(root / "10" / "fifo.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        before = Path.cwd()
        os.chdir(root / "10")  # a socket's path may have 107 characters only
        server.bind("socket.jpg")
        os.chdir(before)
    (root / "10" / "device.jpg").symlink_to("/dev/zero")
    picture(root / "10" / "secret.jpg", 11).chmod(0)
    picture(root / "10" / "changing.jpg", 12)
    picture(root / "10" / "vanishing.jpg", 13)
    for name, data in (("broken.jpg", b"GIF89a"), ("hollow.jpg", b"")):
        (root / "Cat" / name).write_bytes(data)
    (root / "classes.csv").write_text("id,name\n9,nine\nCat,a cat\n")
    return too_long(root / "9", ".jpg")


def test_a_tree_with_every_trap_is_accounted_for_to_the_last_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unprivileged: None
) -> None:
    root = tmp_path / "photos"
    long_name = make_trapped_tree(root)
    in_hidden_folders, linked_folders, tables_of_names = 3, 1, 1
    files = sum(len(names) for _, _, names in os.walk(root)) - in_hidden_folders - tables_of_names

    def vanishing(path: bytes) -> Any:
        if path.endswith(b"vanishing.jpg"):
            Path(os.fsdecode(path)).unlink()
        return _real_read_image(path)

    monkeypatch.setattr(worker, "read_image", vanishing)
    monkeypatch.setattr(os, "read", appending_read(1000))

    report = build_cache(root, tmp_path / "c.h5", size=16, workers=2)

    *summary, last = str(report).splitlines()
    assert summary == [
        "label  class  name   images",
        "    0  01                 1",
        "    1  1                  2",
        "    2  10                 2",
        "    3  9      nine        3",
        "    4  Cat    a cat       1",
        "    5  cat                2",
        "    6  empty              0",
        "left out: 3 × hidden file, 3 × hidden folder, 1 × link to a folder that is read already, 1 × no suffix,"
        " 3 × not a regular file, 1 × outside a class folder, 1 × suffix .db, 1 × suffix .mp4, 2 × suffix .txt",
        "  10/device.jpg: not a regular file",
        "  10/fifo.jpg: not a regular file",
        "  10/socket.jpg: not a regular file",
        "  above.jpg: outside a class folder",
        "failed: 8",
        "  class 10, changing.jpg: changed while reading (the next build tries again)",
        "  class 10, secret.jpg: permission denied (the next build tries again)",
        "  class 10, vanishing.jpg: vanished (the next build tries again)",
        "  class 9, dangling.jpg: a link that leads nowhere (the next build tries again)",
        f"  class 9, {long_name}: File name too long (the next build tries again)",
        "  class 9, self.jpg: Too many levels of symbolic links (the next build tries again)",
        "  class Cat, broken.jpg: truncated",
        "  class Cat, hollow.jpg: not an image",
        "warning: class empty is empty; it stays one of the classes",
        "warning: classes Cat and cat differ only in case; they are kept apart",
        "worth inspecting: 1 group with the same content; info lists them",
    ]
    assert last.startswith(f"{tmp_path / 'c.h5'}: 11 images, ")
    assert report.cached + report.left_out.total() + len(report.failed) == report.seen
    assert report.seen == files + report.left_out["hidden folder"] + linked_folders
    cache = TensorCache(tmp_path / "c.h5")
    assert list(zip([cache.class_ids[label] for label in cache.labels], cache.filenames, strict=True)) == [
        ("01", "sub/deep/b.jpeg"),
        ("1", "A.JPG"),
        ("1", "a.jpg"),
        ("10", NFD),
        ("10", NFC),
        ("9", "a.jpg"),
        ("9", "copy.jpg"),
        ("9", "linked.jpg"),
        ("Cat", os.fsdecode(NOT_UTF8)),
        ("cat", FORGED),
        ("cat", "-rf.jpg"),
    ]
    recipe = Recipe(size=16)
    for name, by_class in cache.items():
        for class_id, tensor in by_class.items():
            data = (root / str(class_id) / name).read_bytes()
            assert tensor.numpy().tobytes() == pixels_to_row(decode(data, recipe).pixels_HWC, recipe).tobytes()

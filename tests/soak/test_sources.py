"""A folder, a tar and a zip of the same random tree have the same manifest, or are refused for the same reason."""

import io
import os
import random
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.source.folder import walk_folder
from pipeline.source.reader import read_image
from pipeline.source.scan import scan_source
from pipeline.source.selection import Choice
from tests.soak.conftest import Count

FOLDERS = [
    *(b"1", b"2", b"10", b"01", b"cat", b"Cat", b"cat, tabby", b"dog=small", b"-rf", b"\xff\xfe", b"new\nline"),
    *("猫".encode(), "é".encode(), "e\u0301".encode(), b"train", b"Val", b"test", b"valid", b"sub", b"images"),
    *(b"@eaDir", b"#recycle", b"$RECYCLE.BIN", b"lost+found", b"System Volume Information", b".git", b"__MACOSX"),
]
IMAGES = [
    *(b"a.jpg", b"A.JPG", b"b.jpeg", b"c.PNG", b"img.0000.jpg", b"img.0001.jpg", b"\xff.jpg", b"-x.jpg", b"._a.jpg"),
    *("ä.jpg".encode(), "a\u0308.jpg".encode(), b"tab\t.jpe", b"ILSVRC2012_val_00000001.JPEG"),
]
OTHERS = [
    *(b"notes.txt", b"a.txt", b"a.json", b"img.0000.cls", b"img.0001.cls", b"a.cls", b"labels.csv", b"x.webp"),
    *(b"classes.csv", b"LOC_synset_mapping.txt", b"README", b".DS_Store", b"metadata.jsonl"),
]
CONTENTS = {
    b"classes.csv": b"id,name\n1,one\n2,two\n",
    b"LOC_synset_mapping.txt": b"1 one, first\n2 two\n",
    b"a.json": b'{"label": "from json"}',
}


def grow(root: Path, choose: random.Random) -> None:
    """Write a tree with folders of the system, splits, odd names and links to files and to folders outside."""
    folders = [root]
    for _ in range(choose.randint(1, 9)):
        folders.append(choose.choice(folders) / os.fsdecode(choose.choice(FOLDERS)))
        folders[-1].mkdir(parents=True, exist_ok=True)
    outside = root.with_name(f"{root.name}.outside")
    (outside / "deep").mkdir(parents=True)
    chosen = [choose.choice(folders[1:]), *choose.choices(folders, k=choose.randint(0, 14))]
    for number, folder in enumerate([*chosen, outside, outside / "deep"]):
        name = choose.choice(IMAGES if number == 0 or choose.random() < 0.7 else OTHERS)
        path, target = folder / os.fsdecode(name), outside / f"{number}"
        linked = choose.random() < 0.2 and not path.is_symlink() and not path.exists()
        (target if linked else path).write_bytes(CONTENTS.get(name, b"%d" % (number % 4)))
        if linked:
            path.symlink_to(target)
    if choose.random() < 0.3:
        (choose.choice(folders) / "linked").symlink_to(outside)


def files(root: Path, choose: random.Random) -> list[tuple[bytes, bytes | None]]:
    """List path and content of everything in a tree, None for a folder; links as what they lead to."""
    found: list[tuple[bytes, bytes | None]] = []
    for folder, inner, names in os.walk(root, followlinks=True):
        below = Path(folder).relative_to(root)
        found += [(os.fsencode(below / name), None) for name in inner]
        found += [(os.fsencode(below / name), (Path(folder) / name).read_bytes()) for name in names]
    choose.shuffle(found)
    return found


def write_tar(root: Path, choose: random.Random) -> Path:
    path = root.with_name(f"{root.name}.tar")
    form = choose.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    with tarfile.open(path, "w", format=form, errors="surrogateescape") as archive:
        for name, content in files(root, choose):
            member = tarfile.TarInfo(choose.choice(["", "./"]) + os.fsdecode(name))
            member.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
            member.size = len(content or b"")
            archive.addfile(member, io.BytesIO(content or b""))
    return path


class RawName(zipfile.ZipInfo):
    """A member whose name is written as these bytes, as Info-ZIP does."""

    raw: bytes

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:
        return self.raw, self.flag_bits


def write_zip(root: Path, choose: random.Random) -> Path:
    path = root.with_name(f"{root.name}.zip")
    with zipfile.ZipFile(path, "w", choose.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive:
        for number, (name, content) in enumerate(files(root, choose)):
            member = RawName(f"{number}")
            member.raw = name + (b"/" if content is None else b"")
            member.create_system = 3
            archive.writestr(member, content or b"")
    return path


def outcome(source: Path, choice: Choice | None) -> tuple[object, ...]:
    """Return everything that reaches the cache, or why the source is refused."""
    try:
        manifest = scan_source(source, None, choice)
    except SourceError as error:
        # files in class folders that nobody asked for are counted in an archive alone
        return error.what, "" if error.what == "no images to read" else error.reason
    columns = manifest.class_ids, manifest.class_folders, manifest.class_names, manifest.labels.tolist()
    contents = [read_image(manifest.location(row))[0] for row in range(len(manifest.names))]
    return (*columns, list(manifest.names), contents)


def choice_of(folders: list[bytes], choose: random.Random) -> Choice:
    """Choose some of the classes, or make one class of them."""
    names = tuple(map(os.fsdecode, choose.sample(folders, choose.randint(1, len(folders)))))
    return Choice(names) if choose.random() < 0.5 else Choice(merged=(("both", names),))


@pytest.mark.parametrize("part", range(4))
def test_a_tree_has_the_same_manifest_however_it_is_packed(part: int, count: Count, workspace: Path) -> None:
    built = 0
    for seed in range(part, count(20_000, 400), 4):
        choose = random.Random(seed)
        root = workspace / str(seed) / "tree"
        root.mkdir(parents=True)
        grow(root, choose)
        tar, zipped = write_tar(root, choose), write_zip(root, choose)
        if walk_folder(os.fsencode(root)).image_folders == {b""}:
            continue  # such an archive is one class, and such a folder is none
        choice, expected = None, outcome(root, None)
        if len(expected) > 2 and choose.random() < 0.5:
            choice = choice_of(scan_source(root).class_folders, choose)
            expected = outcome(root, choice)
        assert outcome(tar, choice) == expected, f"seed {seed}"
        assert outcome(zipped, choice) == expected, f"seed {seed}"
        built += len(expected) > 2
        shutil.rmtree(root.parent)
    assert built > count(20_000, 400) / 40

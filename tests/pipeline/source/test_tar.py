import io
import os
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Literal

import pytest

from pipeline.errors import ArchiveDamaged
from pipeline.source.tar import TarMember, is_tar, tar_members

NAMES = [
    "a.jpg",
    "cats/a.jpg",
    f"{'d' * 120}/{'n' * 90}.jpg",
    f"{'e' * 300}.jpg",
    "é.jpg",
    "new\nline.jpg",
    "\udcff.jpg",
]


def write_tar(path: Path, form: int, names: list[str]) -> dict[str, bytes]:
    """Write a tar of this format; contents of sizes around a block."""
    contents = {name: bytes([65 + number]) * (510 + number) for number, name in enumerate(names)}
    with tarfile.open(path, "w", format=form, errors="surrogateescape") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return contents


def members(path: Path) -> tuple[list[TarMember], str]:
    """List a tar, and say what is odd about its end."""
    found = []
    fd = os.open(path, os.O_RDONLY)
    try:
        walk = tar_members(fd, 0, path.stat().st_size, str(path))
        while True:
            try:
                found.append(next(walk))
            except StopIteration as ended:
                return found, ended.value
    finally:
        os.close(fd)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_member_lies_where_tarfile_finds_it(form: int, tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    names = [name for name in NAMES if form != tarfile.USTAR_FORMAT or len(name) < 255]
    contents = write_tar(path, form, names)
    with tarfile.open(path, errors="surrogateescape") as archive:
        expected = [(os.fsencode(m.name), m.offset_data, m.size, "") for m in archive]

    found, doubt = members(path)

    assert found == expected and not doubt
    data = path.read_bytes()
    assert {os.fsdecode(m.name): data[m.offset : m.offset + m.size] for m in found} == contents


def test_members_without_content_of_their_own_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (
            ("d", tarfile.DIRTYPE),
            ("hard", tarfile.LNKTYPE),
            ("soft", tarfile.SYMTYPE),
            ("fifo", tarfile.FIFOTYPE),
            ("char", tarfile.CHRTYPE),
            ("block", tarfile.BLKTYPE),
            ("odd", b"Z"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "target"
            archive.addfile(member)

    found, _ = members(path)

    assert [(m.name.rstrip(b"/"), m.unlike) for m in found] == [
        (b"d", "folder"),
        (b"hard", "a hard link within the archive"),
        (b"soft", "a symbolic link within the archive"),
        (b"fifo", "a FIFO"),
        (b"char", "a device"),
        (b"block", "a device"),
        (b"odd", "a member of an unknown kind (b'Z')"),
    ]


@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_sparse_members_are_named_and_what_follows_them_is_found(form: str, tmp_path: Path) -> None:
    with (tmp_path / "sparse.jpg").open("wb") as file:
        for place in range(40):  # more pieces than one header names
            file.seek(place * 65536)
            file.write(b"x" * 4096)
    (tmp_path / "after.jpg").write_bytes(b"after")
    command = ["tar", "--sparse", f"--format={form}", "-cf", "a.tar", "sparse.jpg", "after.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)

    found, doubt = members(tmp_path / "a.tar")

    assert not doubt and [m.unlike for m in found] == ["a sparse file within the archive", ""]
    assert (tmp_path / "a.tar").read_bytes()[found[1].offset :][: found[1].size] == b"after"


def test_a_tar_cut_anywhere_is_refused_or_lacks_its_end_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, tarfile.PAX_FORMAT, NAMES)
    data = path.read_bytes()
    whole, _ = members(path)
    end = whole[-1].offset + 1024
    boundaries = {m.offset + (m.size + 511) // 512 * 512 for m in whole}

    for size in set(range(100, end, 100)) - boundaries:
        path.write_bytes(data[:size])
        with pytest.raises(ArchiveDamaged, match="it ends within"):
            members(path)
    path.write_bytes(data[:end])
    assert members(path) == (whole, "has no end mark; it may have been cut off")


def test_a_header_that_is_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, tarfile.GNU_FORMAT, ["a.jpg", "b.jpg"])
    data = path.read_bytes()

    for place in range(1024, 1536, 7):
        path.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        if not 1024 + 148 <= place < 1024 + 156:  # of the checksum itself, some bytes are only spaces
            with pytest.raises(ArchiveDamaged, match="no tar header at byte 1024"):
                members(path)


def test_sizes_beyond_the_archive_are_refused_however_they_are_written(tmp_path: Path) -> None:
    sizes: tuple[tuple[Literal[0, 1, 2], int], ...] = ((0, 8**11 - 1), (1, 2**40), (2, 10**17))  # ustar, GNU, PAX
    for form, size in sizes:
        member = tarfile.TarInfo("a.jpg")
        member.size = size
        (tmp_path / "a.tar").write_bytes(member.tobuf(form) + bytes(2048))
        with pytest.raises(ArchiveDamaged, match=r"it ends within 'a\.jpg'"):
            members(tmp_path / "a.tar")


@pytest.mark.parametrize(
    ("kind", "size", "body"),
    [
        (b"0", -1, b""),
        (b"0", -512, b""),
        (b"L", -512, b""),
        (b"L", 2**40, b""),
        (b"x", 2**21, bytes(2**21)),
        (b"x", 2**20, b"1" * 2**20),
    ],
)
def test_hostile_sizes_are_refused_at_once(kind: bytes, size: int, body: bytes, tmp_path: Path) -> None:
    member = tarfile.TarInfo("a.jpg")
    member.type, member.size = kind, size
    (tmp_path / "a.tar").write_bytes(member.tobuf(tarfile.GNU_FORMAT) + body + tarfile.TarInfo("b").tobuf())

    start = time.monotonic()
    with pytest.raises(ArchiveDamaged, match="no tar header at byte 0"):
        members(tmp_path / "a.tar")
    assert time.monotonic() - start < 5


def test_what_is_no_tar_is_told_from_its_first_block() -> None:
    assert is_tar(bytes(512)) and is_tar(tarfile.TarInfo("a").tobuf())
    assert not is_tar(b"") and not is_tar(bytes(511)) and not is_tar(b"\xff\xd8\xff" + bytes(509))

"""Names in zips are those that unpacking gives; damage of single members is in test_archive."""

import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest

from pipeline.source.scan import scan_source


def with_extra(path: Path, raw: str, extra: bytes) -> Path:
    """Write a zip of one image whose name comes with an extra field."""
    with zipfile.ZipFile(path, "w") as archive:
        info = zipfile.ZipInfo(raw)
        info.extra, info.create_system = extra, 3
        archive.writestr(info, b"\xff\xd8\xff")
    return path


def unicode_path(name: str, raw: bytes, version: int = 1) -> bytes:
    """Return the extra field 0x7075 of Info-ZIP."""
    field = struct.pack("<BI", version, zlib.crc32(raw)) + name.encode()
    return struct.pack("<HH", 0x7075, len(field)) + field


def test_the_unicode_path_of_the_extra_field_is_the_name(tmp_path: Path) -> None:
    before = struct.pack("<HH", 0x5455, 5) + bytes(5)  # a time stamp
    source = with_extra(tmp_path / "a.zip", "cat/Mowe.jpg", before + unicode_path("Katze/Möwe.jpg", b"cat/Mowe.jpg"))

    manifest = scan_source(source)

    assert (manifest.class_ids, list(manifest.names)) == (["Katze"], ["Möwe.jpg".encode()])


@pytest.mark.parametrize(
    "extra",
    [
        unicode_path("dog/b.jpg", b"another name"),  # of a name that was changed since
        unicode_path("dog/b.jpg", b"cat/a.jpg", version=2),
    ],
)
def test_an_extra_field_of_another_name_or_version_is_ignored(extra: bytes, tmp_path: Path) -> None:
    source = with_extra(tmp_path / "a.zip", "cat/a.jpg", extra)

    assert scan_source(source).class_ids == ["cat"]


@pytest.mark.parametrize("names", [["猫/1.jpg", "собака/2.jpg"], ["Möwe/ä.jpg"]])
def test_names_are_those_that_unzip_writes(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"\xff\xd8\xff")
    try:
        subprocess.run(["zip", "-qr", "../a.zip", "."], cwd=tmp_path / "in", check=True)
    except FileNotFoundError:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for name in names:
                archive.write(tmp_path / "in" / name, name)

    manifest = scan_source(tmp_path / "a.zip")

    assert manifest.class_folders == sorted({name.partition("/")[0].encode() for name in names})

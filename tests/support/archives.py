"""Write archives and trees of files, and build caches of them."""

import io
import shutil
import tarfile
import zipfile
from pathlib import Path

from pipeline.build.build import build_cache
from pipeline.source.selection import Choice
from tests.support.builds import InThisProcess
from tests.support.photos import textured

JPEG = b"\xff\xd8\xff"  # begins like one, and is only listed


def tar_of(folder: Path, path: Path, top: str = ".") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        archive.add(folder, top)
    return path


def zip_of(folder: Path, path: Path, top: str = "", method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, Path(top, file.relative_to(folder)))
    return path


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    """Write a tar with such members; a name may come again with another number of "./" in front."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def built(source: Path, out: Path, choice: Choice | None = None) -> bytes:
    build_cache(source, out, size=16, executor=InThisProcess(), choice=choice)
    return out.read_bytes()


def jpeg(seed: int = 0) -> bytes:
    file = io.BytesIO()
    textured(24, 20, seed).save(file, "JPEG")
    return file.getvalue()


def tree(root: Path, *paths: str) -> Path:
    """Write files at these paths, folders where a path ends in "/"."""
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            (root / path).mkdir(exist_ok=True)
        else:
            (root / path).write_bytes(JPEG)
    return root


def packed(root: Path) -> list[Path]:
    """Return a folder, and a tar and a zip of it with a folder around."""
    return [
        root,
        tar_of(root, root.parent / f"{root.name}.tar", root.name),
        Path(shutil.make_archive(str(root), "zip", root.parent, root.name)),
    ]


def spoiled_zip(path: Path, members: dict[str, bytes], name: str, how: str) -> Path:
    """Write a zip of which one member is "encrypted", packed by "lzma", has another "checksum", or is "large"."""
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            lzma = member == name and how == "lzma"
            archive.writestr(member, content, zipfile.ZIP_LZMA if lzma else zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    entry = data.rindex(name.encode()) - 46  # in the table of contents
    if how == "encrypted":
        data[entry + 8] |= 1
    elif how == "checksum":
        data[entry + 16] ^= 1
    elif how == "large":
        data[entry + 24 : entry + 28] = (2**29 + 1).to_bytes(4, "little")
    path.write_bytes(data)
    return path

"""Images with a table of labels beside them, as Hugging Face and Kaggle distribute many sets: refused, with advice.

Such a table is not read yet; the folder that the images lie in is no class. Nor is it in images/ and labels/, as
detectors use them.
"""

from collections.abc import Collection, Iterator

from pipeline.errors import SourceError
from pipeline.source.collected import Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.kinds.class_folders import class_root
from pipeline.source.selection import typed_classes
from pipeline.source.splits import refuse_split_folders
from pipeline.text import show_path


def _fits(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell whether all images lie in one folder, or in none, and a table beside them or above."""
    return wanted is None and not contents.part and bool(_tables(contents))


def _image_folder(contents: Contents) -> bytes | None:
    """Return the only class folder of all images, empty if they lie in none; None if there are several."""
    prefix = class_root(contents, None)
    classes = {folder[len(prefix) :].partition(b"/")[0] for folder in contents.image_folders}
    if len(classes) != 1 or (contents.name and classes == {b""}):
        return None
    return prefix + min(classes)


def _tables(contents: Contents) -> list[bytes]:
    """Return the tables that may hold the labels of all images, in the folder of the images or above it."""
    images = _image_folder(contents)
    if images is None:
        return []
    outer = images.rpartition(b"/")[0]
    beside_images = {b".json"}  # a file of one image each
    tables = sorted(
        path
        for (folder, suffix), path in contents.other_tables.items()
        if folder in (b"", images, outer) and not (folder in contents.image_folders and suffix in beside_images)
    )
    return tables or (_annotations(contents, images + b"/") if images else [])


def _annotations(contents: Contents, images: bytes) -> list[bytes]:
    """Return a file in another folder with the name of an image, as labels/a.txt for images/a.jpg; empty if none."""
    paths = (path for files in contents.sidecars.values() for path in files.paths)
    elsewhere = {_stem(path): path for path in paths if b"/" in path and not path.startswith(images)}
    return [elsewhere[stem] for stem in map(_stem, contents.images.paths) if stem in elsewhere][:1] if elsewhere else []


def _stem(path: bytes) -> bytes:
    return path.rpartition(b"/")[2].rpartition(b".")[0]


def _refuse(contents: Contents, collected: Collected) -> Iterator[Contents]:
    refuse_split_folders(contents, class_root(contents, None))
    table, folder = show_path(_tables(contents)[0]), _image_folder(contents)
    where = f"all images lie in {show_path(folder)}/" if folder else "its images lie in no folder"
    one = f"; if they are one class: {typed_classes([folder.rpartition(b'/')[2]])}" if folder else ""
    raise SourceError(
        "no classes to read",
        contents.where,
        f"{where}, and {table} may hold their labels, which are not read",
        f"Sort the images into a folder for each class{one}",
    )


LABEL_TABLE = Kind("images with a table of labels", _fits, _refuse)

"""A folder of class folders, or an archive of them: the folder of an image is its class."""

from collections.abc import Collection, Iterator

from pipeline.source.collected import OUTSIDE, Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.splits import refuse_split_folders
from pipeline.text import show_path

_NESTED = (
    "every image lies in a folder within its class folder; the outer folders are the classes. "
    "If the inner ones are meant, build one of the outer folders"
)


def _fits(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    return True


def _collect(contents: Contents, collected: Collected) -> Iterator[Contents]:
    prefix = class_root(contents, collected.wanted)
    if prefix and not contents.name:
        collected.warn(f"the classes are the folders in {show_path(prefix)}, which is the only folder")
    collect_below(contents, collected, prefix)
    return iter(())


def class_root(contents: Contents, wanted: Collection[bytes] | None) -> bytes:
    """Return the folder of the class folders, empty or ending in "/".

    It is the outermost one that is not just a single folder around folders, unless that one is asked for.
    """
    prefix = b""
    tops = folders_below(contents, prefix)
    while len(tops) == 1 and contents.image_folders:
        top = min(tops)
        if {prefix[:-1], prefix + top} & contents.image_folders or (wanted is not None and top in wanted):
            break
        prefix += top + b"/"
        tops = folders_below(contents, prefix)
    return prefix


def folders_below(contents: Contents, prefix: bytes) -> set[bytes]:
    """Return the names of the folders that lie directly in a folder, given as "" or "folder/"."""
    names = {folder[len(prefix) :].partition(b"/")[0] for folder in contents.folders if folder.startswith(prefix)}
    return names - {b""}


def collect_below(contents: Contents, collected: Collected, prefix: bytes) -> None:
    """Add the images of the class folders in a folder, given as "" or "folder/".

    Raises:
        SourceError: the folders are training and validation sets, and no classes.
    """
    if collected.wanted is None:
        refuse_split_folders(contents, prefix)
    collected.take_tables(contents, prefix)
    first = collected.take(contents)
    if contents.archive_stat is None:
        collected.prefix = prefix
    start, nested, directly = len(prefix), True, 0
    for row, path in enumerate(contents.images.paths, first):
        if not path.startswith(prefix):
            collected.left_out[f"outside {show_path(prefix)}"] += 1
            continue
        folder, slash, name = path[start:].partition(b"/")
        if slash:
            nested = nested and b"/" in name
            collected.add(folder, name, row)
        else:
            directly += 1
            collected.leave_out(OUTSIDE, path)
    if nested and directly < len(contents.images):
        collected.warn(_NESTED)
    for path, reason in contents.failed:
        folder, slash, name = path[start:].partition(b"/")
        if slash and path.startswith(prefix):
            collected.fail(folder, name, reason)
        else:
            collected.leave_out(reason, path)
    _add_empty_classes(contents, collected, prefix)


def _add_empty_classes(contents: Contents, collected: Collected, prefix: bytes) -> None:
    """Add class folders without images as classes, except those that only hold our caches."""
    caches = {f[len(prefix) :].partition(b"/")[0] for f in contents.cache_folders if f.startswith(prefix)}
    folders = folders_below(contents, prefix) - caches
    if not folders and contents.name and not contents.images:
        folders = {contents.name}
    for folder in folders:
        collected.class_images(folder)


CLASS_FOLDERS = Kind(_fits, _collect)

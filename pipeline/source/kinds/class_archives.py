"""Archives that are classes or parts of a source: a folder or tar of class tars, zips that were split in parts."""

import os
import shlex
from collections.abc import Collection, Iterator

from pipeline.errors import SourceError
from pipeline.source.archive import open_inner_archive
from pipeline.source.collected import OUTSIDE, Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.splits import refuse_split_archives
from pipeline.text import shorten, show_path

_DEEPEST = 2  # archives in an archive


def _is_one_class(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell an archive whose images lie in no folder; in one archive of several, a single one is enough."""
    if not contents.name or not contents.images:
        return False
    return b"" in contents.image_folders and (contents.part or len(contents.image_folders) == 1)


def _collect_one_class(contents: Contents, collected: Collected) -> Iterator[Contents]:
    collected.take_tables(contents, b"")
    first = collected.take(contents)
    for row, path in enumerate(contents.images.paths, first):
        collected.add(contents.name, path, row)
    return iter(())


def _holds_archives(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell a folder or archive in which archives lie, and no images but those beside them."""
    if not contents.archives:
        return False
    return contents.image_folders <= {b""} and not any(b"/" in path for path, _ in contents.failed)


def _collect_archives(contents: Contents, collected: Collected) -> Iterator[Contents]:
    archives = contents.archives.paths
    folders = sorted({path.rpartition(b"/")[0] for path in archives})
    if len(folders) > 1:
        shown = shorten([show_path(folder) or "." for folder in folders], 3)
        within = show_path(os.path.join(os.fsencode(contents.where), folders[-1]))
        why = f"it holds archives in several folders: {shown}"
        raise SourceError("no classes to read", contents.where, why, f"Build each: build-cache {shlex.quote(within)}")
    refuse_split_archives(archives, contents.where, collected.wanted)
    collected.take_tables(contents, folders[0] + b"/" if folders[0] else b"")
    collected.take_left_out(contents)
    for path, reason in [*((path, OUTSIDE) for path in contents.images.paths), *contents.failed]:
        collected.leave_out(reason, path)
    stems = [os.path.splitext(os.path.basename(path))[0] for path in archives]
    unread = _unread(stems, collected.wanted)
    collected.unwanted |= unread
    rows = range(len(stems))
    for row in rows if contents.archive_stat else sorted(rows, key=archives.__getitem__):
        if stems[row] in unread:
            continue
        if contents.depth == _DEEPEST:
            where = f"{contents.where}/{os.fsdecode(archives[row])}"
            raise SourceError("no images to read", where, "an archive too deep within others", "Unpack the outermost")
        with open_inner_archive(contents, row, stems[row]) as inner:
            yield inner


def _unread(stems: Collection[bytes], wanted: Collection[bytes] | None) -> set[bytes]:
    """Return the archives that need not be opened: if each class asked for has its own archive, the others."""
    return set(stems) - set(wanted) if wanted is not None and set(stems) >= set(wanted) else set()


ONE_CLASS = Kind(_is_one_class, _collect_one_class)
CLASS_ARCHIVES = Kind(_holds_archives, _collect_archives)

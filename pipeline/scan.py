"""From a source to its candidates in the cache's order, without opening an image."""

import os
from collections import Counter
from pathlib import Path

import numpy as np

from pipeline.classes import read_class_names
from pipeline.errors import AccessDenied, SourceError, show_path
from pipeline.found import OUTSIDE, Found
from pipeline.sources import SUFFIXES, Scan, class_ids_of, class_order
from pipeline.walk import walk_folder


def scan_folder(root: Path, output: Path | None = None) -> Scan:
    """List the images below `root`, a class a folder, following links but visiting each real folder once.

    Args:
        root: the folder of class folders.
        output: the cache to be built; it and the files beside it are no part of the source.

    Raises:
        SourceError: no such folder, no images, or folders of folders (train/ and val/).
        AccessDenied: a folder that may not be read: a class lost in silence would be worse.
    """
    scan = Scan(root)
    try:
        there = root.exists()
    except PermissionError as error:
        raise AccessDenied("no images to read", root, "permission denied") from error
    except OSError as error:
        raise SourceError("no images to read", root, error.strerror or str(error)) from error
    if not there:
        raise SourceError("no images to read", root, "there is no such folder", "Give a folder of class folders")
    if not root.is_dir():
        raise SourceError("no images to read", root, "this is a file", "Give a folder of class folders")
    found = walk_folder(os.fsencode(root), output)
    scan.left_out, scan.left_out_named, scan.failed = found.left_out, found.left_out_named, found.failed
    _refuse_nothing(root, found)
    _refuse_folders_of_folders(root, found)
    scan.class_folders = class_order(list(found.files))
    scan.class_ids = class_ids_of(scan.class_folders)
    read_class_names(scan)
    _warn_of_classes(scan, found)
    _fill_columns(scan, found)
    return scan


def _refuse_nothing(root: Path, found: Found) -> None:
    if any(files.names for files in found.files.values()) or found.failed:
        return
    why = f"no files ending in {', '.join(s.decode() for s in SUFFIXES)} in its class folders"
    if any(reason == OUTSIDE for _, reason in found.left_out_named):
        why += "; images lie directly in it"
    raise SourceError("no images to read", root, why, "Put the images of each class into a folder of its own")


_SPLITS = {b"train", b"training", b"val", b"valid", b"validation", b"test", b"testing"}


def _refuse_folders_of_folders(root: Path, found: Found) -> None:
    names = [name for files in found.files.values() for name in files.names]
    nested = [b"/" in name for name in names]
    splits = {folder.lower() for folder in found.files} <= _SPLITS  # where a stray image does not make it a class
    if any(nested) and (all(nested) or splits):
        inside = sorted(folder for folder, files in found.files.items() if files.names)
        shown = " and ".join(show_path(folder) + "/" for folder in inside[:3])
        raise SourceError(
            "no classes to read",
            root,
            f"its folders hold only folders of images: it looks like {shown}"
            if {b"train", b"val"} & set(inside)
            else f"its folders ({shown}) hold only folders of images; it looks like train/ and val/",
            f"Build each: build-cache {show_path(os.path.join(os.fsencode(root), inside[0]))}",
        )


def _warn_of_classes(scan: Scan, found: Found) -> None:
    for folder in scan.class_folders:
        if not found.files[folder].names:
            scan.warnings.append(f"class {show_path(folder)} is empty; it keeps its place among the classes")
    alike = Counter(os.fsdecode(folder).casefold() for folder in scan.class_folders)
    for name in sorted(name for name, count in alike.items() if count > 1):
        same = [show_path(f) for f in scan.class_folders if os.fsdecode(f).casefold() == name]
        scan.warnings.append(f"classes {' and '.join(same)} differ only in case; they are kept apart")


def _fill_columns(scan: Scan, found: Found) -> None:
    counts = []
    stats = []
    for folder in scan.class_folders:
        names, folder_stats = found.files.pop(folder).sorted()
        counts.append(len(names))
        scan.names += names
        stats.append(folder_stats)
    scan.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    scan.stats = np.concatenate(stats) if stats else scan.stats
    ids = {os.fsdecode(f): class_id for f, class_id in zip(scan.class_folders, scan.class_ids, strict=True)}
    scan.failed = [f._replace(class_id=ids.get(str(f.class_id), f.class_id)) for f in scan.failed]

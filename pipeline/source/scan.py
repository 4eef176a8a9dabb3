"""From a source to its candidates in the cache's order, without opening an image."""

import os
import stat
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

from pipeline.errors import AccessDenied, SourceError
from pipeline.format.classes import class_ids_of, class_order
from pipeline.source.archive import find_in_archives
from pipeline.source.class_names import class_names
from pipeline.source.collected import NAME_FILES, OUTSIDE, SOLUTION, Found, not_an_image_name
from pipeline.source.folder import walk_folder
from pipeline.source.label_table import is_validation, settle_flat
from pipeline.source.layouts import KAGGLE
from pipeline.source.manifest import SUFFIXES, Manifest
from pipeline.source.selection import Choice, choose, merge_classes, refuse_missing
from pipeline.source.splits import all_are_splits
from pipeline.text import show_path


def scan_source(source: Path, output: Path | None = None, choice: Choice | None = None) -> Manifest:
    """List the images of a source, a class a folder; of an archive, as if it had been unpacked.

    Args:
        source: a folder of class folders; a tar or zip, a folder of them, or a folder within one (photos.zip/train).
        output: the cache to be built; it and the files beside it are no part of the source.
        choice: of classes and images; None for all.

    Raises:
        SourceError: no such source, no images or not the classes asked for, or folders of folders (train/ and val/).
        ArchiveDamaged: an archive that is not whole.
        AccessDenied: a folder that may not be read: a class lost in silence would be worse.
        StorageError: the disk failed.
    """
    choice = choice or Choice()
    root, inside = _find(source)
    if root.is_dir():
        found, root = _find_in_folder(root, output, choice)
    else:
        found = find_in_archives([os.fsencode(root)], inside, choice.folders)
        _look_for_tables(found, root.parent)
    flat = settle_flat(found, choice.folders, source)
    refuse_missing(found, choice, source)
    _refuse_nothing(source, found)
    if not found.labelled:
        _refuse_folders_of_folders(source, found)
    merge_classes(found, choice)
    manifest = Manifest(root, flat=flat, archives=found.archives)
    manifest.left_out, manifest.left_out_named, manifest.failed = found.left_out, found.left_out_named, found.failed
    manifest.class_folders = class_order(list(found.files))
    manifest.class_ids = class_ids_of(manifest.class_folders)
    manifest.class_names = class_names(found.tables, manifest.class_folders)
    manifest.class_paths = [b"" if os.fsdecode(f) in dict(choice.merged) else f for f in manifest.class_folders]
    manifest.warnings = found.warnings
    _count(manifest.left_out, "class not asked for", len(found.unwanted))
    _warn_of_classes(manifest, found)
    _fill_columns(manifest, found, choice)
    return manifest


def _find(source: Path) -> tuple[Path, bytes]:
    """Return the folder or archive that a source is or lies in, and the folder within the archive."""
    what, advice = "no images to read", "Give a folder of class folders, or a tar or zip of them"
    inside: list[str] = []
    for place in (source, *source.parents):
        try:
            found = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            inside.insert(0, place.name)
            continue
        except PermissionError as error:
            raise AccessDenied(what, source, "permission denied") from error
        except OSError as error:
            raise SourceError(what, source, error.strerror or str(error)) from error
        if stat.S_ISDIR(found.st_mode) and inside:
            break
        if not stat.S_ISDIR(found.st_mode) and not stat.S_ISREG(found.st_mode):
            raise SourceError(what, source, "it is neither a folder nor a regular file", advice)
        return place, os.fsencode("/".join(inside))
    raise SourceError(what, source, "there is no such folder or archive", advice)


def _find_in_folder(root: Path, output: Path | None, choice: Choice) -> tuple[Found, Path]:
    """Walk a folder; where it has no images in folders, look into the archives in it."""
    folder = root / os.fsdecode(KAGGLE)
    folder = folder if os.path.isdir(folder) else root
    found = walk_folder(os.fsencode(folder), output, choice.folders)
    if _holds_only_archives(found):
        walked, found = found, find_in_archives(sorted(found.nearby), wanted=choice.folders, part=True)
        found.tables |= walked.tables
        found.left_out += walked.left_out
        found.left_out_named += walked.left_out_named
        for name in walked.flat.names:
            found.leave_out(OUTSIDE, name)
    else:
        for path in found.nearby:
            found.left_out[not_an_image_name(os.path.basename(path))] += 1
    if folder != root:
        _look_for_tables(found, root)
    whole = folder.absolute()
    if whole.parts[-4:-1] == Path(os.fsdecode(KAGGLE)).parts[:-1]:
        _look_for_tables(found, whole.parents[3])
    if any(map(is_validation, found.flat.names)):
        _look_for_tables(found, whole.parent)
    return found, folder


def _holds_only_archives(found: Found) -> bool:
    if found.failed or not found.nearby or any(map(is_validation, found.flat.names)):
        return False
    return not any(files.names for files in found.files.values())


def _look_for_tables(found: Found, folder: Path) -> None:
    """Take the tables that lie around a source which has none of their kind."""
    for kind in (NAME_FILES, (SOLUTION,)):
        if not any(name in found.tables for name in kind):
            paths = {name: os.path.join(os.fsencode(folder), name) for name in kind}
            found.tables |= {name: path for name, path in paths.items() if os.path.isfile(path)}


def _refuse_nothing(root: Path, found: Found) -> None:
    if any(files.names for files in found.files.values()) or found.failed:
        return
    why = f"no files ending in {', '.join(s.decode() for s in SUFFIXES)} in its class folders"
    if any(reason == OUTSIDE for _, reason in found.left_out_named):
        why += "; images lie directly in it"
    raise SourceError("no images to read", root, why, "Put the images of each class into a folder of its own")


def _refuse_folders_of_folders(root: Path, found: Found) -> None:
    nested = [b"/" in name for files in found.files.values() for name in files.names]
    splits = all_are_splits(found.files)  # where a stray image does not make it a class
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


def _warn_of_classes(manifest: Manifest, found: Found) -> None:
    for folder in manifest.class_folders:
        if not found.files[folder].names:
            manifest.warnings.append(f"class {show_path(folder)} is empty; it keeps its place among the classes")
    written = {folder: unicodedata.normalize("NFC", os.fsdecode(folder)) for folder in manifest.class_folders}
    alike = Counter(map(str.casefold, written.values()))
    for name in sorted(name for name, count in alike.items() if count > 1):
        same = [folder for folder in manifest.class_folders if written[folder].casefold() == name]
        if len({written[folder] for folder in same}) == len(same):
            shown, how = [show_path(folder) for folder in same], "only in case"
        else:
            shown, how = [ascii(os.fsdecode(folder)) for folder in same], "in how Unicode writes the same letters"
        manifest.warnings.append(f"classes {' and '.join(shown)} differ {how}; they are kept apart")


def _fill_columns(manifest: Manifest, found: Found, choice: Choice) -> None:
    counts = []
    stats, members = [], []
    for folder in manifest.class_folders:
        files = found.files.pop(folder)
        order = files.in_order()
        _count(manifest.left_out, "replaced by a later member of the same name", len(files.names) - len(order))
        chosen = order
        if choice.per_class is not None:
            chosen = order[choose(folder, files.names.take(order), choice.per_class)]
        _count(manifest.left_out, f"not among the {choice.per_class} chosen of its class", len(order) - len(chosen))
        counts.append(len(chosen))
        manifest.names.extend(map(files.names.__getitem__, chosen.tolist()))
        class_stats, class_members = files.columns(chosen)
        stats.append(class_stats)
        members.append(class_members)
    manifest.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    manifest.stats = np.concatenate(stats) if stats else manifest.stats
    manifest.members = np.concatenate(members) if members else manifest.members
    ids = {os.fsdecode(f): class_id for f, class_id in zip(manifest.class_folders, manifest.class_ids, strict=True)}
    manifest.failed = [f._replace(class_id=ids.get(str(f.class_id), f.class_id)) for f in manifest.failed]


def _count(left_out: Counter[str], reason: str, count: int) -> None:
    if count:
        left_out[reason] += count

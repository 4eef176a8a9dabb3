"""From a source to the manifest of its images in the cache's order, without opening an image."""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import numpy as np

from pipeline.decode.formats import NAMES
from pipeline.errors import SourceError, source_errors
from pipeline.format.classes import class_ids_of, class_order
from pipeline.source.archive import open_archive
from pipeline.source.class_names import class_names
from pipeline.source.collected import OUTSIDE, Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.file_names import SUFFIXES, other_formats
from pipeline.source.folder import walk_folder
from pipeline.source.kinds.class_archives import CLASS_ARCHIVES, ONE_CLASS
from pipeline.source.kinds.class_folders import CLASS_FOLDERS
from pipeline.source.kinds.imagenet import KAGGLE, VALIDATION, class_folders_in
from pipeline.source.kinds.label_table import LABEL_TABLE, LABELLED_IMAGES, NAMED_TABLE
from pipeline.source.kinds.parquet_images import PARQUET_IMAGES, collect_files, parquet_files
from pipeline.source.kinds.webdataset import CAPTIONED_SAMPLES, LABELLED_SAMPLES
from pipeline.source.manifest import Manifest
from pipeline.source.selection import Choice, choose, merge_classes, refuse_missing
from pipeline.source.tables.labels import Labels
from pipeline.text import show_path

KINDS = (
    LABELLED_SAMPLES,
    CAPTIONED_SAMPLES,
    KAGGLE,
    VALIDATION,
    PARQUET_IMAGES,
    LABELLED_IMAGES,
    LABEL_TABLE,
    ONE_CLASS,
    CLASS_ARCHIVES,
    CLASS_FOLDERS,
)  # the first kind that fits is used; the last one fits everything

_NO_IMAGES = "no images to read"


def scan_source(source: Path, output: Path | None = None, choice: Choice | None = None) -> Manifest:
    """List the images of a source, each with its class; of an archive, as if it had been unpacked.

    Args:
        source: a folder of class folders; a tar or zip, a folder of them, or a folder within one (photos.zip/train).
        output: the cache to be built; it and the files beside it do not belong to the source.
        choice: of classes and images; None for all.

    Raises:
        SourceError: no such source, no images, not the classes asked for, or nothing tells what the classes are.
        ArchiveDamaged: an archive that is not whole.
        AccessDenied: a folder that may not be read: a class lost in silence would be worse.
        WorkerDied, StorageError: the system has no file handles left, or the disk failed.
    """
    choice = choice or Choice()
    collected = Collected(choice.folders)
    root = _collect_all(source, output, collected, choice.labels)
    refuse_missing(collected, choice, source)
    _refuse_nothing(source, collected)
    _refuse_unused(source, choice.labels, collected)
    merge_classes(collected, choice)
    return _manifest(root, collected, choice)


def _collect_all(source: Path, output: Path | None, collected: Collected, labels: Labels) -> Path:
    """List a source; return the folder that paths of its images start from, or the archive."""
    if files := parquet_files(source):
        collect_files(files, collected, labels)
        return source if source.exists() else source.parent
    root, inside = _find(source)
    if root.is_dir():
        root, collected.around = (root, []) if labels.table else class_folders_in(root)
        wanted = None if labels.table else collected.wanted  # labels need not be folders
        contents = walk_folder(os.fsencode(root), output, wanted)
        contents.labels = labels
        _collect(contents, collected)
        return root / os.fsdecode(collected.prefix)
    collected.around = [os.fsencode(root.parent)]
    with open_archive(os.fsencode(root), inside, os.fsencode(root.stem)) as contents:
        contents.labels = labels
        _collect(contents, collected)
    return root


def _find(source: Path) -> tuple[Path, bytes]:
    """Return the folder or archive that a source is or lies in, and the folder within the archive."""
    advice = "Give a folder of class folders, or a tar or zip of them"
    inside: list[str] = []
    for path in (source, *source.parents):
        with source_errors(_NO_IMAGES, source):
            try:
                mode = path.stat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                inside.insert(0, path.name)
                continue
        if stat.S_ISDIR(mode) and inside:
            break
        if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            raise SourceError(_NO_IMAGES, source, "it is neither a folder nor a regular file", advice)
        return path, os.fsencode("/".join(inside))
    raise SourceError(_NO_IMAGES, source, "there is no such folder or archive", advice)


def _collect(contents: Contents, collected: Collected) -> None:
    """Sort the images of a folder or archive, and of the archives in it, into classes."""
    for inner in kind_of(contents, collected.wanted).collect(contents, collected):
        _collect(inner, collected)


def kind_of(contents: Contents, wanted: Collection[bytes] | None) -> Kind:
    """Return the first kind that fits; class folders, if a class asked for is directly in the source."""
    if contents.labels.table is not None:
        return NAMED_TABLE
    if wanted is not None and not contents.part and not contents.folders.isdisjoint(wanted):
        return CLASS_FOLDERS
    return next(kind for kind in KINDS if kind.fits(contents, wanted))


def _refuse_unused(source: Path, labels: Labels, collected: Collected) -> None:
    """Refuse names of columns where the classes are in no table."""
    if (labels.label_column or labels.file_column) and not collected.uses_labels:
        why = "its classes are folders, and no table in it has such columns"
        raise SourceError("no table of labels", source, why, "Give --table FILE")


def _refuse_nothing(source: Path, collected: Collected) -> None:
    if collected.failed or any(images.rows for images in collected.files.values()):
        return
    why = f"no files ending in {', '.join(s.decode() for s in SUFFIXES)} in its class folders"
    advice = "Put the images of each class into a folder of its own"
    if others := other_formats(collected.left_out):
        why += f", but {_counted(others)}"
        advice = f"Convert them: only {NAMES} are read"
    if any(reason == OUTSIDE for _, reason in collected.left_out_named):
        why += "; images lie directly in it"
        advice += ", or name a table with the label of each: --table FILE"
    raise SourceError(_NO_IMAGES, source, why, advice)


def _counted(formats: dict[str, int]) -> str:
    """Return "3 WebP files and 1 BMP file"."""
    return " and ".join(f"{count} {name} file{'s' if count > 1 else ''}" for name, count in formats.items())


def _manifest(root: Path, collected: Collected, choice: Choice) -> Manifest:
    """Put the images in order, and take those that were chosen of each class."""
    manifest = Manifest(root, archives=collected.archives)
    manifest.left_out, manifest.failed = collected.left_out, collected.failed
    manifest.left_out_named = sorted(collected.left_out_named)
    manifest.class_folders = class_order(list(collected.files))
    manifest.class_ids = class_ids_of(manifest.class_folders)
    manifest.class_names = class_names(collected, manifest.class_folders)
    merged = {os.fsencode(name) for name, _ in choice.merged}
    manifest.class_paths = [b"" if folder in merged else folder for folder in manifest.class_folders]
    manifest.warnings = collected.warnings
    _count(manifest.left_out, "class not asked for", len(collected.unwanted))
    _warn_of_classes(manifest, collected)
    if others := other_formats(manifest.left_out):
        manifest.warnings.append(f"{_counted(others)} left out; only {NAMES} are read")
    _fill_columns(manifest, collected, choice)
    return manifest


def _warn_of_classes(manifest: Manifest, collected: Collected) -> None:
    for folder in manifest.class_folders:
        if not collected.files[folder].rows:
            manifest.warnings.append(f"class {show_path(folder)} is empty; it stays one of the classes")
    written = {folder: unicodedata.normalize("NFC", os.fsdecode(folder)) for folder in manifest.class_folders}
    alike = Counter(map(str.casefold, written.values()))
    for name in sorted(name for name, count in alike.items() if count > 1):
        same = [folder for folder in manifest.class_folders if written[folder].casefold() == name]
        if len({written[folder] for folder in same}) == len(same):
            shown, how = [show_path(folder) for folder in same], "only in case"
        else:
            shown, how = [ascii(os.fsdecode(folder)) for folder in same], "in how Unicode writes the same letters"
        manifest.warnings.append(f"classes {' and '.join(shown)} differ {how}; they are kept apart")


def _fill_columns(manifest: Manifest, collected: Collected, choice: Choice) -> None:
    counts: list[int] = []
    rows = [np.empty(0, np.int64)]
    for folder in manifest.class_folders:
        images = collected.files.pop(folder)
        chosen = order = images.in_order()
        _count(manifest.left_out, "replaced by a later member of the same name", len(images.rows) - len(order))
        if choice.per_class is not None:
            chosen = order[choose(folder, images.names.take(order), choice.per_class)]
        _count(manifest.left_out, f"not among the {choice.per_class} chosen of its class", len(order) - len(chosen))
        counts.append(len(chosen))
        manifest.names.extend(map(images.names.__getitem__, chosen.tolist()))
        rows.append(np.frombuffer(images.rows, np.int64)[chosen])
    manifest.labels = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    all_rows = np.concatenate(rows)
    manifest.stats, manifest.members = collected.columns(all_rows)
    if collected.paths:
        manifest.paths = collected.paths.take(all_rows)
    ids = {os.fsdecode(f): class_id for f, class_id in zip(manifest.class_folders, manifest.class_ids, strict=True)}
    manifest.failed = [f._replace(class_id=ids.get(str(f.class_id), f.class_id)) for f in manifest.failed]


def _count(left_out: Counter[str], reason: str, count: int) -> None:
    if count:
        left_out[reason] += count

"""ImageNet as Kaggle distributes it, and its validation images, whose classes are in a table.

With the table they are as if each lay in the folder of its synset.
"""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.errors import SourceError
from pipeline.source.class_names import read_rows
from pipeline.source.collected import OUTSIDE, Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.file_names import SOLUTION
from pipeline.source.kinds.class_folders import collect_below
from pipeline.source.reader import Location

_CLASSES = b"ILSVRC/Data/CLS-LOC/train"  # the folder of the class folders
_VALIDATION = re.compile(rb"ILSVRC20\d\d_val_\d{8}\.JPE?G", re.IGNORECASE)
_COLUMNS = "ImageId", "PredictionString"


def class_folders_in(root: Path) -> tuple[Path, list[bytes]]:
    """Return the folder in which the class folders of a source lie, and where tables lie besides.

    For Kaggle's ImageNet, or a folder deep within it, tables lie at its top.
    """
    inner = root / os.fsdecode(_CLASSES)
    if os.path.isdir(inner):  # False also for an unreadable folder; walking it reports the error
        return inner, [os.fsencode(root)]
    whole = root.absolute()
    within = Path(os.fsdecode(_CLASSES)).parts[:-1]
    return root, [os.fsencode(whole.parents[3])] if whole.parts[-4:-1] == within else []


def _is_kaggles(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    return any((folder + b"/").startswith(_CLASSES + b"/") for folder in contents.image_folders)


def _collect_kaggles(contents: Contents, collected: Collected) -> Iterator[Contents]:
    collect_below(contents, collected, _CLASSES + b"/")
    return iter(())


def _is_validation(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell ImageNet's validation images by their names, ILSVRC2012_val_00000001.JPEG, in no folder."""
    return contents.image_folders == {b""} and any(map(_VALIDATION.fullmatch, contents.images.paths))


def _collect_validation(contents: Contents, collected: Collected) -> Iterator[Contents]:
    if contents.archive_stat is None:
        collected.around.append(os.path.dirname(os.path.abspath(contents.root)))
        collected.paths.extend(contents.images.paths)
    collected.take_tables(contents, b"")
    synsets = _read_solution(collected.solution(), contents.where)
    images = contents.images.paths
    if not any(_image_id(name) in synsets for name in images):
        why = f"{os.fsdecode(SOLUTION)} lists none of its {len(images)} images"
        raise SourceError("no classes to read", contents.where, why, "Take the table of the same images")
    first = collected.take(contents)
    for row, name in enumerate(images, first):
        if folder := synsets.get(_image_id(name)):
            collected.add(folder, name, row)
        else:
            collected.leave_out(f"not in {os.fsdecode(SOLUTION)}", name)
    for path, reason in contents.failed:
        collected.leave_out(reason if b"/" not in path else OUTSIDE, path)
    return iter(())


def _image_id(name: bytes) -> bytes:
    return name.rpartition(b".")[0]


def _read_solution(location: Location | None, where: str) -> dict[bytes, bytes]:
    """Return the synset of each image by its name without suffix: the first word of a solution's prediction.

    Raises:
        SourceError: there is no such table.
        Whatever `read_rows` raises.
    """
    if location is None:
        raise SourceError(
            "no classes to read",
            where,
            f"ImageNet's validation images lie in no class folders; {os.fsdecode(SOLUTION)} says what they are",
            "Put that table of Kaggle's ImageNet beside it, or put each image into the folder of its synset",
        )
    rows = read_rows(SOLUTION, location, "classes cannot be read", _COLUMNS)
    words = ((image, prediction.split()) for image, prediction in rows)
    return {os.fsencode(image): os.fsencode(predicted[0]) for image, predicted in words if predicted}


KAGGLE = Kind(_is_kaggles, _collect_kaggles)
VALIDATION = Kind(_is_validation, _collect_validation)

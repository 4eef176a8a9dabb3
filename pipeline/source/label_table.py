"""Images that lie in no class folder: as ImageNet's validation images do, whose classes stand in a table.

With it they are as if each lay in the folder of its synset.
"""

import csv
import io
import os
import re
from collections.abc import Collection

from pipeline.errors import SourceError
from pipeline.source.class_names import table_text
from pipeline.source.collected import OUTSIDE, SOLUTION, Files, Found
from pipeline.source.reader import Location

_VALIDATION = re.compile(rb"ILSVRC20\d\d_val_\d{8}\.JPE?G", re.IGNORECASE)
_COLUMNS = ["ImageId", "PredictionString"]


def is_validation(name: bytes) -> bool:
    """Tell a validation image of ImageNet by its name: ILSVRC2012_val_00000001.JPEG."""
    return _VALIDATION.fullmatch(name) is not None


def settle_flat(found: Found, wanted: Collection[bytes] | None, where: "str | os.PathLike[str]") -> bool:
    """Give each image of `found.flat` its class, or leave it out.

    Args:
        found: with all tables that lie around the source.
        wanted: the classes to look for; None for all.
        where: the source.

    Returns:
        Whether a table says what the classes are, and no folders.

    Raises:
        SourceError: they are ImageNet's validation images, and there is no table, or it cannot be read.
    """
    flat, found.flat = found.flat, Files()
    by_table = not any(files.names for files in found.files.values()) and any(map(is_validation, flat.names))
    synsets = _read_solution(found.tables.get(SOLUTION), where) if by_table else {}
    if by_table and not any(_image_id(name) in synsets for name in flat.names):
        why = f"{os.fsdecode(SOLUTION)} lists none of its {len(flat.names)} images"
        raise SourceError("no classes to read", where, why, "Take the table of the same images")
    for number, name in enumerate(flat.names):
        folder = synsets.get(_image_id(name)) if by_table else found.flat_class
        if folder is None:
            found.leave_out(f"not in {os.fsdecode(SOLUTION)}" if by_table else OUTSIDE, name)
        elif wanted is not None and folder not in wanted:
            found.unwanted.add(folder)
        else:
            found.files.setdefault(folder, Files()).take_over(flat, number)
    found.left_out_named.sort()
    return by_table


def _image_id(name: bytes) -> bytes:
    return name.rpartition(b".")[0]


def _read_solution(place: Location | None, where: "str | os.PathLike[str]") -> dict[bytes, bytes]:
    """Return the synset of each image by its name without suffix: the first word of what a solution predicts."""
    if place is None:
        raise SourceError(
            "no classes to read",
            where,
            f"ImageNet's validation images lie in no class folders; {os.fsdecode(SOLUTION)} says what they are",
            "Put that table, of Kaggle's ImageNet, beside it, or each image into the folder of its synset",
        )
    text = table_text(place, "utf-8-sig")
    rows = csv.DictReader(io.StringIO(text, newline=""))
    if (rows.fieldnames or [])[:2] != _COLUMNS:
        name = os.fsdecode(place if isinstance(place, bytes) else place.archive)
        raise SourceError(
            "classes cannot be read", name, f"the first line of {SOLUTION.decode()} is not {','.join(_COLUMNS)}"
        )
    words = ((row["ImageId"], (row["PredictionString"] or "").split()) for row in rows)
    return {os.fsencode(image): os.fsencode(predicted[0]) for image, predicted in words if predicted}

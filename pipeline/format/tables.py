"""Write and read the tables of a cache: names, failures and notes as columns of bytes."""

import json
import os
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.format.classes import ClassId
from pipeline.format.duplicates import exact_groups, near_pairs


class Failed(NamedTuple):
    """A file that should have given an image and did not.

    A `transient` failure (unreadable, changed meanwhile) may not come again, so the next build tries the file again;
    any other follows from the file's bytes. `source_sha256` is hexadecimal, empty where nothing could be read.
    `format` is that of the file, empty where its bytes are of none: another decoder of this format tries it again.
    """

    class_id: ClassId
    name: str
    reason: str
    transient: bool
    source_sha256: str = ""
    format: str = ""


def sort_failures(failed: Iterable[Failed], class_ids: Sequence[ClassId]) -> list[Failed]:
    """Sort failures as rows are sorted: by class in the order of the labels, then by the bytes of the name.

    Failures in folders that are no classes come last.
    """
    labels = {class_id: label for label, class_id in enumerate(class_ids)}
    return sorted(failed, key=lambda f: (labels.get(f.class_id, len(labels)), os.fsencode(f.name)))


_EARLIER_KEY = "passing"  # what `transient` was called in an earlier state of format 1


def read_failure(entry: bytes) -> Failed:
    """Read an entry of the table of failures, as `failed_table` or an earlier version wrote it.

    Raises:
        ValueError, TypeError: it is no such entry.
    """
    values = json.loads(entry)
    if _EARLIER_KEY in values and "transient" not in values:
        values["transient"] = values.pop(_EARLIER_KEY)
    return Failed(**values)


def byte_table(values: Sequence[bytes]) -> NDArray[np.bytes_]:
    """Return (len(values),) fixed-length bytes, as wide as the longest, at least 1."""
    return np.array(values, f"S{max([1, *map(len, values)])}")


def failed_table(failed: Sequence[Failed]) -> NDArray[np.bytes_]:
    """Return failures as JSON, one an entry."""
    return _json_table([f._asdict() for f in failed])


def earlier_failed_table(failed: Sequence[Failed]) -> NDArray[np.bytes_]:
    """Return failures as the state of format 1 before this one stored them: without their format."""
    return _json_table([{key: value for key, value in f._asdict().items() if key != "format"} for f in failed])


def note_table(notes: Sequence[tuple[int, str]]) -> NDArray[np.bytes_]:
    """Return (row, remark) as JSON, one an entry."""
    return _json_table([{"row": row, "remark": note} for row, note in notes])


def _json_table(entries: Sequence[dict[str, Any]]) -> NDArray[np.bytes_]:
    return byte_table([json.dumps(entry, separators=(",", ":")).encode() for entry in entries])


def blank_images(notes: Iterable[tuple[int, str]], count: int) -> NDArray[np.bool_]:
    """Return (count,) bool, the images of nearly one color by the notes of a cache: they all look alike."""
    blank = np.zeros(count, bool)
    blank[[row for row, note in notes if note.startswith("blank")]] = True
    return blank


def near_rows(
    image_hash: NDArray[np.uint64], source_sha256: NDArray[np.uint8], blank: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Find the pairs of rows that nearly look alike. Of files with the same content only the first counts.

    Args:
        image_hash: (N,) uint64.
        source_sha256: (N, 32) uint8.
        blank: (N,) bool, images that all look alike.

    Returns:
        (A, 2) int64.
    """
    skip = blank.copy()
    for group in exact_groups(source_sha256):
        skip[group[1:]] = True
    return np.array(near_pairs(image_hash, skip), "<i8").reshape(-1, 2)

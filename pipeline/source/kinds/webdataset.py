"""WebDataset shards: the class of an image is in a file beside it, `key.cls` or the "label" of `key.json`."""

import json
import os
import re
from collections.abc import Collection, Iterator

from pipeline.errors import ArchiveDamaged, SourceError
from pipeline.source.collected import Collected, Kind
from pipeline.source.contents import Contents
from pipeline.source.file_names import hidden_folder
from pipeline.source.reader import read_side_file
from pipeline.source.tables.labels import LONGEST_LABEL
from pipeline.text import show_path

_LONGEST_FILE = 1 << 16  # bytes that are read of a file with a label
_CAPTIONS = (b".json", b".txt")
_SHARD_FOLDER = re.compile(rb"|(.*/)?\d{5,}", re.DOTALL)


def _key(name: bytes) -> bytes:
    """Return the key of a sample: the path up to the first dot of the file's name."""
    folder, slash, base = name.rpartition(b"/")
    return folder + slash + base.partition(b".")[0]


def _stem(name: bytes) -> bytes:
    """Return a path without its suffix."""
    return name.rpartition(b".")[0]


class _Samples:
    """Which images and label files belong to one sample.

    It is the WebDataset rule: the same name up to the first dot. If that gives a sample several labels, as in
    `img.0000.jpg`, `img.0000.cls`, `img.0001.cls`, the whole stems have to pair.
    """

    def __init__(self, labels: Collection[bytes]) -> None:
        self.label_of_key: dict[bytes, bytes] = {}
        self.ambiguous: set[bytes] = set()
        self.stems = {_stem(name) for name in labels}
        for name in labels:
            if self.label_of_key.setdefault(_key(name), name) != name:
                self.ambiguous.add(_key(name))

    def key(self, name: bytes) -> bytes:
        """Return the sample that a file belongs to."""
        return _stem(name) if _key(name) in self.ambiguous else _key(name)

    def refuse_ambiguous(self, images: Collection[bytes], where: str) -> None:
        """Refuse an image of a sample with several labels if none of them has its stem.

        Raises:
            SourceError: names the image and a label that may not be its own.
        """
        for image in images:
            if _key(image) in self.ambiguous and _stem(image) not in self.stems:
                label = show_path(self.label_of_key[_key(image)])
                why = f"{label} is one of several labels that may belong to {show_path(image)}"
                advice = "A sample's files share the name up to the first dot: rename img.0000.jpg to img_0000.jpg"
                raise SourceError("no classes to read", where, why, f"{advice}, and its label alike")


def _label_files(contents: Contents) -> bytes:
    """Return the suffix of the files that may hold labels; empty where there are none."""
    if contents.sidecars[b".cls"]:
        return b".cls"
    if contents.sidecars[b".json"] and contents.image_folders == {b""}:
        return b".json"  # where images lie in folders, these are their classes
    return b""


def _read_label(contents: Contents, suffix: bytes, row: int) -> bytes:
    """Return the class that a file names; empty where it names none."""
    where = f"{contents.where}/{os.fsdecode(contents.sidecars[suffix].paths[row])}"
    try:
        data = read_side_file(contents.location(contents.sidecars[suffix], row), "a label cannot be read", where)
    except ArchiveDamaged:  # of one image
        return b""
    if suffix == b".json":
        data = _label_in_json(data)
    label_text = data[:_LONGEST_FILE].strip()
    fits = 0 < len(label_text) <= LONGEST_LABEL and not set(label_text) & set(b"/\0\n")
    return label_text if fits and not hidden_folder(label_text) else b""


def _label_in_json(data: bytes) -> bytes:
    try:
        value = json.loads(data[:_LONGEST_FILE])
        label = value.get("label") if isinstance(value, dict) else None
        return str(label).encode() if isinstance(label, int | str) and not isinstance(label, bool) else b""
    except (ValueError, RecursionError):  # no JSON, or half of a surrogate pair
        return b""


def _fits(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell whether the first label file beside an image names a class."""
    suffix = _label_files(contents)
    if not suffix or not contents.images:
        return False
    keys = set(map(_key, contents.images.paths))
    paths = contents.sidecars[suffix].paths
    beside = (row for row, path in enumerate(paths) if _key(path) in keys)
    if suffix == b".json":
        first = next(beside, None)
        return first is not None and _read_label(contents, suffix, first) != b""
    return any(_read_label(contents, suffix, row) for row in beside)


def _collect(contents: Contents, collected: Collected) -> Iterator[Contents]:
    suffix = _label_files(contents)
    names = contents.sidecars[suffix].paths
    samples = _Samples(sorted(set(names)))
    samples.refuse_ambiguous(contents.images.paths, contents.where)
    labels = {samples.key(name): _read_label(contents, suffix, row) for row, name in enumerate(names)}
    collected.take_tables(contents, b"")
    first = collected.take(contents, suffix)
    below = contents.name + b"/" if contents.part else b""  # every shard may count from 0
    plain = {samples.key(image) for image in contents.images.paths if _stem(image) == samples.key(image)}
    for row, image in enumerate(contents.images.paths, first):
        key = samples.key(image)
        if _stem(image) != key and key in plain:
            collected.leave_out("of a sample that has another image", below + image)  # 7.mask.png beside 7.jpg
        elif label := labels.get(key, b""):
            collected.add(label, below + image, row)
        else:
            collected.leave_out("no class beside it (.cls)", below + image)
    for path, reason in contents.failed:
        collected.leave_out(reason, path)
    if contents.archive_stat is None:
        collected.paths.extend(contents.images.paths)
    return iter(())


def _has_captions(contents: Contents, wanted: Collection[bytes] | None) -> bool:
    """Tell shards as img2dataset writes them: beside most images lie a text and a JSON file, and no label.

    A shard is an archive, or a folder whose name is a number: 00000.
    """
    if wanted is not None and contents.name in wanted:
        return False
    if not contents.images or not all(map(_SHARD_FOLDER.fullmatch, contents.image_folders)):
        return False
    beside = [set(map(_stem, contents.sidecars[suffix].paths)) for suffix in _CAPTIONS]
    captioned = sum(all(_stem(image) in stems for stems in beside) for image in contents.images.paths)
    return 2 * captioned > len(contents.images)


def _refuse_captions(contents: Contents, collected: Collected) -> Iterator[Contents]:
    raise SourceError(
        "no classes to read",
        contents.where,
        "its images have captions (.txt, .json) and no classes, and the number of a shard is no class",
        "Write the class of each image into a file beside it, key.cls, or sort the images into a folder for each class",
    )


LABELLED_SAMPLES = Kind(_fits, _collect)
CAPTIONED_SAMPLES = Kind(_has_captions, _refuse_captions)

"""Hold a build's data on every image in columns, and turn them into the tables of the cache."""

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.build.journal import Entry
from pipeline.build.worker import Result
from pipeline.decode.decode import decoder_identity, read_kind
from pipeline.decode.faults import Undecodable
from pipeline.decode.formats import FORMATS
from pipeline.format.tables import Failed, byte_table, failed_table, near_rows, note_table, sort_failures
from pipeline.recipe import Recipe
from pipeline.source.manifest import Manifest
from pipeline.source.reader import Damaged, Stat, read_image

TODO, DONE, FAILED, TRANSIENT = 0, 1, 2, 3
_FORMAT_BYTES = max(len(form.name) for form in FORMATS)


class ImageTable:
    """Columns over the M images of a manifest. An image is given as its position in the manifest, 0..M-1.

    Attributes:
        state: (M,) uint8, TODO, DONE, FAILED (follows from the bytes) or TRANSIENT (may not come again).
        source_sha256: (M, 32) uint8, zero where not known.
        source_size: (M, 2) int32, height and width of the image file; zero where not known.
        source_format: (M,) fixed-length bytes, the format of the image file; empty where there is none.
        row_hash, image_hash: (M,) uint64.
        stats: (M, 4) int64, the column of the manifest; a row is updated when its file is read.
        notes, reasons: by image, where there are any.
        boxes: by image that was decoded with fit "pad", the part of its row that is no pad: top, left, height, width.
    """

    def __init__(self, manifest: Manifest) -> None:
        count = len(manifest.names)
        self.manifest = manifest
        self.state = np.zeros(count, np.uint8)
        self.source_sha256 = np.zeros((count, 32), np.uint8)
        self.source_size = np.zeros((count, 2), np.int32)
        self.source_format = np.zeros(count, f"S{_FORMAT_BYTES}")
        self.row_hash = np.zeros(count, np.uint64)
        self.image_hash = np.zeros(count, np.uint64)
        self.stats = manifest.stats
        self.notes: dict[int, tuple[str, ...]] = {}
        self.reasons: dict[int, str] = {}
        self.boxes: dict[int, tuple[int, ...]] = {}

    def know(self, image: int, sha256: bytes, found: Stat | None = None) -> None:
        """Note the content of a file."""
        if sha256 != self.source_sha256[image].tobytes():  # unwritten memory stays shared with workers
            self.source_sha256[image] = np.frombuffer(sha256, np.uint8)
        if found and found != tuple(self.stats[image].tolist()):
            self.stats[image] = found

    def know_source(self, image: int, form: str, size: tuple[int, int]) -> None:
        """Note format and size of a file."""
        self.source_format[image] = form.encode()
        self.source_size[image] = size

    def read_source(self, image: int, recipe: Recipe) -> None:
        """Note format and size of a file whose row an earlier version decoded; where it cannot, have it decoded."""
        try:
            data, _ = read_image(self.manifest.location(image))
            if hashlib.sha256(data).digest() == self.known_sha256(image):
                self.know_source(image, *read_kind(data, recipe))
                return
        except (Undecodable, Damaged, OSError, MemoryError):  # the worker that decodes it will say why
            pass
        self.state[image] = TODO

    def take_over(self, image: int, failure: Failed) -> None:
        """Note a failure that an old cache has stored."""
        self.state[image] = TRANSIENT if failure.transient else FAILED
        self.reasons[image] = failure.reason
        self.know_source(image, failure.format, (0, 0))

    def known_sha256(self, image: int) -> bytes:
        """Return a file's SHA-256, empty where it is not known."""
        digest = self.source_sha256[image]
        return digest.tobytes() if digest.any() else b""

    def record(self, image: int, result: Result) -> None:
        """Note a worker's result for an image."""
        if result.source_sha256:
            self.know(image, result.source_sha256, result.stat)
        self.state[image] = {"failed": FAILED, "transient": TRANSIENT}.get(result.how, DONE)
        self.row_hash[image] = result.row_hash
        self.image_hash[image] = result.image_hash
        self.know_source(image, result.format, result.source_size)
        self._set(self.notes, image, result.notes)
        self._set(self.reasons, image, result.reason)
        self._set(self.boxes, image, result.box)

    def restore(self, image: int, entry: Entry) -> None:
        """Note a journal's entry for an image; the caller sets `state`."""
        self.know(image, entry.source_sha256)
        self.row_hash[image] = entry.row_hash
        self.image_hash[image] = entry.image_hash
        self.know_source(image, entry.format, entry.source_size)
        self._set(self.notes, image, entry.notes)
        self._set(self.reasons, image, entry.reason)
        self._set(self.boxes, image, entry.box)

    def entry(self, image: int) -> Entry:
        """Return the journal's entry for an image."""
        height, width = self.source_size[image].tolist()
        form = self.source_format[image].decode()
        return Entry(
            folder=self.manifest.class_folders[self.manifest.labels[image]],
            name=self.manifest.names[image],
            source_sha256=self.source_sha256[image].tobytes(),
            stat=Stat(*self.stats[image].tolist()),
            row_hash=int(self.row_hash[image]),
            image_hash=int(self.image_hash[image]),
            notes=self.notes.get(image, ()),
            reason=self.reasons.get(image, ""),
            format=form,
            source_size=(height, width),
            decoder=decoder_identity(form) if form else "",
            box=self.boxes.get(image, ()),
        )

    def failed(self) -> list[Failed]:
        """List every file that gives no image, by class and name, as manifest and workers found it."""
        found = [
            Failed(
                self.manifest.class_ids[self.manifest.labels[image]],
                os.fsdecode(self.manifest.names[image]),
                self.reasons[image],
                bool(self.state[image] == TRANSIENT),
                self.known_sha256(image).hex(),
                self.source_format[image].decode(),
            )
            for image in np.flatnonzero(self.state >= FAILED).tolist()
        ]
        return sort_failures(self.manifest.failed + found, self.manifest.class_ids)

    def decoder(self) -> dict[str, str]:
        """Return the identity of the decoder of every format that a row or a failure has."""
        names = [name.decode() for name in np.unique(self.source_format[self.state != TODO]).tolist() if name]
        return {name: decoder_identity(name) for name in names}

    def tables(self) -> dict[str, NDArray[Any]]:
        """Return the tables of the finished cache: of the images that became rows, in order."""
        done = self.state == DONE
        rows: Any = slice(None) if done.all() else np.flatnonzero(done)  # a slice copies no column
        places = np.cumsum(done) - 1
        notes = [
            (int(places[image]), note)
            for image in sorted(self.notes)
            if self.state[image] == DONE
            for note in self.notes[image]
        ]
        blank = np.zeros(len(done), bool)
        blank[[c for c, found in self.notes.items() if any(r.startswith("blank") for r in found)]] = True
        tables = {
            "filenames": (self.manifest.names if done.all() else self.manifest.names.take(rows)).table(),
            "labels": self.manifest.labels[rows].astype("<i8"),
            "classes": byte_table(self.manifest.class_folders),
            "class_names": byte_table([name.encode() for name in self.manifest.class_names]),
            "row_hash": self.row_hash[rows].astype("<u8", copy=False),
            "source_sha256": self.source_sha256[rows],
            "source_size": self.source_size[rows].astype("<i4", copy=False),
            "source_format": byte_table(self.source_format[rows].tolist()),
            "image_hash": self.image_hash[rows].astype("<u8", copy=False),
            "failed": failed_table(self.failed()),
            "remarks": note_table(notes),
        }
        tables["alike"] = near_rows(tables["image_hash"], tables["source_sha256"], blank[rows])
        return tables

    @staticmethod
    def _set(column: dict[int, Any], image: int, value: Any) -> None:
        if value:
            column[image] = value
        else:
            column.pop(image, None)

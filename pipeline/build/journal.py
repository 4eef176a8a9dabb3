"""Keep a journal of a build: a line for each finished image, with a checksum of its own.

The journal says which hash a row must have, never where the row lies. A resumed build looks for the hash among the
rows in the file, and decodes the images whose hash is missing. So nothing depends on the order of writes.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from pipeline.decode.decode import decoder_identity
from pipeline.source.reader import Stat
from pipeline.system import files


class Entry(NamedTuple):
    """The result for one image: a row, or a failure that follows from its bytes (`reason`).

    It counts only with the same `decoder` of its format. Earlier versions did not write the last four.
    """

    folder: bytes
    name: bytes
    source_sha256: bytes
    stat: Stat
    row_hash: int = 0
    image_hash: int = 0
    notes: tuple[str, ...] = ()
    reason: str = ""
    format: str = ""
    source_size: tuple[int, int] = (0, 0)
    decoder: str = ""
    box: tuple[int, ...] = ()


class Journal:
    """A journal that entries are appended to; its first line describes the build."""

    def __init__(self, path: Path) -> None:
        self.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        files.append_all(self.fd, b"\n")  # ends a half-written line of a killed build

    @staticmethod
    def start(path: Path, build: dict[str, Any]) -> None:
        """Create the journal of the build that `build` describes."""
        files.publish(_line(build), path)

    def add(self, entries: list[Entry]) -> None:
        """Append entries, in one write."""
        files.append_all(self.fd, b"".join(_line(_plain(entry)) for entry in entries))

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)


def begun_build(path: Path) -> dict[str, Any]:
    """Return the description of the build that a journal belongs to; empty where there is no such journal."""
    try:
        return next(_good_lines(path), {})
    except FileNotFoundError:
        return {}


def read_journal(path: Path) -> Iterator[Entry]:
    """Yield the entries of a journal, oldest first; a later one of the same image replaces an earlier one.

    Torn or damaged lines are skipped; their images are done again.
    """
    lines = _good_lines(path)
    next(lines, None)
    for line in lines:
        with suppress(KeyError, TypeError, ValueError):  # a checksum detects accidents, not deliberate changes
            yield _entry(line)


def is_of_this_decoder(entry: Entry, begun: dict[str, Any]) -> bool:
    """Tell whether this installation would have the same result for an entry of the build `begun`."""
    if "decoder" in begun and not entry.format:  # an earlier version's; it read fewer formats, so failures say nothing
        return not entry.reason
    return not entry.format or entry.decoder == decoder_identity(entry.format)


def _line(values: dict[str, Any]) -> bytes:
    text = json.dumps(values, separators=(",", ":")).encode("ascii")
    return f"{xxhash.xxh3_64_hexdigest(text)} ".encode() + text + b"\n"


def _good_lines(path: Path) -> Iterator[dict[str, Any]]:
    with os.fdopen(files.open_for_reading(path), "rb") as file:
        for line in file:
            checksum, _, text = line.rstrip(b"\n").partition(b" ")
            if checksum == xxhash.xxh3_64_hexdigest(text).encode():
                yield json.loads(text)


def _plain(entry: Entry) -> dict[str, Any]:
    values = entry._asdict()
    return values | {
        "remarks": values.pop("notes"),
        "folder": os.fsdecode(entry.folder),
        "name": os.fsdecode(entry.name),
        "source_sha256": entry.source_sha256.hex(),
    }


def _entry(values: dict[str, Any]) -> Entry:
    notes = tuple(values.pop("remarks"))
    return Entry(
        **values
        | {
            "folder": os.fsencode(values["folder"]),
            "name": os.fsencode(values["name"]),
            "source_sha256": bytes.fromhex(values["source_sha256"]),
            "stat": Stat(*values["stat"]),
            "notes": notes,
            "source_size": tuple(values.get("source_size", (0, 0))),
            "box": tuple(values.get("box", ())),
        }
    )

"""Text that people read: paths, sizes, columns, shortened lists."""

import os
from collections.abc import Iterator, Sequence

SHOWN = 10  # names a list shows before it only counts


def _listed(what: str, entries: Sequence[str], shown: int = SHOWN) -> Iterator[str]:
    if entries:
        yield f"{what}: {len(entries)}"
        yield from (f"  {entry}" for entry in entries[:shown])
        if len(entries) > shown:
            yield f"  and {len(entries) - shown} more (info --json shows all)"


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def _rate(images: int, seconds: float) -> str:
    if not images or not seconds:
        return ""
    rate = images / seconds
    return f", {rate:.{0 if rate >= 1 else 2}f} images/s"


def show_path(path: "str | bytes | os.PathLike[str]") -> str:
    """Return a path as text, by repr where a character could forge a line of output (control, surrogate)."""
    text = os.fsdecode(path)
    return text if text.isprintable() else repr(text)


def show_bytes(count: int) -> str:
    """Return a size as text: "12.3 GB"."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"

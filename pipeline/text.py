"""Text that people read and type: paths, sizes, rates, columns, shortened lists."""

import csv
import html
import os
import re
import sys
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

MAX_SIZE = 4096  # pixels of a side
MOST_LINES = 40  # of a text in a notebook
SHOWN = 10  # entries that a list shows before it counts the others
SCRIPT = "modelnet"  # that an installation makes; a clone has cli.py


class ShownAsText:
    """Shows its text in a notebook, escaped: names in it can be anything. Of a long text the first lines."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(os.linesep.join(first_lines(str(self).splitlines(), MOST_LINES)))}</pre>"


def show_path(path: "str | bytes | os.PathLike[str]") -> str:
    """Return a path as text, by repr where a character could forge a line of output (control, surrogate)."""
    return printable(os.fsdecode(path))


def printable(text: str) -> str:
    """Return a text as it is, or its repr where it holds a control character or a surrogate."""
    return text if text.isprintable() else repr(text)


class _Lines(list[str]):
    """A file of lines that end in LF, for a writer that ends them in CRLF: only such a one quotes a lone CR."""

    def write(self, line: str) -> None:
        self.append(f"{line[:-2]}\n")


def csv_text(rows: Iterable[Iterable[Any]]) -> str:
    """Return rows as CSV, a line each; cells with a comma, a quote or a line break are in quotes."""
    lines = _Lines()
    csv.writer(lines, lineterminator="\r\n").writerows(rows)
    return "".join(lines)


def show_bytes(count: int) -> str:
    """Return a size as text: "12.3 GB"."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"


def show_rate(images: int, seconds: float) -> str:
    """Return a rate as the end of a sentence: ", 123 images/s"; empty where nothing was done or timed."""
    if not images or not seconds:
        return ""
    rate = images / seconds
    return f", {rate:.{0 if rate >= 1 else 2}f} images/s"


def show_minutes(seconds: float) -> str:
    """Return a duration, rounded to minutes: "2 h 10 min"."""
    hours, minutes = divmod(max(1, round(seconds / 60)), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"


def counted(count: int, noun: str, many: str = "") -> str:
    """Return a number with its noun: "1 image", "1,200 images", "2 classes" where `many` says so."""
    return f"{count:,} {noun if count == 1 else many or f'{noun}s'}"


def show_age(seconds: float) -> str:
    """Return an age in its largest unit: "3 days"."""
    for unit, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if count := int(seconds // unit):
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "just now"


def shorten(entries: Sequence[str], shown: int = SHOWN, count: int | None = None) -> str:
    """Join the first entries with commas, and count the others: "a, b and 3 more"; `count` is that of all."""
    rest = (len(entries) if count is None else count) - shown
    return ", ".join(entries[:shown]) + (f" and {rest} more" if rest > 0 else "")


def first_lines(entries: Sequence[str], shown: int = SHOWN, where: str = "") -> Iterator[str]:
    """Yield the first entries, then the number of the others: "and 3 more", with `where` to find them."""
    yield from entries[:shown]
    if len(entries) > shown:
        yield f"and {len(entries) - shown} more{where}"


def titled_lines(title: str, entries: Sequence[str], shown: int = SHOWN) -> Iterator[str]:
    """Yield a title with the number of entries, then the first of them, indented; nothing where there are none."""
    if entries:
        yield f"{title}: {len(entries)}"
        yield from (f"  {line}" for line in first_lines(entries, shown, " (info --json shows all)"))


def command_line() -> str:
    """Return what is typed before a command here: the installed script where that runs, else "python cli.py"."""
    return SCRIPT if Path(sys.argv[0]).name == SCRIPT else "python cli.py"


def how_to_install(extra: str = "") -> str:
    """Return the advice that installs this package, or an extra of it. Nothing is on an index before a release."""
    what = f"[{extra}]" if extra else ""
    return f"In a clone of modelnet-cache, type: pip install '.{what}'; with a wheel: pip install 'FILE.whl{what}'"


def align(rows: Sequence[Sequence[str]], left: Container[int] = (0,), gap: str = "  ") -> list[str]:
    """Lay out rows of cells in columns, a line a row.

    Args:
        rows: of the same number of cells. A column whose cells are all empty is left out.
        left: positions of the columns that are aligned left; the others are aligned right, as numbers are.
        gap: between two columns.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    columns = [position for position, width in enumerate(widths) if width]
    return [
        gap.join(row[i].ljust(widths[i]) if i in left else row[i].rjust(widths[i]) for i in columns).rstrip()
        for row in rows
    ]


def parse_size(text: "str | int | tuple[int, int]") -> tuple[int, int]:
    """Return (height, width) of a size as it is typed: "224" for a square, "192x256" for a rectangle.

    Raises:
        ValueError: another text, or sides that no image can have.
    """
    if not isinstance(text, str):
        return checked_size(text)
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})?", text):
        raise ValueError(f"a size is a number of pixels, 224, or height x width, 192x256, not {text!r}")
    height, *width = map(int, text.split("x"))
    return checked_size((height, *width) if width else height)


def show_size(size: tuple[int, int]) -> str:
    """Return a size as it is typed: "224" or "192x256"."""
    return str(size[0]) if size[0] == size[1] else f"{size[0]}x{size[1]}"


def checked_size(size: object) -> tuple[int, int]:
    """Return (height, width) of one number, for a square, or of a pair.

    Raises:
        ValueError: anything else, or sides that no image can have.
    """
    sides = (size, size) if type(size) is int else size
    if isinstance(sides, tuple) and len(sides) == 2 and all(type(s) is int and 1 <= s <= MAX_SIZE for s in sides):
        return sides
    kind = "(height, width), each" if isinstance(size, tuple) else "a whole number of pixels"
    raise ValueError(f"size is {kind} from 1 to {MAX_SIZE}, not {size!r}")

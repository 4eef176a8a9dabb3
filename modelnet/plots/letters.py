"""Find fonts for the names of classes: matplotlib's own font has no Chinese, and what no font has is escaped."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

OWN = "DejaVu Sans"  # comes with matplotlib
_LIKELY = ("cjk", "wqy", "fallback", "unicode", "unifont", "pingfang", "hiragino", "gothic", "sim", "noto", "free")


class Letters(NamedTuple):
    """How to draw given texts.

    Attributes:
        families: the fonts, matplotlib's own first; a letter is drawn with the first that has it.
        missing: letters that none of them has.
    """

    families: list[str]
    missing: frozenset[str]

    def drawable(self, text: str) -> str:
        r"""Return a text that these fonts can draw: other letters as "\u732b", and no dollar sign begins a formula."""
        return "".join(_escape(letter) if letter in self.missing else letter for letter in text).replace("$", r"\$")


def letters_for(texts: Iterable[str]) -> Letters:
    """Choose fonts for texts; search this machine's fonts only if matplotlib's own font lacks a letter."""
    wanted = {letter for text in texts for letter in text}
    odd = {letter for letter in wanted if not letter.isprintable()}
    missing = {letter for letter in wanted - odd if ord(letter) not in _own_letters()}
    families = [OWN]
    for path in _system_fonts() if missing else ():
        if found := {letter for letter in missing if ord(letter) in _letters(path)}:
            families.append(_register(path))
            missing -= found
        if not missing:
            break
    return Letters(families, frozenset(missing | odd))


def _escape(letter: str) -> str:
    return f"\\x{ord(letter):02x}" if ord(letter) < 256 else letter.encode("ascii", "backslashreplace").decode()


def _own_letters() -> frozenset[int]:
    import matplotlib

    return _letters(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")


@cache
def _letters(path: Path) -> frozenset[int]:
    """Return the code points that a font has; none where it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (RuntimeError, OSError):
        return frozenset()


@cache
def _register(path: Path) -> str:
    """Make a font known to matplotlib, and return its name."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    fontManager.addfont(str(path))
    return str(FT2Font(str(path)).family_name)


@cache
def _system_fonts() -> tuple[Path, ...]:
    """Return the fonts of this machine, regular ones with letters of many scripts first."""
    from matplotlib.font_manager import findSystemFonts

    return tuple(sorted(map(Path, findSystemFonts()), key=_rank))


def _rank(path: Path) -> tuple[int, bool, Path]:
    name = path.name.lower()
    likely = next((number for number, word in enumerate(_LIKELY) if word in name), len(_LIKELY))
    return likely, any(word in name for word in ("bold", "black", "italic", "thin", "light")), path

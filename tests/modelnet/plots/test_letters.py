"""Letters of any script: drawn by a font that is there, or escaped so that they can be read."""

from pathlib import Path

import pytest

from modelnet.plots import letters
from modelnet.plots.confusion import confusion_picture
from modelnet.plots.letters import OWN, letters_for


def test_letters_of_europe_are_drawn_by_matplotlibs_own_font() -> None:
    found = letters_for(["собака", "Möwe", "γάτα"])
    assert found.families == [OWN] and not found.missing
    assert found.drawable("Möwe") == "Möwe"


def test_a_letter_is_drawn_by_a_font_that_has_it_or_is_escaped() -> None:
    found = letters_for(["猫"])
    if found.missing:
        assert found.drawable("猫 1") == r"\u732b 1"
    else:
        assert len(found.families) == 2 and found.drawable("猫 1") == "猫 1"


def test_without_another_font_names_are_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(letters, "_system_fonts", lambda: ())  # a machine without fonts
    found = letters_for(["猫", "a\nb", "\udce9"])
    assert [found.drawable(name) for name in ("猫", "a\nb", "\udce9")] == [r"\u732b", r"a\x0ab", r"\udce9"]


def test_a_font_that_cannot_be_read_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cjk.ttf").write_bytes(b"no font")
    monkeypatch.setattr(letters, "_system_fonts", lambda: (tmp_path / "cjk.ttf",))
    assert letters_for(["猫"]).families == [OWN]


def test_no_letter_of_a_picture_is_missing() -> None:
    """Matplotlib warns of a glyph that it lacks, and here warnings are errors."""
    assert confusion_picture([[3, 1], [0, 2]], ["猫 $x^2$", "собака\n\udce9"], "Möwe 猫").startswith(b"\x89PNG")


def test_a_dollar_sign_begins_no_formula() -> None:
    assert letters_for(["$x$"]).drawable("$x$") == r"\$x\$"

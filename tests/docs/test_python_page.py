"""The Python that the pages show runs, and the page of the API has every public name."""

import re
from pathlib import Path

import pytest

import modelnet
import pipeline
from tests.support.command_line import REPOSITORY
from tests.support.console import check_out

PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone, as the current folder."""
    check_out(tmp_path / "checkout")
    monkeypatch.chdir(tmp_path / "checkout")
    return tmp_path / "checkout"


def python_of(page: str) -> str:
    return "\n".join(PYTHON.findall((REPOSITORY / page).read_text("utf-8")))


def test_every_public_name_is_on_the_page_of_the_api() -> None:
    page = (REPOSITORY / "docs" / "python.md").read_text("utf-8")
    shown = re.findall(r"^\.\. auto(?:class|function|exception):: (\w+)$", page, re.MULTILINE)

    assert sorted(shown) == sorted([*pipeline.__all__, *modelnet.__all__])


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_of_a_page_runs(page: str, checkout: Path) -> None:
    code = python_of(page)
    assert code

    exec(compile(code, page, "exec"), {"__name__": page})

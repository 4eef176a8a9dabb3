"""What README, ARCHITECTURE, CONTRIBUTING and docs/ point to exists: pages, files, folders, targets of make."""

import re
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY

ROOT_PAGES = [REPOSITORY / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = [*ROOT_PAGES, *sorted((REPOSITORY / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
ROOMS = ("pipeline", "modelnet", "tests", "benchmarks", "docs", "data/draw_example.py", ".ci", "cli.py")
CODE = re.compile(r"`([\w./-]+)`")


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    broken = [link for link in LINK.findall(page.read_text("utf-8")) if not (page.parent / link).exists()]
    assert broken == []


def test_every_path_of_code_that_a_page_names_exists(page: Path) -> None:
    named = [path for path in CODE.findall(page.read_text("utf-8")) if path.startswith(ROOMS) and "/" in path]
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_every_target_of_make_that_a_page_names_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:`|^ *(?:\$ )?)make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE)
    assert set(named) <= targets


def test_every_page_of_the_site_is_in_its_contents() -> None:
    contents = (REPOSITORY / "docs" / "index.md").read_text("utf-8").splitlines()
    assert [page.stem for page in (REPOSITORY / "docs").glob("*.md") if page.stem not in [*contents, "index"]] == []


def test_architecture_names_every_room() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    rooms = {init.parent.name for package in ("pipeline", "modelnet") for init in REPOSITORY.glob(f"{package}/*/*.py")}

    assert rooms - {"probes"} == set(re.findall(r"^\| `(\w+)/` \|", text, re.MULTILINE))


def test_nothing_advises_to_install_from_an_index_before_a_release() -> None:
    sources = [
        path for folder in ("pipeline", "modelnet", "docs") for path in (REPOSITORY / folder).rglob("*.[pm][yd]")
    ]
    advised = re.compile(r"pip install ['\"]?modelnet")

    assert [path for path in [*ROOT_PAGES, *sources] if advised.search(path.read_text("utf-8"))] == []

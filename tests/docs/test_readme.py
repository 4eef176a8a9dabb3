"""What README and the first page say to type works, and prints what they show, numbers of the machine aside."""

import shutil
from pathlib import Path

import pytest

from tests.support.command_line import REPOSITORY
from tests.support.console import check_out, matches, type_in, typed_commands


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder as a reader has it after cloning, with a folder of photographs, split in two, beside it."""
    place = tmp_path / "checkout"
    check_out(place)
    for part, digits in (("train", "02468"), ("val", "13579")):
        for class_id, name in (("1", "paddles"), ("2", "snakes")):
            folder = place.parent / "photos" / part / name
            folder.mkdir(parents=True)
            for image in (place / "data" / "example" / class_id).iterdir():
                if image.stem[-1] in digits:
                    shutil.copy(image, folder)
    return place


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("page", "count"), [("README.md", 2), ("docs/getting-started.md", 5)])
def test_the_commands_of_a_page_print_what_it_shows(
    page: str, count: int, checkout: Path, request: pytest.FixtureRequest
) -> None:
    commands = typed_commands(REPOSITORY / page)
    assert len(commands) == count
    server = None if page == "README.md" else request.getfixturevalue("command_server")

    for typed in commands:
        printed = type_in(typed, checkout, server)
        assert matches(typed.shown, printed), f"{typed.command}\n" + "\n".join(printed)


def test_output_that_differs_in_more_than_numbers_is_noticed() -> None:
    assert matches(["a: 3 images, 1.2 MB", "...", "end"], ["a:  12 images, 3 kB", "x", "y", "end"])
    assert not matches(["a: 3 images"], ["a: 3 pictures"])
    assert not matches(["a: 3 images"], ["a: 3 images", "warning: more"])

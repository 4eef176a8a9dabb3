"""What the extension of the site computes: recorded figures, and the check that pages load nothing from elsewhere."""

from pathlib import Path

import pytest

from docs.generated import foreign_loads, recorded


@pytest.mark.parametrize(
    "markup",
    [
        '<link rel="stylesheet" href="https://fonts.example/css">',
        '<script async src="//cdn.example/x.js"></script>',
        "<img alt='' src='http://example/a.png'>",
        "<style>@import 'https://example/a.css';</style>",
        '<p style="background: url(https://example/a.png)">',
    ],
)
def test_what_a_browser_would_load_from_elsewhere_is_found(markup: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f"<p>text</p>{markup}")

    assert len(foreign_loads(page)) == 1


def test_links_and_own_files_load_nothing_from_elsewhere(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(
        '<a class="x" href="https://example.org">out</a><link href="a.css"><img src="data:image/png;base64,">'
    )

    assert foreign_loads(page) == []


def test_recorded_figures_name_the_machine_and_the_command(tmp_path: Path) -> None:
    record = tmp_path / "reading.md"
    record.write_text("9 images; 2 cores\n\n### Reading\n\n| | s |\n| --- | ---: |\n| ours | 1 |\n")

    shown = recorded(record)

    assert "**Reading**" in shown and "| ours | 1 |" in shown
    assert shown.endswith("Measured on 9 images; 2 cores. Repeat: `make bench ONLY=reading SOURCE=FOLDER`.")


def test_the_command_of_a_record_names_what_its_part_needs(tmp_path: Path) -> None:
    commands = {part: recorded(tmp_path / f"{part}.md") for part in ("networks", "filters", "folds")}

    assert "`make bench ONLY=networks SOURCE=FOLDER`" in commands["networks"]
    assert "`make bench ONLY=filters SOURCE=hymenoptera_data`" in commands["filters"]
    assert "`make bench ONLY=folds SOURCE=hymenoptera_data WEIGHTS=FILE`" in commands["folds"]


def test_figures_that_nobody_recorded_are_not_invented(tmp_path: Path) -> None:
    assert recorded(tmp_path / "reading.md").startswith("No figures are recorded")
